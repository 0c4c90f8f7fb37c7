//! What a server keeps of its power once it has what it needs: no capability, few files, few calls.
//!
//! Whoever breaks into the process that parses hostile bytes and holds the keys gets no program
//! started, no network, no other process looked into and no file opened but those of the store. Each
//! layer holds by itself: a kernel without Landlock still refuses the calls.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::privileges;

/// The files that are needed from now on. What is not there at the time is left out.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// Files and directories with all that is in them.
    pub read: Vec<PathBuf>,
    /// Directories in which files are also made, changed and removed.
    pub write: Vec<PathBuf>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Confined {
    /// Whether the kernel restricts files; it may be too old for it.
    pub files: bool,
}

impl Sandbox {
    /// Confines the calling thread and all that it starts, for good. Call it before there is a second
    /// thread: those that run already stay as they are.
    ///
    /// Afterwards a program cannot be started, and a call that is not on the list fails with EPERM.
    pub fn enter(&self) -> io::Result<Confined> {
        privileges::keep_none()?;
        let files = self.restrict_files().map_err(io::Error::other)?;
        restrict_calls().map_err(io::Error::other)?;
        Ok(Confined { files })
    }

    fn restrict_files(&self) -> Result<bool, landlock::RulesetError> {
        // What newer kernels restrict beyond this is not asked for, what older ones cannot is left out.
        let abi = ABI::V5;
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            // No address is allowed below.
            .handle_access(AccessNet::from_all(abi))?
            .create()?;
        let ruleset = allow(ruleset, &self.read, AccessFs::from_read(abi))?;
        let not_executed = AccessFs::from_all(abi) & !AccessFs::Execute;
        let ruleset = allow(ruleset, &self.write, not_executed)?;
        Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
    }
}

fn allow(
    mut ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    for path in paths {
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V5) };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(ruleset)
}

/// Installs the list of system calls that may be made.
fn restrict_calls() -> seccompiler::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let allowed: BpfProgram =
        SeccompFilter::new(allowed()?, refused, SeccompAction::Allow, arch)?.try_into()?;
    // clone3(2) has its flags in memory, where a filter cannot look. Told that there is no such call,
    // the C library makes its threads by clone(2). It goes first: the list lets no filter be added.
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3: BpfProgram =
        SeccompFilter::new(no_clone3, SeccompAction::Allow, absent, arch)?.try_into()?;
    apply_filter(&no_clone3)?;
    apply_filter(&allowed)
}

