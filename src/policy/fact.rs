//! The facts about a caller as people write them, in a policy or in a grant.

use std::ffi::OsString;

use super::Users;
use super::condition::ContainerRef;
use crate::model::{Gid, Uid};

type Result<T> = std::result::Result<T, String>;

/// Reads a user: a number, or else a name.
pub(super) fn user(text: &str, users: &dyn Users) -> Result<Uid> {
    match text.parse() {
        Ok(number) => below_the_highest(number).map(Uid),
        Err(_) => user_by_name(text, users),
    }
}

/// Reads a group: a number, or else a name.
pub(super) fn group(text: &str, users: &dyn Users) -> Result<Gid> {
    match text.parse() {
        Ok(number) => below_the_highest(number).map(Gid),
        Err(_) => group_by_name(text, users),
    }
}

pub(super) fn user_by_name(name: &str, users: &dyn Users) -> Result<Uid> {
    let unknown = || format!("there is no user {name:?} here: use a user or a uid");
    users.uid_of(name).ok_or_else(unknown)
}

pub(super) fn group_by_name(name: &str, users: &dyn Users) -> Result<Gid> {
    let unknown = || format!("there is no group {name:?} here: use a group or a gid");
    users.gid_of(name).ok_or_else(unknown)
}

/// The highest number is "no id" to the kernel, and what an id without a mapping may become.
pub(super) fn below_the_highest(number: u32) -> Result<u32> {
    if number == u32::MAX {
        return Err(format!("{number} stands for no id at all"));
    }
    Ok(number)
}

/// Completes a bare unit name to its cgroup path, as systemd chooses it by default.
pub(super) fn unit(name: &str) -> Result<Box<str>> {
    if let Some(end) = [".service", ".scope"].into_iter().find(|end| name.ends_with(end)) {
        let is_clean = !name.starts_with('/') && name.split('/').all(|part| !part.is_empty());
        if is_clean && name.len() > end.len() {
            return Ok(match (name.contains('/'), name.split_once('@')) {
                (true, _) => name.into(),
                (false, Some((template, _))) if !template.is_empty() => {
                    let slice = template.replace('-', "\\x2d");
                    format!("system.slice/system-{slice}.slice/{name}").into()
                }
                (false, _) => format!("system.slice/{name}").into(),
            });
        }
    }
    Err(format!(
        "{name:?} is no unit: use \"nginx.service\" or a cgroup path such as \
         \"system.slice/nginx.service\""
    ))
}

pub(super) fn container(text: &str) -> Result<ContainerRef> {
    let (runtime, id) = text.split_once(':').unwrap_or((text, ""));
    let is_hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let error = match runtime {
        "containerd" | "crio" | "docker" | "podman" => {
            let is_id = is_hex && (ContainerRef::MIN_ID_DIGITS..=64).contains(&id.len());
            (!is_id).then(|| {
                format!(
                    "{runtime} puts the id into the cgroup, not the name: use at least {} of its \
                     hexadecimal digits, as in \"{runtime}:0123456789ab\"",
                    ContainerRef::MIN_ID_DIGITS
                )
            })
        }
        "lxc" | "nspawn" => id.is_empty().then(|| format!("use \"{runtime}:NAME\"")),
        _ => Some(format!(
            "{text:?} is no container: use RUNTIME:ID with docker, podman, containerd, crio, \
             nspawn or lxc"
        )),
    };
    match error {
        Some(message) => Err(message),
        None => Ok(ContainerRef { runtime: runtime.into(), id: id.into() }),
    }
}

pub(super) fn exe(path: &str) -> Result<OsString> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is no absolute path"));
    }
    Ok(path.into())
}

pub(super) fn sha256(text: &str) -> Result<[u8; 32]> {
    let error = || "expected a SHA-256 in 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(error());
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        let digits = text.get(at..at + 2).ok_or_else(error)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
    }
    Ok(digest)
}
