//! What a process gives up before it does its one task.

use std::io;

use nix::sys::prctl;

/// `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability of the calling thread but CAP_SYS_PTRACE, for good, and makes the
/// process unreadable to others of its uid. Returns whether it has CAP_SYS_PTRACE. Call it before
/// there is a second thread.
pub fn keep_only_ptrace() -> io::Result<bool> {
    prctl::set_dumpable(false)?;
    keep_capabilities(1 << CAP_SYS_PTRACE).map(|kept| kept != 0)
}

/// Gives up every capability of the calling thread, for good, and whatever a program that it starts
/// could have more (`no_new_privs`). Call it before there is a second thread.
pub(super) fn keep_none() -> io::Result<()> {
    keep_capabilities(0).map(drop)
}

/// Keeps those of the lower 32 capabilities that are in `wanted` and that there are; returns them.
fn keep_capabilities(wanted: u32) -> io::Result<u32> {
    prctl::set_no_new_privs()?;
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [Set::default(); 2];
    // SAFETY: version 3 has the kernel write two sets, which is what `sets` has room for.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = &mut sets;
    let kept = low.permitted & wanted;
    *low = Set { effective: kept, permitted: kept, inheritable: 0 };
    *high = Set::default();
    // SAFETY: version 3 has the kernel read two sets, which is what `sets` holds.
    let written = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if written != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(kept)
}
