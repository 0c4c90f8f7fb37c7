//! The way to a running daemon: its mount, found and checked, its tree and its control files.
//!
//! A mount is believed only if the kernel says that it is one: the filesystem's magic number, the
//! subtype in the mount table and the device must agree (THREATS A7). Everything then goes through a
//! descriptor of its root, so that a mount put over it meanwhile is not talked to.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap_complete::engine::CompletionCandidate;
use nix::errno::Errno;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::{Failure, Kind};
use super::plaintext;
use crate::daemon::DaemonError;
use crate::daemon::config::{Environment, Layer, Sources};
use crate::daemon::paths::Mode;
use crate::daemon::run::FS_TYPE;
use crate::model::SecretName;
use crate::system::{FUSE_MAGIC, Mount, SecretBytes, filesystem_magic_of, mounts, topmost};

/// A mounted tree.
#[derive(Debug)]
pub(crate) struct Client {
    root: OwnedFd,
    pub mount: Mount,
}

/// How a version is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writing {
    /// The version that must be current.
    pub expect: Option<u64>,
    /// Fails if the secret exists.
    pub create: bool,
}

impl Client {
    /// Finds the mount: the one named, the one that is configured, or the only one there is.
    pub(crate) fn find(named: Option<&Path>, configured: Option<&Path>) -> Result<Self, Failure> {
        let table = mounts().map_err(|err| no_mount(err.to_string()))?;
        let path = match named {
            // As the table has it: absolute and without links.
            Some(path) => fs::canonicalize(path).map_err(|err| unreachable_mount(path, &err))?,
            None => choose(&table, configured)?,
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let root = opened.map_err(|err| unreachable_mount(&path, &err))?;
        let found = root.metadata().map_err(|err| unreachable_mount(&path, &err))?;
        let magic = filesystem_magic_of(root.as_fd());
        let magic = magic.map_err(|err| unreachable_mount(&path, &err))?;
        let mount = check(&table, &path, magic, found.dev())?.clone();
        Ok(Self { root: root.into(), mount })
    }

    /// Returns a path that leads into this mount and no other, whatever happens to the mountpoint.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{relative}", self.root.as_raw_fd()))
    }

    /// Reads a small file that holds no value, such as a control file or a view.
    pub(crate) fn read_text(&self, relative: &str) -> Result<String, Failure> {
        let read = fs::read(self.path(relative)).map_err(|err| Failure::from_errno(relative, &err));
        Ok(String::from_utf8_lossy(&read?).into_owned())
    }

    /// Reads a view that is JSON.
    pub(crate) fn read_json(&self, relative: &str) -> Result<Value, Failure> {
        parse(relative, &self.read_text(relative)?)
    }

    /// Returns everything but the value.
    pub(crate) fn meta(&self, name: &SecretName) -> Result<Value, Failure> {
        let text = fs::read(self.path(&format!("{name}@meta")))
            .map_err(|err| Failure::from_errno(name.as_str(), &err))?;
        parse(name.as_str(), &String::from_utf8_lossy(&text))
    }

    /// Reads a value; `view` is empty or such as `@7`.
    pub(crate) fn read_value(&self, name: &SecretName, view: &str) -> Result<SecretBytes, Failure> {
        File::open(self.path(&format!("{name}{view}")))
            .and_then(plaintext::read_all)
            .map_err(|err| Failure::from_errno(format!("{name}{view}"), &err))
    }

