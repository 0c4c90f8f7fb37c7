//! What this daemon needs to go on, so that the sandbox takes away the rest.

use std::io;
use std::path::{Path, PathBuf};

use super::config::{Config, KeyConfig, SandboxMode};
use crate::system::{Confined, Sandbox};

/// How a server is confined, as `status` shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Confinement {
    /// The configuration wants none.
    Off,
    On(Confined),
    /// This process has to mount and unmount by itself.
    Mounter,
}

impl Confinement {
    /// Enters the sandbox for good, while there is one thread: those that run already stay out of it.
    /// A process that has to mount and unmount by itself cannot.
    pub(super) fn enter(config: &Config, mounted_by_others: bool) -> io::Result<Self> {
        if config.sandbox == SandboxMode::Off {
            return Ok(Self::Off);
        }
        if !mounted_by_others {
            return Ok(Self::Mounter);
        }
        sandbox(config, nix::unistd::geteuid().is_root()).enter().map(Self::On)
    }

    /// Returns the words for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On(Confined { files: true }) => "capabilities, files, calls",
            Self::On(Confined { files: false }) => "capabilities, calls",
            Self::Mounter => "none: no keeper",
        }
    }
}

fn sandbox(config: &Config, is_root: bool) -> Sandbox {
    let beside = |path: &Path| path.parent().unwrap_or(path).to_path_buf();
    let mut read: Vec<PathBuf> = vec![
        beside(&config.file),
        beside(&config.policy),
        beside(&config.rotation),
        beside(&config.anomalies),
        beside(&config.injections),
    ];
    // Those that a reload adds beside these are read too.
    read.extend(config.templates.iter().map(|template| beside(&template.file.0)));
    match &config.key {
        KeyConfig::Credential { directory, .. } => read.extend(directory.clone()),
        KeyConfig::File(path) => read.push(beside(path)),
        // What it needs is asked for by the effector.
        KeyConfig::Backend(_) | KeyConfig::Passphrase => {}
    }
    let system = ["/proc", "/sys/fs/cgroup", "/usr", "/var/lib/sss", "/dev/null"];
    read.extend(system.map(PathBuf::from));
    if is_root {
        // Not all of /etc: it has the hashes of passwords, which root may read without any capability.
        let files = ["group", "hosts", "ld.so.cache", "localtime", "nsswitch.conf", "passwd"];
        read.extend(files.map(|file| Path::new("/etc").join(file)));
    } else {
        read.push("/etc".into());
    }
    let mut write = vec![config.state_dir.clone()];
    write.extend(config.credentials.as_ref().map(|credentials| beside(&credentials.socket)));
    Sandbox { read, write }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Environment, Layer, Sources};
    use crate::daemon::paths::Mode;

    #[test]
    fn roots_server_may_read_the_names_of_users_and_not_their_passwords() {
        let environment = Environment::of([("HOME", "/root")]);
        let sources =
            Sources { mode: Mode::User, file: None, environment, flags: Layer::default() };
        let config = sources.load().unwrap();
        for (is_root, all) in [(true, false), (false, true)] {
            let read = sandbox(&config, is_root).read;
            assert_eq!(read.contains(&PathBuf::from("/etc")), all);
            assert_eq!(read.contains(&PathBuf::from("/etc/passwd")), !all);
            assert!(!read.iter().any(|path| path.ends_with("shadow")));
            assert!(!read.contains(&config.state_dir) && !read.contains(&PathBuf::from("/")));
        }
    }
}
