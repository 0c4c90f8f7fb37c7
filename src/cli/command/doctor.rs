//! `doctor`: what is wrong here, and what to do about it.
//!
//! Every check looks and changes nothing. It works without a daemon, with a dead one or one that hangs, and
//! with a mount that somebody has put over ours. Whoever touches a mount whose daemon hangs may wait for
//! ever and not even be killed, so a process of its own does that, and is not waited for beyond a bound.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::Done;
use super::abort::{CONNECTIONS, connection};
use crate::cli::Context;
use crate::cli::args::System;
use crate::cli::client::Client;
use crate::cli::error::Failure;
use crate::daemon::config::{Config, KeyConfig, Layer};
use crate::daemon::lock::serving_pid;
use crate::daemon::renderings::read_renderings;
use crate::daemon::run::FS_TYPE;
use crate::daemon::{compose, inspection, trust};
use crate::system::{Mount, is_protected, is_stale, mounts, procfs, topmost};

/// How a check went.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Bad,
    Good,
    /// Worth knowing, but nothing fails because of it.
    Note,
}

/// What a check found.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do; empty when there is nothing to do.
    advice: String,
}

fn good(what: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, what: what.into(), advice: String::new() }
}

fn bad(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Bad, what: what.into(), advice: advice.into() }
}

fn note(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Note, what: what.into(), advice: advice.into() }
}

pub(super) fn run(context: &Context, args: &System) -> Result<ExitCode, Failure> {
    let mut findings = host();
    match context.config(args.system, Layer::default()) {
        Err(failure) => findings.push(bad(failure.to_string(), "correct the configuration")),
        Ok((_, config)) => {
            findings.extend(files(&config));
            let objections = inspection::files(&config).into_iter();
            findings.extend(objections.map(|objection| note(objection, "move it into a secret")));
            findings.extend(mount(context, &config));
        }
    }
    report(context, &findings)
}

fn report(context: &Context, findings: &[Finding]) -> Result<ExitCode, Failure> {
    let count = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    context.out.json(&json!({ "findings": findings, "bad": count }))?;
    for Finding { verdict, what, advice } in findings {
        let mark = match verdict {
            Verdict::Bad => "BAD ",
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
        };
        let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        context.out.line(format_args!("{mark}  {what}{advice}"))?;
    }
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the host must have.
fn host() -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => good("/dev/fuse can be opened"),
        Err(err) => bad(format!("/dev/fuse: {err}"), "load the module fuse, or allow this user"),
    });
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        findings.push(fusermount());
    }
    findings.push(if Path::new(CONNECTIONS).join(".").exists() && !is_empty(CONNECTIONS) {
        good("fusectl is mounted")
    } else {
        note(
            "fusectl shows no connection",
            "`secretfs abort` needs it: mount -t fusectl fusectl /sys/fs/fuse/connections",
        )
    });
    if !is_root && !user_allow_other() {
        findings.push(note(
            "user_allow_other is not set in /etc/fuse.conf",
            "only you can reach your mount, root cannot; that may be just what you want",
        ));
    }
    findings
}

fn fusermount() -> Finding {
    let places = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"];
    let found = places.iter().find_map(|place| Some((place, fs::metadata(place).ok()?)));
    match found {
        None => bad("fusermount3 is not installed", "install the package fuse3"),
        Some((place, found)) if found.mode() & 0o4000 == 0 || found.uid() != 0 => {
            bad(format!("{place} is not setuid root"), "reinstall the package fuse3")
        }
        Some((place, _)) => good(format!("{place} is there")),
    }
}

fn user_allow_other() -> bool {
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    text.lines().any(|line| line.trim() == "user_allow_other")
}

