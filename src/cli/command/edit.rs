//! `edit`: a value in the user's editor, in memory, and back with the version that it came from.
//!
//! Editors write swap and backup files beside the file and replace it by rename. So it lies in a
//! directory of its own, mode 0700, in a filesystem that is memory; where there is none, the command
//! refuses rather than put plaintext on a disk.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Edit;
use crate::cli::client::Writing;
use crate::cli::error::{Failure, Kind};
use crate::cli::plaintext;
use crate::daemon::config::Environment;
use crate::system::{SecretBytes, atomic_file::is_in_memory};

pub(super) fn run(context: &Context, args: &Edit) -> Done {
    let name = &args.name;
    let client = context.client()?;
    let version = client.attribute(name, "version").and_then(|text| text.parse().ok());
    let before = client.read_value(name, "")?;
    let fail = |err: io::Error| Failure::new(Kind::Config, name.as_str(), err.to_string());
    let desk = Desk::new(&context.environment, name.leaf(), &before)?;
    run_editor(&context.environment, &desk.file)?;
    let after = File::open(&desk.file).and_then(plaintext::read_all).map_err(fail)?;
    drop(desk);
    if after.constant_time_eq(&before) {
        return context.out.done("nothing was changed", &json!({ "name": name, "changed": false }));
    }
    if after.is_empty() {
        return Err(Failure::new(Kind::Config, name.as_str(), "the edited value is empty")
            .hint("nothing was stored; `secretfs put --allow-empty` stores no bytes"));
    }
    client.write_value(name, &after, Writing { expect: version, create: false })?;
    let stored = client.attribute(name, "version").and_then(|text| text.parse::<u64>().ok());
    let document = json!({ "name": name, "changed": true, "version": stored });
    context.out.done(format_args!("{name} is changed"), &document)
}

/// A private directory in memory with one file.
struct Desk {
    directory: TempDir,
    file: PathBuf,
}

impl Desk {
    fn new(environment: &Environment, leaf: &str, value: &SecretBytes) -> Result<Self, Failure> {
        let fail = |err: io::Error| Failure::new(Kind::Config, "a place to edit", err.to_string());
        let place = memory_place(environment).ok_or_else(|| {
            Failure::new(Kind::Config, "a place to edit", "there is no filesystem in memory")
                .hint("mount a tmpfs at /dev/shm, or use `get` and `put` in a pipe")
        })?;
        let private = fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new()
            .prefix("secretfs-edit-")
            .permissions(private)
            .tempdir_in(place)
            .map_err(fail)?;
        // The name's ending tells editors the language.
        let file = directory.path().join(leaf);
        let mut opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .map_err(fail)?;
        opened.write_all(value.expose()).map_err(fail)?;
        Ok(Self { directory, file })
    }
}

impl Drop for Desk {
    /// Overwrites whatever the editor has left there; the directory is removed after that.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                // Pages of a memory filesystem are freed with the file; this clears them before.
                drop(overwrite(&entry.path()));
            }
        }
    }
}

fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let size = file.metadata()?.len();
    io::copy(&mut io::Read::take(io::repeat(0), size), &mut file).map(drop)
}

fn memory_place(environment: &Environment) -> Option<PathBuf> {
    let runtime = environment.absolute_path("XDG_RUNTIME_DIR");
    let places = runtime.into_iter().chain([PathBuf::from("/dev/shm")]);
    places.into_iter().find(|place| is_in_memory(place))
}

fn run_editor(environment: &Environment, file: &Path) -> Done {
    let editor = environment.value("VISUAL").or_else(|| environment.value("EDITOR"));
    let editor = editor.unwrap_or(OsStr::new("vi"));
    let shown = editor.to_string_lossy().into_owned();
    let failed = |why: String| {
        Failure::new(Kind::Config, shown.clone(), why).hint("nothing was stored; see $EDITOR")
    };
    // $EDITOR may hold options; like git, leave the splitting to the shell.
    let mut script = OsString::from(editor);
    script.push(" \"$@\"");
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .arg(editor)
        .arg(file)
        .status()
        .map_err(|err| failed(err.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(format!("the editor ended with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn desk(value: &[u8]) -> Option<Desk> {
        // Without a memory filesystem there is nothing to test but the refusal.
        memory_place(&Environment::default())?;
        let value = SecretBytes::copy_from(value).unwrap();
        Some(Desk::new(&Environment::default(), "db.toml", &value).unwrap())
    }

    #[test]
    fn the_file_is_private_in_memory_and_gone_afterwards() {
        let Some(desk) = desk(b"canary-7f3a") else { return };
        let (file, directory) = (desk.file.clone(), desk.directory.path().to_path_buf());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let left_behind = directory.join("db.toml~");
        fs::hard_link(&file, &left_behind).unwrap();
        let mut still_open = File::open(&file).unwrap();
        drop(desk);
        assert!(!directory.exists());
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut still_open, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 11]);
    }

    #[test]
    fn an_editor_with_options_gets_the_file_and_its_failure_is_told() {
        let Some(desk) = desk(b"old") else { return };
        let sed = Environment::of([("EDITOR", "sed -i s/old/new/")]);
        run_editor(&sed, &desk.file).unwrap();
        assert_eq!(fs::read(&desk.file).unwrap(), b"new\n".strip_suffix(b"\n").unwrap());
        let broken = Environment::of([("EDITOR", "false")]);
        assert!(run_editor(&broken, &desk.file).is_err());
    }
}