/// Calls that the server makes, and those that the C library may make for it.
#[rustfmt::skip]
const CALLS: &[i64] = &[
    // Files that are open, or may be opened.
    libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fallocate,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fcntl,
    libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync,
    libc::SYS_ftruncate, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_ioctl, libc::SYS_linkat,
    libc::SYS_lseek, libc::SYS_mkdirat, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_pread64,
    libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2,
    libc::SYS_read, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_renameat, libc::SYS_renameat2,
    libc::SYS_statfs, libc::SYS_statx, libc::SYS_sync_file_range, libc::SYS_umask, libc::SYS_unlinkat,
    libc::SYS_write, libc::SYS_writev,
    // Memory; what is executable is restricted below.
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_memfd_create, libc::SYS_memfd_secret, libc::SYS_mlock,
    libc::SYS_mlock2, libc::SYS_mremap, libc::SYS_msync, libc::SYS_munlock, libc::SYS_munmap,
    // Threads, time, signals.
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_clone3,
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_getpid, libc::SYS_getppid,
    libc::SYS_getrandom, libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_nanosleep,
    libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_rt_sigtimedwait, libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield, libc::SYS_set_robust_list, libc::SYS_sigaltstack, libc::SYS_tgkill,
    libc::SYS_membarrier, libc::SYS_get_robust_list,
    // Processes that are looked at, and our own children, which can be ended.
    libc::SYS_capget, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getresgid,
    libc::SYS_getresuid, libc::SYS_getuid, libc::SYS_kill, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_prctl, libc::SYS_prlimit64, libc::SYS_sysinfo,
    libc::SYS_uname, libc::SYS_wait4, libc::SYS_waitid,
    // Messages; which sockets can be made is restricted below.
    libc::SYS_accept4, libc::SYS_bind, libc::SYS_connect, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_eventfd2, libc::SYS_getpeername,
    libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_listen, libc::SYS_pipe2, libc::SYS_ppoll,
    libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The older forms that x86-64 has beside them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER_CALLS: &[i64] = &[
    libc::SYS_access, libc::SYS_chmod, libc::SYS_dup2, libc::SYS_epoll_wait, libc::SYS_mkdir,
    libc::SYS_open, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir,
    libc::SYS_stat, libc::SYS_lstat, libc::SYS_unlink, libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[i64] = &[];

fn allowed() -> seccompiler::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let only = |argument, operator, value| -> seccompiler::Result<Vec<SeccompRule>> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    let bits = |bits: i32| u64::from(bits.cast_unsigned());
    let mut calls: BTreeMap<_, _> =
        CALLS.iter().chain(OLDER_CALLS).map(|&call| (call, Vec::new())).collect();
    // New code could come from nowhere else than memory that is executable.
    let not_executable = SeccompCmpOp::MaskedEq(bits(libc::PROT_EXEC));
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.insert(call, only(2, not_executable.clone(), 0)?);
    }
    // Threads and no processes.
    let thread = bits(libc::CLONE_THREAD);
    calls.insert(libc::SYS_clone, only(0, SeccompCmpOp::MaskedEq(thread), thread)?);
    let local = bits(libc::AF_UNIX);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        calls.insert(call, only(0, SeccompCmpOp::Eq, local)?);
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use super::*;
    use crate::system::probe::{Role, role, run, setting};

    const TEST: &str = "system::sandbox::tests::whoever_is_in_it_gets_nothing_else";

    fn refused<T>(what: io::Result<T>) -> bool {
        matches!(
            what.map_err(|error| error.raw_os_error()),
            Err(Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
        )
    }

    /// The child's part: what an attacker with our rights would try, and what the server does.
    fn try_everything(place: &Path) {
        let kept = File::open(place.join("kept")).unwrap();
        let sandbox = Sandbox {
            read: vec![place.join("config"), "/proc".into()],
            write: vec![place.join("state")],
        };
        let confined = sandbox.enter().unwrap();

        assert!(refused(Command::new("/bin/true").status()), "a program was started");
        assert!(refused(TcpListener::bind("127.0.0.1:0")), "a TCP socket was made");
        assert!(refused(UdpSocket::bind("127.0.0.1:0")), "a UDP socket was made");
        assert!(refused(nix::mount::umount("/proc").map_err(io::Error::from)));
        // SAFETY: the arguments are integers; if it succeeded, the child would be this test once more.
        assert!(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } < 0);
        // SAFETY: asks for memory of its own.
        let code = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_eq!(code, libc::MAP_FAILED, "memory was made executable");
        if confined.files {
            assert!(refused(File::open("/etc/shadow")) && refused(File::open(place.join("kept"))));
            assert!(refused(File::create(place.join("config/made"))), "what is read was written");
        }
        assert_eq!(fs::read(place.join("config/file")).unwrap(), b"read");
        fs::rename(place.join("state/file"), place.join("state/other")).unwrap();
        File::create(place.join("state/made")).unwrap().sync_data().unwrap();
        assert_eq!(kept.metadata().unwrap().len(), 4, "what was open stays open");
        assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
        assert!(UnixStream::pair().is_ok());
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("CapEff:\t0000000000000000\n") && status.contains("Seccomp:\t2\n"));
    }

    #[test]
    fn whoever_is_in_it_gets_nothing_else() {
        if let Role::Child(place) = role() {
            return try_everything(Path::new(&place));
        }
        let place = tempfile::tempdir().unwrap();
        for made in ["config", "state"] {
            fs::create_dir(place.path().join(made)).unwrap();
        }
        for (file, bytes) in [("kept", "kept"), ("config/file", "read"), ("state/file", "state")] {
            io::Write::write_all(
                &mut File::create(place.path().join(file)).unwrap(),
                bytes.as_bytes(),
            )
            .unwrap();
        }
        assert!(setting("SECRETFS_TEST_PART").is_none());
        assert!(run(TEST, place.path().to_str().unwrap()).finish().success());
    }
}
