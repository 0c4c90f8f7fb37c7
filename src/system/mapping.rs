//! The beginning of a file as memory that is shared with the kernel: what is written to it is in the page
//! cache at once, as by pwrite(2), for the price of a copy.
//!
//! The kernel's answer to an access behind the file's end, or where the disk is full, is SIGBUS. A handler
//! turns that into an error of the call that met it: it puts private memory under the rest of the copy and
//! says so. A SIGBUS from anywhere else ends the process as it always did.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering, compiler_fence};

use nix::unistd::{SysconfVar, sysconf};

/// So many bytes are compared at a time.
const BLOCK_BYTES: usize = 64;

/// The size of a page in bytes, for the handler.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// A shared mapping of a file, from its first byte.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of a file, of which there may be fewer as yet.
    pub fn shared(file: &File, len: usize) -> io::Result<Self> {
        catch_bus_errors()?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Tells whether `len` bytes at `offset` are all zero. Errors: they are not all there.
    pub fn is_zero(&mut self, offset: usize, len: usize) -> io::Result<bool> {
        let place = self.place(offset, len)?;
        let mut block = [0; BLOCK_BYTES];
        self.guarded(|| {
            (0..len).step_by(BLOCK_BYTES).all(|at| {
                let bytes = BLOCK_BYTES.min(len - at);
                // SAFETY: `place` lies in the mapping for `len` bytes, which others may change at any time:
                // so they are copied, and no reference is made to them.
                unsafe {
                    ptr::copy_nonoverlapping(place.add(at).as_ptr(), block.as_mut_ptr(), bytes)
                };
                block == [0; BLOCK_BYTES]
            })
        })
    }

    /// Writes at `offset`; the first byte last, so that a reader who sees it sees all. Errors: the file ends
    /// before, or the disk is full; a part may have been written, and the mapping is of no more use.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
        self.guarded(|| {
            // SAFETY: `place` lies in the mapping for as many bytes as there are, which belong to no Rust
            // object, and `bytes` is none of them. A byte has the alignment of an `AtomicU8`.
            unsafe {
                ptr::copy_nonoverlapping(rest.as_ptr(), place.add(1).as_ptr(), rest.len());
                AtomicU8::from_ptr(place.as_ptr()).store(*first, Ordering::Release);
            }
        })
    }

    fn place(&self, offset: usize, len: usize) -> io::Result<NonNull<u8>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the offset lies within the mapping.
        Ok(unsafe { self.start.add(offset) })
    }

    /// Makes accesses to the mapping; fails if the kernel could not serve one.
    fn guarded<T>(&self, access: impl FnOnce() -> T) -> io::Result<T> {
        let start = self.start.addr().get();
        ACCESS.set(Access { start, end: start + self.len, failed: false });
        compiler_fence(Ordering::SeqCst);
        let result = access();
        compiler_fence(Ordering::SeqCst);
        if ACCESS.replace(Access::NONE).failed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(result)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no pointer into it outlives a call. Pages that the handler put
        // there are part of the range.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: a mapping is plain memory; nothing ties it to a thread.
unsafe impl Send for Mapping {}

/// The addresses that this thread is accessing, and whether the handler had to step in.
#[derive(Clone, Copy)]
struct Access {
    start: usize,
    end: usize,
    failed: bool,
}

impl Access {
    const NONE: Self = Self { start: 0, end: 0, failed: false };
}

thread_local! {
    // Without a destructor and initialised when compiled: a signal handler may touch it.
    static ACCESS: Cell<Access> = const { Cell::new(Access::NONE) };
}

/// Installs the handler, once.
fn catch_bus_errors() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|bytes| usize::try_from(bytes).ok()).ok_or(libc::EINVAL)?;
        PAGE_BYTES.store(page, Ordering::SeqCst);
        // SAFETY: all zeros is a value of this structure of integers; the handler has the signature that
        // SA_SIGINFO asks for and makes calls that are safe in a signal handler alone.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
        }
    };
    INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let mut access = ACCESS.get();
    // SAFETY: the kernel gives a valid structure, and with SIGBUS an address in it.
    let address = unsafe { (*info).si_addr() }.addr();
    if (access.start..access.end).contains(&address) {
        let page = (address & !(page_bytes - 1)) as *mut libc::c_void;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page is one of the mapping that this thread is accessing, which has no other user.
        let mapped = unsafe { libc::mmap(page, page_bytes, protection, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            access.failed = true;
            ACCESS.set(access);
            return;
        }
    }
    // Back in the instruction that failed, the signal comes again and ends the process.
    // SAFETY: the call takes integers.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_from_the_file_at_once() {
        let mut file = file(10_000);
        let mut mapping = Mapping::shared(&file, 1 << 20).unwrap();
        mapping.write(4090, b"example-value").unwrap();
        let mut found = vec![0; 4096 + 7];
        file.read_exact(&mut found).unwrap();
        assert_eq!(&found[4090..], b"example-value");
        assert!(mapping.is_zero(0, 4090).unwrap() && !mapping.is_zero(0, 4091).unwrap());
    }

    #[test]
    fn a_file_that_is_cut_under_the_mapping_is_an_error_and_no_signal() {
        let file = file(3 * 4096);
        let mut mapping = Mapping::shared(&file, 1 << 20).unwrap();
        mapping.write(4096, b"example-value").unwrap();
        file.set_len(10).unwrap();
        assert!(mapping.is_zero(4096, 100).is_err());
        let mut other = Mapping::shared(&file, 1 << 20).unwrap();
        assert!(other.write(4090, b"example-value").is_err(), "the second page is missing");
        assert!(other.write(1 << 19, b"example-value").is_err());
        assert_eq!(file.metadata().unwrap().len(), 10);
    }

    #[test]
    fn nothing_behind_the_mapping_is_touched() {
        let file = file(4096);
        let mut mapping = Mapping::shared(&file, 4096).unwrap();
        for (offset, bytes) in [(4090, &b"example-value"[..]), (usize::MAX, b"x"), (4097, b"")] {
            assert!(mapping.write(offset, bytes).is_err());
        }
        let mut found = [1; 4096];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [0; 4096]);
    }
}
