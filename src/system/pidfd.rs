//! File descriptors that stand for one thread, so that a reused number is not taken for it.
//!
//! A pidfd does not keep the number from being used again; it tells that the thread is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::signal::Signal;

use crate::model::Uid;

/// A thread, as `pidfd_open(2)` with `PIDFD_THREAD` gives it (Linux 6.9).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// What the kernel says of a thread that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PidInfo {
    /// The thread's own id.
    pub tid: u32,
    /// Its thread group: what `ps` calls the pid.
    pub pid: u32,
    /// The filesystem uid in our user namespace, as the thread has it itself.
    pub fsuid: Uid,
    /// The id of its cgroup (v2); changes when it is moved.
    pub cgroup: u64,
}

impl PidFd {
    /// Opens a thread. Errors: `ESRCH` if there is none, `EINVAL` on older kernels.
    pub fn of_thread(tid: u32) -> io::Result<Self> {
        Self::open(tid, libc::PIDFD_THREAD)
    }

    /// Opens a process. Errors: `ESRCH` if there is none.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(pid, 0)
    }

    fn open(number: u32, flags: libc::c_uint) -> io::Result<Self> {
        let number = libc::pid_t::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the call takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, flags) };
        let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes one that has come as a descriptor; whether it is a pidfd, its [`number`](Self::number) tells.
    pub fn of_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Returns the number that it stands for, which is nobody else's as long as this call succeeds. Errors: `ESRCH`
    /// once it is gone, `InvalidData` for what is no pidfd.
    pub fn number(&self) -> io::Result<u32> {
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let number = about.lines().find_map(|line| line.strip_prefix("Pid:"));
        let number: i64 = number
            .and_then(|number| number.trim().parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        // The kernel says -1 of one that is gone, and 0 of one outside of the namespace.
        match u32::try_from(number) {
            Ok(number) if number > 0 => Ok(number),
            Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Sends a signal to it, and to nobody else that has its number since. Errors: `ESRCH` once it is gone.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        let (fd, no_info) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: without a structure the kernel fills in what kill(2) would; the rest are integers.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, no_info, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns what the thread is now. Errors: `ESRCH` once it is gone, `ENOTTY` before Linux 6.13.
    pub fn info(&self) -> io::Result<PidInfo> {
        let wanted = libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS | libc::PIDFD_INFO_CGROUPID;
        // SAFETY: the structure holds integers only, for which all zeroes is a value.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(wanted);
        // SAFETY: the request's number holds the size of the structure, so the kernel writes no
        // more than that into `info`, which lives until the call returns.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let given = libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS;
        if info.mask & u64::from(given) != u64::from(given) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(PidInfo { tid: info.pid, pid: info.tgid, fsuid: Uid(info.fsuid), cgroup: info.cgroupid })
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