fn is_empty(directory: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Configuration, policy, key and store.
fn files(config: &Config) -> Vec<Finding> {
    let mut findings = vec![good(format!("configuration {}", config.file.display()))];
    findings.extend(config.warnings.iter().map(|warning| note(warning, "unset or correct it")));
    if !config.store().exists() {
        let advice = "make one with `secretfs up` or `secretfs init`";
        findings.push(note(format!("no store in {}", config.state_dir.display()), advice));
        return findings;
    }
    findings.push(private(&config.state_dir, "chmod go= it: it holds the store and the audit log"));
    findings.push(policy(config));
    findings.extend(templates(config));
    if let KeyConfig::File(path) = &config.key {
        findings.push(private(path, "chmod go= it: whoever reads it opens every backup"));
        if path.starts_with(&config.state_dir) {
            findings.push(note("the root key lies beside the store", "a copy of both opens it"));
        }
    }
    findings
}

fn policy(config: &Config) -> Finding {
    let shown = config.policy.display();
    match trust::read(&config.policy) {
        Err(error) => bad(error.to_string(), "the daemon will not start with it"),
        Ok(text) => match compose::parse_policy(&text) {
            Err(fault) => {
                bad(format!("policy {shown}: {fault}"), "correct it, then `secretfs policy check`")
            }
            Ok(_) => good(format!("policy {shown}")),
        },
    }
}

fn templates(config: &Config) -> Option<Finding> {
    match read_renderings(config) {
        Err(error) => Some(bad(error.chain(), "correct it: the daemon will not start with it")),
        Ok(set) if set.templates.is_empty() => None,
        Ok(set) => Some(good(format!("{} templates", set.templates.len()))),
    }
}

/// Tells whether only its owner can enter or read something.
fn private(path: &Path, advice: &str) -> Finding {
    let shown = path.display();
    match fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            note(format!("{shown} cannot be looked at"), "run doctor as the daemon's user")
        }
        Err(err) => bad(format!("{shown}: {err}"), "restore it from where you keep a copy"),
        Ok(found) if found.mode() & 0o077 != 0 => {
            bad(format!("{shown} has mode {:04o}", found.mode() & 0o7777), advice)
        }
        Ok(_) => good(format!("{shown} is private")),
    }
}

/// The mountpoint and what is on it.
fn mount(context: &Context, config: &Config) -> Vec<Finding> {
    let path = context.args.mount.as_ref().unwrap_or(&config.mountpoint);
    let shown = path.display();
    let Ok(table) = mounts() else {
        return vec![bad("/proc/self/mountinfo cannot be read", "mount /proc")];
    };
    let Some(found) = topmost(&table, path) else {
        return vec![
            note(format!("nothing is mounted at {shown}"), "`secretfs up`"),
            unmounted(path),
        ];
    };
    let hidden = table.iter().any(|mount| mount.mountpoint == *path && mount.fs_type == FS_TYPE);
    if found.fs_type != FS_TYPE {
        let advice = if hidden {
            "somebody has mounted it over secretfs: find out who, then umount it"
        } else {
            "secretfs is not mounted here: choose another mountpoint, or umount it"
        };
        return vec![bad(format!("{shown} is a mount of type {}", found.fs_type), advice)];
    }
    let mut findings = options(found);
    findings.push(
        touch(path, config.deadline + MARGIN).unwrap_or_else(|| hung(found, &config.state_dir)),
    );
    findings
}

/// How much longer than its own deadline a mount may take to answer.
const MARGIN: Duration = Duration::from_secs(2);

/// Has another process look at the mount. `None`: it got no answer in time, and is left to itself.
fn touch(path: &Path, at_most: Duration) -> Option<Finding> {
    let mut command = Command::new("/proc/self/exe");
    command.args([OsStr::new("--mount"), path.as_os_str(), OsStr::new("probe")]);
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(err) => return Some(bad(format!("no process to look at it: {err}"), "try again")),
    };
    let (answer, answered) = mpsc::channel();
    let mut stdout = child.stdout.take()?;
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text);
        drop(answer.send(read.map(|_| text)));
    });
    let Ok(text) = answered.recv_timeout(at_most) else {
        // It may not die of that, and goes when its request ends.
        drop(child.kill());
        return None;
    };
    drop(child.wait());
    let found = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    Some(found.unwrap_or_else(|| bad("the mount cannot be looked at", "see the daemon's log")))
}

