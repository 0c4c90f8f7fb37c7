//! Memory behind a descriptor: it outlives the process that filled it as long as somebody holds the
//! descriptor.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// How memory for a key is kept from others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyMemory {
    /// An ordinary memfd: root can read it, and it may be swapped.
    Memfd,
    /// memfd_secret(2): in no other process's reach, root's included, and never swapped.
    Secret,
}

impl KeyMemory {
    /// Returns the word for it in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Secret => "memfd_secret",
        }
    }
}

/// Returns `bytes` bytes of zeros that are allocated as they are written and can neither shrink nor
/// grow: whoever maps them need not fear SIGBUS.
pub fn shared_memory(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    resize(&memory, bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

/// Returns memory for a key, as well kept as this kernel can.
pub(super) fn key_memory(bytes: u64) -> io::Result<OwnedFd> {
    // SAFETY: the call takes one integer. `FD_CLOEXEC` is the flag it knows for close-on-exec.
    let number = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let Ok(number) = i32::try_from(number) else { return Err(io::ErrorKind::Other.into()) };
    if number < 0 {
        // Not compiled in, switched off, or filtered.
        return shared_memory(c"secretfs-key", bytes);
    }
    // SAFETY: the kernel has just made the descriptor, and nobody else knows its number.
    let memory = unsafe { OwnedFd::from_raw_fd(number) };
    resize(&memory, bytes)?;
    Ok(memory)
}

/// Tells how well memory made by [`key_memory`] is kept.
pub(super) fn key_memory_kind(memory: &impl AsFd) -> KeyMemory {
    // Only an ordinary memfd has seals.
    match fcntl(memory, FcntlArg::F_GET_SEALS) {
        Ok(_) => KeyMemory::Memfd,
        Err(_) => KeyMemory::Secret,
    }
}

fn resize(memory: &OwnedFd, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(ftruncate(memory, bytes)?)
}

/// Puts a duplicate of `source` in the place of `target`: whoever uses `target` uses the other file
/// from now on.
pub fn replace_descriptor(target: &impl AsFd, source: &impl AsFd) -> io::Result<()> {
    let (target, source) = (target.as_fd().as_raw_fd(), source.as_fd().as_raw_fd());
    // SAFETY: both are open descriptors, borrowed for the call. `target` stays open and owned as it
    // was: only the file behind it is another one.
    if unsafe { libc::dup3(source, target, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SharedMap;
    use std::io::Read;

    #[test]
    fn memory_keeps_its_size_and_what_was_stored_in_it_when_its_mapping_is_gone() {
        for memory in [shared_memory(c"test", 4096).unwrap(), key_memory(4096).unwrap()] {
            SharedMap::of(&memory, 4096).unwrap().store(8, 7);
            assert_eq!(SharedMap::of(&memory, 4096).unwrap().load(8), 7);
            assert!(SharedMap::of(&memory, 8192).is_err(), "mapped beyond its end");
        }
        let memory = shared_memory(c"test", 4096).unwrap();
        assert!(resize(&memory, 0).is_err());
    }

    #[test]
    fn a_replaced_descriptor_reads_from_the_other_file() {
        let (mut first, _writer) = io::pipe().unwrap();
        let (second, mut writer) = io::pipe().unwrap();
        replace_descriptor(&first, &second).unwrap();
        io::Write::write_all(&mut writer, b"x").unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