    /// Makes a new version; its directory too, where that is missing.
    pub(crate) fn write_value(
        &self,
        name: &SecretName,
        value: &SecretBytes,
        how: Writing,
    ) -> Result<(), Failure> {
        let fail = |err: io::Error| Failure::from_errno(name.as_str(), &err);
        let file = match self.open_for_writing(name, how) {
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) && how.expect.is_none() => {
                if let Some(parent) = name.parent() {
                    fs::create_dir_all(self.path(parent.as_str())).map_err(fail)?;
                }
                self.open_for_writing(name, how)
            }
            opened => opened,
        };
        let mut file = file.map_err(fail)?;
        file.write_all(value.expose()).map_err(fail)?;
        close(file).map_err(fail)
    }

    /// Writes a value to a view of a secret that takes one, such as `@pending`.
    pub(crate) fn write_view(
        &self,
        name: &SecretName,
        view: &str,
        value: &SecretBytes,
    ) -> Result<(), Failure> {
        let shown = format!("{name}{view}");
        let fail = |err: io::Error| Failure::from_errno(&*shown, &err);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = options.open(self.path(&shown)).map_err(fail)?;
        file.write_all(value.expose()).map_err(fail)?;
        close(file).map_err(fail)
    }

    fn open_for_writing(&self, name: &SecretName, how: Writing) -> io::Result<File> {
        let expect = how.expect.map(|version| format!("@expect={version}")).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.write(true);
        if how.create {
            options.create_new(true);
        } else {
            // A view cannot be created, and with `expect` the secret must be there.
            options.truncate(true).create(how.expect.is_none());
        }
        options.mode(0o600).open(self.path(&format!("{name}{expect}")))
    }

    /// Runs one command of a control file and returns its reply.
    pub(crate) fn control(&self, file: &str, command: &[u8]) -> Result<Value, Failure> {
        let lost = || Failure::from_errno(file, &io::Error::from_raw_os_error(libc::ESTALE));
        self.begin(file, command)?.ok_or_else(lost)
    }

    /// Runs one command of a control file. Returns its reply; `None` if it was taken and the server
    /// has gone before its reply was read.
    pub(crate) fn begin(&self, file: &str, command: &[u8]) -> Result<Option<Value>, Failure> {
        let relative = format!(".control/{file}");
        let fail = |err: io::Error| Failure::from_errno(file, &err);
        let mut opened =
            OpenOptions::new().read(true).write(true).open(self.path(&relative)).map_err(fail)?;
        // One write is one command, so it must not be split.
        let verdict = match opened.write(command) {
            Ok(written) if written == command.len() => Ok(()),
            Ok(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Err(err) => Err(err),
        };
        let mut reply = String::new();
        let read = opened.read_to_string(&mut reply);
        match verdict {
            Ok(()) => match read {
                Ok(_) => parse(file, &reply).map(Some),
                Err(err) if err.raw_os_error() == Some(libc::ESTALE) => Ok(None),
                Err(err) => Err(fail(err)),
            },
            Err(err) => {
                // The errno is the verdict; the reply, where there is one, has the reason.
                let reason = serde_json::from_str::<Value>(&reply).ok();
                let reason = reason.as_ref().and_then(|reply| reply.get("error")?.as_str());
                let failure = fail(err);
                Err(match reason {
                    // It says itself what is missing.
                    Some(reason) if reason.starts_with("access denied: ") => {
                        Failure { why: reason.to_owned(), hint: String::new(), ..failure }
                    }
                    Some(reason) => Failure { why: reason.to_owned(), ..failure },
                    None => failure,
                })
            }
        }
    }

    /// Runs an admin command.
    pub(crate) fn admin(&self, command: &Value) -> Result<Value, Failure> {
        let text = Zeroizing::new(command.to_string());
        self.control("admin", text.as_bytes()).map_err(|failure| {
            // Where it is not said what is missing: no rule for a name would help.
            if failure.kind == Kind::Authorization && !failure.hint.is_empty() {
                failure.hint("it is for admins of the store")
            } else {
                failure
            }
        })
    }

    /// Sets an attribute of a secret.
    pub(crate) fn set_attribute(
        &self,
        name: &SecretName,
        attribute: &str,
        value: &str,
    ) -> Result<(), Failure> {
        xattr::set(self.path(name.as_str()), attribute_name(attribute), value.as_bytes())
            .map_err(|err| Failure::from_errno(format!("{attribute} of {name}"), &err))
    }

    /// Returns an attribute of a secret, if it has it and we may see it.
    pub(crate) fn attribute(&self, name: &SecretName, attribute: &str) -> Option<String> {
        let value = xattr::get(self.path(name.as_str()), attribute_name(attribute)).ok()??;
        String::from_utf8(value).ok()
    }

    /// Returns the names in a directory, sorted, each with whether it is a directory.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<(String, bool)>, Failure> {
        let shown = if directory.is_empty() { "/" } else { directory };
        let fail = |err: io::Error| Failure::from_errno(shown, &err);
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(directory)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let is_directory = entry.file_type().map_err(fail)?.is_dir();
            found.push((entry.file_name().to_string_lossy().into_owned(), is_directory));
        }
        found.sort();
        Ok(found)
    }
}

