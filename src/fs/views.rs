//! What the views show: `@env` and `@json` of a directory, `@meta` of a secret.
//!
//! Plaintext is put together in locked memory and never passes through a string.

use serde_json::{Value, json};

use super::error::{FsError, Result};
use crate::broker::{Description, VersionSummary};
use crate::inject::{format, json, variable_of};
use crate::model::{EnvName, SecretName};
use crate::system::{SecretBuffer, SecretBytes};

/// Largest `@env` or `@json` in bytes, and what stat(2) shows as their size.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// A view of several values that is being put together.
pub(super) struct Collection {
    style: Style,
    text: SecretBuffer,
    names: Vec<String>,
}

/// How values are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    Env,
    Json,
}

impl Collection {
    /// Starts an empty view.
    pub(super) fn new(style: Style) -> Result<Self> {
        let mut view = Self { style, text: SecretBuffer::new(), names: Vec::new() };
        if style == Style::Json {
            view.push(b"{")?;
        }
        Ok(view)
    }

    /// Adds a secret, whose variable may have a name of its own. Errors: `Invalid` for a value that the form cannot hold, or for two secrets
    /// whose names are one variable; `TooBig` beyond [`MAX_BYTES`].
    pub(super) fn add(
        &mut self,
        (leaf, variable): (&str, Option<&EnvName>),
        value: &[u8],
    ) -> Result<()> {
        let name = match self.style {
            Style::Env => variable_of(variable, leaf),
            Style::Json => leaf.to_owned(),
        };
        if self.names.contains(&name) {
            return Err(FsError::Invalid);
        }
        match self.style {
            Style::Env => {
                self.push(name.as_bytes())?;
                self.push(b"=")?;
                if value.contains(&0) {
                    return Err(FsError::Invalid);
                }
                format::push_sh(&mut self.text, value)?;
                self.push(b"\n")?;
            }
            Style::Json => {
                self.push(if self.names.is_empty() { b"\n  \"" } else { b",\n  \"" })?;
                // Names hold nothing that would have to be escaped.
                self.push(name.as_bytes())?;
                self.push(b"\": ")?;
                json::push_value(&mut self.text, value)?;
            }
        }
        self.names.push(name);
        Ok(())
    }

    /// Ends the view.
    pub(super) fn finish(mut self) -> Result<SecretBytes> {
        match (self.style, self.names.is_empty()) {
            (Style::Env, _) => {}
            (Style::Json, true) => self.push(b"}\n")?,
            (Style::Json, false) => self.push(b"\n}\n")?,
        }
        Ok(self.text.into_bytes())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if (self.text.len() + bytes.len()) as u64 > MAX_BYTES {
            return Err(FsError::TooBig);
        }
        Ok(self.text.write_at(self.text.len(), bytes)?)
    }
}

/// Returns what `@meta` shows: everything but the values.
pub(super) fn meta(
    name: &SecretName,
    description: &Description,
    versions: &[VersionSummary],
) -> Value {
    let Description { secret, metadata, stale, fingerprint } = description;
    let levels: Vec<_> = secret.levels.iter().map(|level| level.as_str()).collect();
    json!({
        "name": name.as_str(),
        "id": secret.id.to_string(),
        "version": secret.version.0,
        "size": secret.size,
        "type": secret.secret_type.as_str(),
        "status": secret.status.as_str(),
        "created": metadata.created.to_string(),
        "created_by": metadata.created_by.0,
        "modified": metadata.modified.to_string(),
        "expires": metadata.expires.map(|time| time.to_string()),
        "last_rotated": metadata.last_rotated.map(|time| time.to_string()),
        "rotation_days": metadata.rotation_days,
        "description": metadata.description,
        "service": metadata.attributes.service,
        "environment": metadata.attributes.environment,
        "tags": metadata.attributes.tags,
        "owner_contact": metadata.owner_contact,
        "env_name": metadata.injection.env_name,
        "oneiric_path": metadata.injection.oneiric_path,
        "fingerprint": fingerprint,
        "stale_seconds": stale.map(|stale| stale.as_secs()),
        "levels": levels,
        "versions": versions,
    })
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(style: Style, secrets: &[(&str, &[u8])]) -> Vec<u8> {
        let mut view = Collection::new(style).unwrap();
        secrets.iter().for_each(|(leaf, value)| view.add((leaf, None), value).unwrap());
        view.finish().unwrap().expose().to_vec()
    }

    #[test]
    fn the_shell_reads_back_every_byte_of_a_quoted_value() {
        let value = b"it's $HOME `id` \\ \"x\"\n*\xff'";
        let mut script = view(Style::Env, &[("a-b", value)]);
        script.extend(b"printf %s \"$A_B\"");
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(std::os::unix::ffi::OsStrExt::from_bytes(script.as_slice()) as &std::ffi::OsStr)
            .output()
            .unwrap();
        assert_eq!(output.stdout, value);
    }

    #[test]
    fn json_reads_back_every_text_and_shows_other_bytes_in_base64() {
        let text = "quote \" back \\ line \n tab \t nul \0 \u{e9}";
        let bytes = view(Style::Json, &[("a", text.as_bytes()), ("b", b"\xff\xfe\xfd\xfc")]);
        let parsed: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(parsed, json!({ "a": text, "b": { "base64": "//79/A==" } }));
        assert_eq!(view(Style::Json, &[]), b"{}\n");
    }

    #[test]
    fn what_a_form_cannot_hold_is_refused_rather_than_changed() {
        let mut env = Collection::new(Style::Env).unwrap();
        assert!(matches!(env.add(("a", None), b"nul \0"), Err(FsError::Invalid)));
        env.add(("a-b", None), b"x").unwrap();
        assert!(matches!(env.add(("a.b", None), b"y"), Err(FsError::Invalid)));
        let big = vec![b'x'; usize::try_from(MAX_BYTES).unwrap()];
        assert!(matches!(env.add(("big", None), &big), Err(FsError::TooBig)));
    }
}
