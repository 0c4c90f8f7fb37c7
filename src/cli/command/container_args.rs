//! `container-args`: what makes secrets of the mount visible in a container.
//!
//! What is bound is decided here, from the mount as the kernel shows it; how a runtime is told so
//! stands in `form`.

use std::fs;
use std::path::{Component, Path};

use serde_json::json;

use self::form::{Bind, Form};
use super::Done;
use crate::cli::Context;
use crate::cli::args::ContainerArgs;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::model::SecretName;
use crate::system::{Mount, mounts};

mod form;

pub(super) fn run(context: &Context, args: &ContainerArgs) -> Done {
    let client = context.client()?;
    let form = Form::chosen(args.runtime);
    if let Some(warning) = entry(&client.mount, form)? {
        context.out.note(warning);
    }
    let target = target(&args.target)?;
    let binds = if args.across_remounts {
        vec![parent(context, &client.mount, target)?]
    } else {
        places(&client, &args.paths, &target)?
    };
    let written = form.write(&binds);
    context.out.json(&json!({ "runtime": form, "binds": binds, written.key: written.value }))?;
    written.text.lines().try_for_each(|line| context.out.line(line))
}

/// Looks whether the kernel lets a container into the mount at all; returns a word of warning.
fn entry(mount: &Mount, form: Form) -> Result<Option<&'static str>, Failure> {
    if mount.has_option("allow_other") {
        return Ok(None);
    }
    if form.runs_as_root() {
        let shown = mount.mountpoint.display().to_string();
        let why = "the kernel lets nobody but its user into this mount, so not the runtime either";
        let hint =
            "set user_allow_other in /etc/fuse.conf and mount again, or use the system's mount";
        return Err(Failure::new(Kind::Config, shown, why).hint(hint));
    }
    Ok(Some("only the mount's own user gets in: whoever is another one in the container does not"))
}

/// Returns a bind for each place, each at a target of its own.
fn places(client: &Client, names: &[SecretName], target: &str) -> Result<Vec<Bind>, Failure> {
    let root = printable(&client.mount.mountpoint)?;
    if names.is_empty() {
        return Ok(vec![Bind::private(root, target.into())]);
    }
    let mut binds: Vec<Bind> = Vec::new();
    for name in names {
        let found = fs::metadata(client.path(name.as_str()))
            .map_err(|err| Failure::from_errno(name.as_str(), &err))?;
        let target = match names {
            [_] if found.is_dir() => target.to_owned(),
            _ => format!("{}/{}", target.trim_end_matches('/'), name.leaf()),
        };
        if binds.iter().any(|bind| bind.target == target) {
            let hint = "bind the directory above, or print them apart with another --target";
            return Err(Failure::new(Kind::Config, target, "two of them would be there").hint(hint));
        }
        binds.push(Bind::private(format!("{root}/{name}"), target));
    }
    Ok(binds)
}

/// Returns the bind of the directory that holds the mountpoint, if that may and will help.
fn parent(context: &Context, mount: &Mount, target: String) -> Result<Bind, Failure> {
    let table = mounts()
        .map_err(|err| Failure::new(Kind::BackendConnection, "the mount table", err.to_string()))?;
    let refused = |why: &str| {
        Failure::new(Kind::Config, "--across-remounts", why)
            .hint("the manual says how to lay out a mountpoint for it: OPERATIONS, Containers")
    };
    let (directory, leaf) = mount
        .mountpoint
        .parent()
        .zip(mount.mountpoint.file_name())
        .ok_or_else(|| refused("the mountpoint is in no directory"))?;
    if !holds_only(directory, leaf) {
        return Err(refused("the mountpoint's directory holds more than the mountpoint"));
    }
    if !table.iter().any(|other| other.id == mount.parent && other.is_shared) {
        return Err(refused("the mountpoint's directory is on no shared mount"));
    }
    let leaf = printable(Path::new(leaf))?;
    context.out.note(format_args!("in the container the secrets are below {target}/{leaf}"));
    Ok(Bind::following(printable(directory)?, target))
}

fn holds_only(directory: &Path, leaf: &std::ffi::OsStr) -> bool {
    let Ok(mut entries) = fs::read_dir(directory) else { return false };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == leaf))
}

/// Checks where in the container it shall be.
fn target(path: &Path) -> Result<String, Failure> {
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || path.parent().is_none() {
        let why = "must be an absolute path below the container's root";
        return Err(Failure::new(Kind::Config, "--target", why));
    }
    printable(path)
}

/// Returns a path as text; no runtime takes another one in all of its forms.
fn printable(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        let why = "the path has control characters or is not UTF-8";
        Failure::new(Kind::Config, path.display().to_string(), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::parse_mountinfo;

    #[test]
    fn a_mount_that_lets_nobody_else_in_is_none_for_a_runtime_that_is_root() {
        let closed = b"90 22 0:51 / /home/a/secrets rw - fuse.secretfs secretfs rw,user_id=1000";
        let open = [&closed[..], b",allow_other"].concat();
        let mount = |text: &[u8]| parse_mountinfo(text).remove(0);
        for form in [Form::Docker, Form::Compose] {
            let failure = entry(&mount(closed), form).unwrap_err();
            assert!(failure.hint.contains("user_allow_other"), "{failure}");
            assert!(entry(&mount(&open), form).unwrap().is_none());
        }
        assert!(entry(&mount(closed), Form::Podman).unwrap().is_some());
    }

    #[test]
    fn a_target_is_absolute_plain_and_not_the_root() {
        assert_eq!(target(Path::new("/run/secrets")).unwrap(), "/run/secrets");
        for bad in ["", "/", "run", "./x", "/run/../etc", "/run/a\nb"] {
            assert!(target(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
