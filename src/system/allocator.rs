//! What is asked of the C library's allocator.

use std::io;

/// An allocation of at least so many bytes begins at a page of its own.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 8 << 20;

/// Has each large allocation mapped by itself, from here on: glibc maps them until one was given back, and then carves
/// the next out of what it has, wherever that begins (mallopt(3), `M_MMAP_THRESHOLD`).
///
/// The buffer in which fuser takes requests is that large. Where it begins at the end of a page, each request lies in
/// two, and the kernel looks up both: 1.3 us of 40 for opening, reading and closing a secret.
pub fn map_large_allocations() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers, and keeps what is allocated where it is.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) } == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}
