//! What a process gives up before it holds a secret.

use std::ffi::CStr;
use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Makes the process unreadable to its own user's other processes and forbids core dumps.
///
/// Must be the first statement of `main`: execve(2) undoes it. A process that is not dumpable
/// cannot be traced, and its `/proc/<pid>/mem` and the like are root's (prctl(2), ptrace(2)). The
/// limit alone is not enough, because a core handler behind a pipe ignores it (core(5)).
pub fn harden_process() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// Has the kernel kill this process when the thread that started it ends, however that comes.
/// Errors: it has ended already.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // It may have died before the line above.
    if nix::unistd::getppid().as_raw().cast_unsigned() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Names the process, which was started by a descriptor and would be called its number.
pub fn name_process(name: &CStr) -> io::Result<()> {
    Ok(prctl::set_name(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::probe::{Role, drop_privileges, role, run};
    use std::io::{Read, Write};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    /// The part of the child: as an ordinary user, hardened or not, waits until it is let go.
    fn wait_as_victim(hardened: bool) {
        drop_privileges();
        // Changing the uid has cleared the flag, which only execve would set again.
        prctl::set_dumpable(true).unwrap();
        if hardened {
            harden_process().unwrap();
        }
        std::io::stdout().write_all(b"\nready\n").unwrap();
        let _ = std::io::stdin().read(&mut [0]).unwrap();
    }

    /// Tells whether another process of the victim's user can read the victim's files in `/proc`.
    fn same_user_can_read(hardened: &'static str, file: &str) -> bool {
        let test =
            "system::harden::tests::the_same_user_cannot_read_the_memory_of_a_hardened_process";
        let mut victim = run(test, hardened);
        victim.wait_for_line("ready");
        let mut attacker = Command::new("head");
        attacker.env("LC_ALL", "C").args(["-c", "1", &format!("/proc/{}/{file}", victim.id())]);
        if nix::unistd::geteuid().is_root() {
            attacker.uid(65534).gid(65534);
        }
        let output = attacker.output().unwrap();
        // Address 0 of `mem` cannot be read in any case, so the refusal is told by its reason.
        !String::from_utf8_lossy(&output.stderr).contains("Permission denied")
    }

    #[test]
    fn the_same_user_cannot_read_the_memory_of_a_hardened_process() {
        match role() {
            Role::Child(part) => return wait_as_victim(part == "hardened"),
            Role::Test => {}
        }
        for file in ["environ", "maps", "mem"] {
            assert!(!same_user_can_read("hardened", file), "{file}");
        }
        // The control: without hardening the same attempt succeeds.
        assert!(same_user_can_read("open", "environ"));
    }

    #[test]
    fn an_abort_of_a_hardened_process_leaves_no_core() {
        match role() {
            Role::Child(part) => {
                let _ = setrlimit(Resource::RLIMIT_CORE, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
                if part == "hardened" {
                    harden_process().unwrap();
                    assert!(!prctl::get_dumpable().unwrap());
                }
                std::process::abort();
            }
            Role::Test => {}
        }
        let test = "system::harden::tests::an_abort_of_a_hardened_process_leaves_no_core";
        let place = tempfile::tempdir().unwrap();
        let status = run((test, place.path()), "hardened").finish();
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        assert!(!status.core_dumped());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