/// Closes a file and returns what close(2) says: that is where a version is published.
pub(crate) fn close(file: File) -> io::Result<()> {
    match nix::unistd::close(OwnedFd::from(file)) {
        // Linux has closed the descriptor in any case.
        Ok(()) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Completes the name of a secret out of the live mount; silent where there is none.
pub(crate) fn complete_name(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else { return Vec::new() };
    let environment = Environment::of_process();
    let named = environment.value("SECRETFS_MOUNT").map(PathBuf::from);
    let configured = configured(&environment, None).ok();
    let Ok(client) = Client::find(named.as_deref(), configured.as_deref()) else {
        return Vec::new();
    };
    let (directory, start) = typed.rsplit_once('/').unwrap_or(("", typed));
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let entries = client.list(directory).unwrap_or_default();
    let fitting = entries.into_iter().filter(|(name, _)| {
        // What is not a name is the filesystem's own, and nothing that a shell should insert.
        name.starts_with(start) && name.parse::<SecretName>().is_ok()
    });
    fitting
        .map(|(name, is_directory)| {
            let slash = if is_directory { "/" } else { "" };
            CompletionCandidate::new(format!("{prefix}{name}{slash}"))
        })
        .collect()
}

fn attribute_name(attribute: &str) -> String {
    format!("user.secretfs.{attribute}")
}

fn parse(what: &str, text: &str) -> Result<Value, Failure> {
    let text = if text.trim().is_empty() { "null" } else { text };
    serde_json::from_str(text)
        .map_err(|_| Failure::new(Kind::BackendConnection, what, "the daemon's answer is no JSON"))
}

/// Returns where the caller's configuration mounts.
pub(crate) fn configured(
    environment: &Environment,
    file: Option<PathBuf>,
) -> Result<PathBuf, Failure> {
    let mode = Mode::choose(false, nix::unistd::geteuid().is_root());
    let sources = Sources { mode, file, environment: environment.clone(), flags: Layer::default() };
    let mountpoint = sources.load().map_err(DaemonError::from)?.mountpoint;
    // Its own last part is a mount that may not answer; the way to it is not.
    let way = mountpoint.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let found = way.and_then(|way| Some(way.join(mountpoint.file_name()?)));
    Ok(found.unwrap_or(mountpoint))
}

/// Decides which mount is meant where none is named.
pub(crate) fn choose(table: &[Mount], configured: Option<&Path>) -> Result<PathBuf, Failure> {
    let mut paths: Vec<&PathBuf> = table
        .iter()
        .filter(|mount| mount.fs_type == FS_TYPE)
        .map(|mount| &mount.mountpoint)
        .collect();
    paths.sort();
    paths.dedup();
    match paths.as_slice() {
        [] => Err(no_mount("no secretfs is mounted".into())),
        [only] => Ok((*only).clone()),
        several => {
            if let Some(ours) = configured.filter(|ours| several.iter().any(|path| path == ours)) {
                return Ok(ours.to_path_buf());
            }
            let list: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(no_mount(format!("several are mounted: {}", list.join(", ")))
                .hint("choose one with --mount or SECRETFS_MOUNT"))
        }
    }
}

/// Compares what the kernel says of the opened root with its mount table.
fn check<'a>(table: &'a [Mount], path: &Path, magic: i64, dev: u64) -> Result<&'a Mount, Failure> {
    let refused = |why: &str| {
        Failure::new(Kind::BackendConnection, path.display().to_string(), why)
            .hint("`secretfs doctor` looks into it")
    };
    let mount = topmost(table, path).ok_or_else(|| refused("nothing is mounted there"))?;
    if mount.fs_type != FS_TYPE || magic != FUSE_MAGIC {
        return Err(refused("what is mounted there is no secretfs"));
    }
    if !mount.is_device(dev) {
        return Err(refused("something was mounted over it meanwhile"));
    }
    Ok(mount)
}

