//! Wipes what a computation with keys or plaintext has left on the stack.

use std::mem::MaybeUninit;

/// More than the deepest frames of AES-GCM and HKDF take. AES with vector instructions alone works on
/// a kilobyte at a time, and leaves that much plaintext behind.
const STACK_BYTES: usize = 8 * 1024;

/// Does some work, then overwrites the part of the stack that it has used. Takes about 100 ns.
pub fn with_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = run(work);
    wipe_below();
    result
}

/// Not inlined, so that everything in `work` lies below the frame of the caller.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_below() {
    let mut room = MaybeUninit::<[u8; STACK_BYTES]>::uninit();
    // SAFETY: the pointer is to `STACK_BYTES` bytes of our own frame. The call is opaque to the
    // compiler, which so can leave out neither the writing nor the room.
    unsafe { libc::explicit_bzero(room.as_mut_ptr().cast(), STACK_BYTES) };
}
