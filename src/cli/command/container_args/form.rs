//! How each runtime is told of a bind: words for a shell, a piece of YAML, or a piece of JSON.

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::args::Runtime;

/// A path of the host that is seen read-only at a path of the container.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Bind {
    pub(super) source: String,
    pub(super) target: String,
    propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
enum Propagation {
    /// Later mounts on the host are not seen: every runtime's own default.
    #[serde(rename = "rprivate")]
    Private,
    /// Later mounts below the source are seen.
    #[serde(rename = "rslave")]
    Slave,
}

impl Bind {
    /// Returns a bind of something in the mount.
    pub(super) fn private(source: String, target: String) -> Self {
        Self { source, target, propagation: Propagation::Private }
    }

    /// Returns a bind of a directory in which something may be mounted later.
    pub(super) fn following(source: String, target: String) -> Self {
        Self { source, target, propagation: Propagation::Slave }
    }
}

/// For whom binds are written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    Bwrap,
    Compose,
    Docker,
    Oci,
    Podman,
}

/// Binds written down: as text, and as a member of a JSON document.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) key: &'static str,
    pub(super) value: Value,
}

impl Form {
    pub(super) fn chosen(runtime: Runtime) -> Self {
        let Runtime { docker: _, podman, compose, bwrap, oci } = runtime;
        match () {
            () if podman => Self::Podman,
            () if compose => Self::Compose,
            () if bwrap => Self::Bwrap,
            () if oci => Self::Oci,
            () => Self::Docker,
        }
    }

    /// Tells whether a daemon that is root opens the source, whoever asks for the container.
    pub(super) fn runs_as_root(self) -> bool {
        match self {
            Self::Compose | Self::Docker => true,
            Self::Bwrap | Self::Oci | Self::Podman => false,
        }
    }

    pub(super) fn write(self, binds: &[Bind]) -> Written {
        match self {
            Self::Docker | Self::Podman => {
                words(binds.iter().flat_map(|bind| ["--mount".to_owned(), mount_value(bind)]))
            }
            // It makes its namespace a slave of the host's, so later mounts are seen in any case.
            Self::Bwrap => words(binds.iter().flat_map(|bind| {
                ["--ro-bind".to_owned(), bind.source.clone(), bind.target.clone()]
            })),
            Self::Compose => Written {
                text: volumes_text(binds),
                key: "volumes",
                value: binds.iter().map(volume).collect(),
            },
            Self::Oci => {
                let value: Value = binds.iter().map(oci_mount).collect();
                Written { text: format!("{value:#}"), key: "mounts", value }
            }
        }
    }
}

fn words(words: impl Iterator<Item = String>) -> Written {
    let words: Vec<String> = words.collect();
    let quoted: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    Written { text: quoted.join(" "), key: "arguments", value: json!(words) }
}

/// Returns the value of `--mount`: one record of CSV (RFC 4180).
fn mount_value(bind: &Bind) -> String {
    let mut fields = vec![
        "type=bind".to_owned(),
        format!("src={}", bind.source),
        format!("dst={}", bind.target),
        "readonly".to_owned(),
    ];
    if bind.propagation == Propagation::Slave {
        fields.push("bind-propagation=rslave".to_owned());
    }
    let fields: Vec<String> = fields.into_iter().map(csv_field).collect();
    fields.join(",")
}

fn csv_field(field: String) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// Returns a word as a POSIX shell reads it back.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Returns a volume in the long form: the short one would make a missing source.
fn volume(bind: &Bind) -> Value {
    let mut how = json!({ "create_host_path": false });
    if bind.propagation == Propagation::Slave {
        how = json!({ "create_host_path": false, "propagation": bind.propagation });
    }
    json!({
        "type": "bind", "source": compose_path(&bind.source), "target": compose_path(&bind.target),
        "read_only": true, "bind": how,
    })
}

/// Returns the volumes as YAML.
fn volumes_text(binds: &[Bind]) -> String {
    // A string of JSON is one of YAML too.
    let quoted = |path: &str| Value::from(compose_path(path)).to_string();
    let mut lines = vec!["volumes:".to_owned()];
    for bind in binds {
        lines.push("  - type: bind".to_owned());
        lines.push(format!("    source: {}", quoted(&bind.source)));
        lines.push(format!("    target: {}", quoted(&bind.target)));
        lines.push("    read_only: true".to_owned());
        lines.push("    bind:".to_owned());
        lines.push("      create_host_path: false".to_owned());
        if bind.propagation == Propagation::Slave {
            lines.push("      propagation: rslave".to_owned());
        }
    }
    lines.join("\n")
}

/// Doubles dollar signs: a single one would be a variable of compose.
fn compose_path(path: &str) -> String {
    path.replace('$', "$$")
}

/// Returns an entry of `mounts`. The flags that the mount has are named, because in a user namespace
/// a bind may not lose them.
fn oci_mount(bind: &Bind) -> Value {
    json!({
        "destination": bind.target, "type": "bind", "source": bind.source,
        "options": ["rbind", "ro", "nosuid", "nodev", "noexec", bind.propagation],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "/m, a'\"$x";

    fn text(form: Form, bind: Bind) -> String {
        form.write(&[bind]).text
    }

    fn plain() -> Bind {
        Bind::private("/secrets/app".into(), "/run/secrets".into())
    }

    #[test]
    fn a_plain_bind_needs_no_quotes() {
        let mount = "--mount type=bind,src=/secrets/app,dst=/run/secrets,readonly";
        assert_eq!(text(Form::Docker, plain()), mount);
        assert_eq!(text(Form::Podman, plain()), mount);
        assert_eq!(text(Form::Bwrap, plain()), "--ro-bind /secrets/app /run/secrets");
    }

    #[test]
    fn a_shell_reads_back_every_word() {
        for form in [Form::Docker, Form::Bwrap] {
            let written = form.write(&[Bind::private(ODD.into(), "/run/s".into())]);
            let script = format!("for word in {}; do printf '%s\\n' \"$word\"; done", written.text);
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let read = String::from_utf8(output.stdout).unwrap();
            let read: Vec<&str> = read.lines().collect();
            assert_eq!(json!(read), written.value, "{form:?}");
        }
    }

    #[test]
    fn a_comma_or_a_quote_in_a_path_stays_in_its_field_of_csv() {
        let value = mount_value(&Bind::private(ODD.into(), "/run/s".into()));
        assert_eq!(value, "type=bind,\"src=/m, a'\"\"$x\",dst=/run/s,readonly");
    }

    #[test]
    fn a_dollar_sign_is_no_variable_of_compose() {
        let written = text(Form::Compose, Bind::private(ODD.into(), "/run/s".into()));
        assert!(written.contains("    source: \"/m, a'\\\"$$x\"\n"), "{written}");
        assert!(written.ends_with("      create_host_path: false"), "{written}");
    }

    #[test]
    fn only_a_bind_that_follows_asks_for_propagation() {
        let following = || Bind::following("/run/secretfs".into(), "/run/secrets".into());
        for form in [Form::Docker, Form::Podman, Form::Compose, Form::Oci] {
            assert!(text(form, following()).contains("rslave"), "{form:?}");
            assert!(!text(form, plain()).contains("rslave"), "{form:?}");
        }
    }
}