fn no_mount(why: String) -> Failure {
    Failure::new(Kind::BackendConnection, "no mount", why).hint("mount one with `secretfs up`")
}

fn unreachable_mount(path: &Path, err: &io::Error) -> Failure {
    let shown = path.display().to_string();
    let failure = Failure::from_errno(shown.clone(), err);
    match err.raw_os_error() {
        // The kernel's answer to whom the mount was not made for, before any policy.
        Some(libc::EACCES) => Failure {
            why: "this mount is another user's, or its directory is closed".into(),
            hint: "mount your own with `secretfs up`, or see `allow_other` in the manual".into(),
            ..failure
        },
        Some(libc::ENOENT) => {
            Failure::new(Kind::BackendConnection, shown, "there is no such directory")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::parse_mountinfo;

    const OURS: &str = "90 22 0:51 / /secrets rw - fuse.secretfs secretfs rw";
    const OTHER: &str = "91 22 0:52 / /home/a/secrets rw - fuse.secretfs secretfs rw";
    const DEV: u64 = 51;

    #[test]
    fn the_only_mount_is_taken_and_of_several_the_configured_one_or_one_that_is_named() {
        let (mine, elsewhere) = (Path::new("/home/a/secrets"), Path::new("/elsewhere"));
        let one = parse_mountinfo(OURS.as_bytes());
        for configured in [None, Some(mine)] {
            assert_eq!(choose(&one, configured).unwrap(), Path::new("/secrets"));
        }
        let two = parse_mountinfo(format!("{OURS}\n{OTHER}").as_bytes());
        assert_eq!(choose(&two, Some(mine)).unwrap(), mine);
        for configured in [None, Some(elsewhere)] {
            let failure = choose(&two, configured).unwrap_err();
            assert!(failure.why.contains("/home/a/secrets") && failure.hint.contains("--mount"));
        }
        assert!(choose(&[], None).unwrap_err().hint.contains("secretfs up"));
    }

    #[test]
    fn a_mount_is_believed_only_if_magic_subtype_and_device_agree() {
        let path = Path::new("/secrets");
        let table = parse_mountinfo(OURS.as_bytes());
        assert!(check(&table, path, FUSE_MAGIC, DEV).is_ok());
        assert!(check(&table, path, 0xef53, DEV).is_err());
        assert!(check(&table, path, FUSE_MAGIC, DEV + 1).is_err());
        assert!(check(&table, Path::new("/else"), FUSE_MAGIC, DEV).is_err());
        let sshfs = parse_mountinfo(b"90 22 0:51 / /secrets rw - fuse.sshfs x rw");
        assert!(check(&sshfs, path, FUSE_MAGIC, DEV).is_err());
    }

    #[test]
    fn a_mount_put_over_ours_is_not_talked_to() {
        let over = format!("{OURS}\n92 90 0:60 / /secrets rw - tmpfs tmpfs rw");
        let table = parse_mountinfo(over.as_bytes());
        assert!(check(&table, Path::new("/secrets"), FUSE_MAGIC, DEV).is_err());
        assert!(check(&table, Path::new("/secrets"), 0x0102_1994, 60).is_err());
    }
}