/// Is that other process: looks at the mount that `--mount` names, and says what it found.
pub(super) fn probe(context: &Context) -> Done {
    let path = context.args.mount.as_deref().unwrap_or(Path::new("/"));
    let found = if is_stale(path) {
        let what = format!("the daemon of {} is dead", path.display());
        bad(what, "`secretfs up` cleans up and mounts again")
    } else {
        match Client::find(Some(path), None) {
            Err(failure) => bad(failure.to_string(), "see above"),
            Ok(client) => health(&client),
        }
    };
    context.out.line(json!(found))
}

/// Says what is known of a mount that does not answer, without asking it.
fn hung(mount: &Mount, state_dir: &Path) -> Finding {
    let shown = mount.mountpoint.display();
    let mut what = format!("{shown} does not answer");
    let waiting = fs::read_to_string(connection(mount).join("waiting")).unwrap_or_default();
    if let Ok(waiting) = waiting.trim().parse::<u64>() {
        write!(what, ", and {waiting} requests wait").unwrap_or_default();
    }
    let cut = format!("`secretfs --mount {shown} abort` frees all who wait, and ends the mount");
    let advice = match serving_pid(state_dir) {
        None => cut,
        Some(pid) if is_stopped(pid) => {
            write!(what, "; its daemon, process {pid}, is stopped").unwrap_or_default();
            format!("`kill -CONT {pid}` lets it go on; or {cut}")
        }
        Some(pid) => {
            write!(what, "; its daemon, process {pid}, hangs").unwrap_or_default();
            format!("look at its log and its disk; {cut}")
        }
    };
    bad(what, advice)
}

fn is_stopped(pid: u32) -> bool {
    procfs::stat(pid).is_ok_and(|stat| matches!(stat.state, b'T' | b't'))
}

fn unmounted(path: &Path) -> Finding {
    match is_protected(path) {
        Some(true) => good(format!("{} is closed while nothing is mounted", path.display())),
        Some(false) => note(
            format!("{} is open while nothing is mounted", path.display()),
            "chmod 0000 it, so that nobody writes plaintext to the disk",
        ),
        None => good(format!("{} will be made", path.display())),
    }
}

fn options(mount: &Mount) -> Vec<Finding> {
    let shown = mount.mountpoint.display();
    let mut findings = Vec::new();
    let missing: Vec<&str> = ["nosuid", "nodev", "noexec"]
        .into_iter()
        .filter(|option| !mount.has_option(option))
        .collect();
    if !missing.is_empty() {
        findings.push(bad(format!("{shown} lacks {}", missing.join(", ")), "mount it again"));
    }
    if !connection(mount).exists() {
        findings.push(note(
            "the mount's connection is not in fusectl",
            "`secretfs abort` cannot reach it",
        ));
    }
    findings.push(good(format!("{shown} is {FS_TYPE}")));
    findings
}

fn health(client: &Client) -> Finding {
    match client.read_text(".control/health") {
        Err(failure) => bad(failure.to_string(), "see the daemon's log"),
        Ok(word) => match word.trim() {
            "ok" => good("the daemon is well"),
            "sealed" => note("the store is sealed", "`secretfs unseal`"),
            other => bad(format!("the daemon is {other}"), "`secretfs status` says why"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::parse_mountinfo;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_can_read_is_bad_and_what_is_missing_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.key");
        fs::File::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private(&path, "").verdict, Verdict::Good);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(private(&path, "").verdict, Verdict::Bad);
        assert_eq!(private(&dir.path().join("none"), "").verdict, Verdict::Bad);
    }

    #[test]
    fn a_mount_without_its_safe_options_is_bad() {
        let line = "90 22 0:51 / /secrets rw,nosuid,nodev - fuse.secretfs s rw";
        let mount = parse_mountinfo(line.as_bytes()).remove(0);
        let findings = options(&mount);
        let lacking: Vec<_> =
            findings.iter().filter(|found| found.verdict == Verdict::Bad).collect();
        assert_eq!(lacking.len(), 1);
        assert!(lacking[0].what.ends_with("lacks noexec"));
    }

    #[test]
    fn an_open_unmounted_mountpoint_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unmounted(dir.path()).verdict, Verdict::Note);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(unmounted(dir.path()).verdict, Verdict::Good);
        assert_eq!(unmounted(&dir.path().join("none")).verdict, Verdict::Good);
    }
}
