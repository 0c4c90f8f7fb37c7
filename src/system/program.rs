//! Programs that are run with the rights of somebody, and with descriptors that they are told of.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid};

/// The rights of a user of this host.
#[derive(Clone, Debug)]
pub struct Rights {
    pub name: String,
    pub home: PathBuf,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Rights {
    /// Looks a user up by name. Errors: `NotFound`.
    pub fn of_user(name: &str) -> io::Result<Self> {
        let user = User::from_name(name)?.ok_or(io::ErrorKind::NotFound)?;
        Self::of(user)
    }

    /// Returns those of this process's user.
    pub fn own() -> io::Result<Self> {
        Self::of(User::from_uid(Uid::effective())?.ok_or(io::ErrorKind::NotFound)?)
    }

    fn of(user: User) -> io::Result<Self> {
        let name = CString::new(user.name.as_str()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(Self { name: user.name, home: user.dir, uid: user.uid, gid: user.gid, groups })
    }

    /// Makes a file theirs.
    pub fn own_file(&self, file: &impl AsFd) -> io::Result<()> {
        if self.uid == Uid::effective() {
            return Ok(());
        }
        fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Makes them the rights of this process, for good.
    pub fn assume(&self) -> io::Result<()> {
        if self.uid == Uid::effective() && !self.uid.is_root() {
            return Ok(());
        }
        setgroups(&self.groups)?;
        setgid(self.gid)?;
        Ok(setuid(self.uid)?)
    }
}

/// Has a command run with somebody's rights, keep the descriptors under the numbers that they have here,
/// and die with the thread that starts it.
pub fn confer(command: &mut Command, rights: Rights, descriptors: Vec<OwnedFd>) {
    let before_exec = move || {
        rights.assume()?;
        for descriptor in &descriptors {
            // SAFETY: the call takes integers only. The flag is this child's own.
            if unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // Last, for a change of the user clears it.
        Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
    };
    // SAFETY: between fork and exec the closure makes system calls alone, which are async-signal-safe:
    // lists of groups and descriptors were made before, nothing is allocated, and an error is a number.
    unsafe { command.pre_exec(before_exec) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{SecretBytes, readable_memory};

    #[test]
    fn a_program_has_the_descriptors_that_it_is_given_and_no_other() {
        let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
        let [given, kept] = [(); 2].map(|()| readable_memory(c"test", &value).unwrap());
        let mut command = Command::new("/bin/sh");
        let script =
            format!("cat <&{}; test ! -e /proc/self/fd/{}", given.as_raw_fd(), kept.as_raw_fd());
        command.args(["-c", &script]);
        confer(&mut command, Rights::own().unwrap(), vec![given]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"canary-7f3a");
    }

    #[test]
    fn a_program_has_the_rights_of_the_user_and_of_nobody_else() {
        if !Uid::effective().is_root() {
            return;
        }
        let mut command = Command::new("/usr/bin/id");
        confer(&mut command, Rights::of_user("daemon").unwrap(), Vec::new());
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said.trim(), "uid=1(daemon) gid=1(daemon) groups=1(daemon)");
        assert_eq!(Rights::of_user("no-such-user").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
