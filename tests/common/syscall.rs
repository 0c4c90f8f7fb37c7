//! System calls that have no safe form in a crate: the rarer ways to read a file.
//!
//! Each returns all bytes of the file from its beginning, so that a test can compare them with what
//! was stored. None reads past the end on purpose without saying what came of it.
#![expect(unsafe_code, reason = "raw system calls")]

use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{Tried, number};

/// Opens a file for reading with more flags of open(2).
pub fn open(path: &Path, flags: i32) -> Tried<File> {
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|err| number(&err))
}

/// A copy of a file's bytes through a memory mapping.
pub fn read_mapping(file: &File, len: usize, flags: MapFlags) -> Tried<Vec<u8>> {
    let mapping = Mapping::new(file, len, flags)?;
    Ok(mapping.bytes())
}

/// A file mapped into memory, read only.
pub struct Mapping {
    start: ptr::NonNull<libc::c_void>,
    len: NonZeroUsize,
}

impl Mapping {
    pub fn new(file: &File, len: usize, flags: MapFlags) -> Tried<Self> {
        let len = NonZeroUsize::new(len).unwrap();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let mapped = unsafe { mmap(None, len, ProtFlags::PROT_READ, flags, file, 0) };
        Ok(Self { start: mapped.map_err(|errno| errno as i32)?, len })
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.len.get()) }
            .to_vec()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped it and nobody holds a reference into it.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}

/// preadv2(2) in pieces of two buffers.
pub fn preadv2(file: &File) -> Tried<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let (mut first, mut second) = (vec![0_u8; 1000], vec![0_u8; 60_000]);
        let parts = [
            libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
            libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: second.len() },
        ];
        let offset = i64::try_from(all.len()).unwrap();
        // SAFETY: both buffers are as long as their iovec says and outlive the call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), parts.as_ptr(), 2, offset, 0) };
        let read = usize::try_from(Errno::result(read).map_err(|errno| errno as i32)?).unwrap();
        if read == 0 {
            return Ok(all);
        }
        first.extend_from_slice(&second);
        all.extend_from_slice(&first[..read]);
    }
}

/// An I/O control block of libaio, see `linux/aio_abi.h`.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// A completion of libaio, see `linux/aio_abi.h`.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// io_submit(2), one read after the other.
pub fn libaio(file: &File) -> Tried<Vec<u8>> {
    let mut context: libc::c_ulong = 0;
    // SAFETY: `context` is zero and is written by the call.
    call(unsafe { libc::syscall(libc::SYS_io_setup, 4, &raw mut context) })?;
    let mut all = Vec::new();
    let outcome = loop {
        match libaio_once(context, file, all.len()) {
            Ok(part) if part.is_empty() => break Ok(()),
            Ok(part) => all.extend_from_slice(&part),
            Err(errno) => break Err(errno),
        }
    };
    // SAFETY: made above, and nothing is in flight.
    call(unsafe { libc::syscall(libc::SYS_io_destroy, context) })?;
    outcome.map(|()| all)
}

fn libaio_once(context: libc::c_ulong, file: &File, offset: usize) -> Tried<Vec<u8>> {
    let mut buffer = vec![0_u8; 65_536];
    let mut block = Iocb {
        fd: u32::try_from(file.as_raw_fd()).unwrap(),
        buffer: buffer.as_mut_ptr() as u64,
        bytes: buffer.len() as u64,
        offset: i64::try_from(offset).unwrap(),
        ..Iocb::default()
    };
    let mut blocks = [&raw mut block];
    // SAFETY: the block and its buffer outlive the wait for its completion below.
    call(unsafe { libc::syscall(libc::SYS_io_submit, context, 1, blocks.as_mut_ptr()) })?;
    let mut event = IoEvent::default();
    let none = ptr::null::<libc::timespec>();
    // SAFETY: there is room for the one event that is asked for.
    call(unsafe { libc::syscall(libc::SYS_io_getevents, context, 1, 1, &raw mut event, none) })?;
    let read = call(event.result)?;
    buffer.truncate(read);
    Ok(buffer)
}

fn call(result: i64) -> Tried<usize> {
    // libaio's completions have the errno in the result itself.
    match usize::try_from(result) {
        Ok(count) => Ok(count),
        Err(_) if result == -1 => Err(Errno::last_raw()),
        Err(_) => Err(i32::try_from(-result).unwrap()),
    }
}

/// O_DIRECT reads into an aligned buffer; the file must have been opened so.
pub fn read_aligned(file: &File) -> Tried<Vec<u8>> {
    const CHUNK: usize = 16_384;
    let layout = std::alloc::Layout::from_size_align(CHUNK, 4096).unwrap();
    // SAFETY: the layout is not of size zero.
    let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
    let mut all = Vec::new();
    let outcome = loop {
        // SAFETY: the buffer is CHUNK bytes long.
        let read = unsafe { libc::read(file.as_raw_fd(), buffer.cast(), CHUNK) };
        match Errno::result(read) {
            Ok(0) => break Ok(()),
            // SAFETY: the kernel has written that many bytes.
            Ok(read) => all.extend_from_slice(unsafe {
                std::slice::from_raw_parts(buffer, usize::try_from(read).unwrap())
            }),
            Err(errno) => break Err(errno as i32),
        }
    };
    // SAFETY: allocated above with the same layout.
    unsafe { std::alloc::dealloc(buffer, layout) };
    outcome.map(|()| all)
}

/// splice(2) from the file's position into a pipe.
pub fn splice(file: &File, pipe: &impl AsRawFd, len: usize) -> nix::Result<usize> {
    let (from, to) = (file.as_raw_fd(), pipe.as_raw_fd());
    // SAFETY: no memory of ours is involved: both offsets are null.
    count(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, 0) })
}

/// sendfile(2) from the file's position.
pub fn sendfile(file: &File, to: &impl AsRawFd, len: usize) -> nix::Result<usize> {
    // SAFETY: no memory of ours is involved: the offset is null.
    count(unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), len) })
}

/// copy_file_range(2) from position to position.
pub fn copy_file_range(file: &File, to: &File, len: usize) -> nix::Result<usize> {
    let (from, to) = (file.as_raw_fd(), to.as_raw_fd());
    // SAFETY: no memory of ours is involved: both offsets are null.
    count(unsafe { libc::copy_file_range(from, ptr::null_mut(), to, ptr::null_mut(), len, 0) })
}

fn count(result: isize) -> nix::Result<usize> {
    Ok(usize::try_from(Errno::result(result)?).unwrap())
}

/// Watches a path for every event of inotify(7), until the descriptor that it returns is dropped.
pub fn watch(path: &Path) -> Tried<OwnedFd> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a new descriptor, which nobody else owns; the path is terminated and outlives the call.
    unsafe {
        let fd = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
        let inotify = OwnedFd::from_raw_fd(Errno::result(fd).map_err(|errno| errno as i32)?);
        let watch = libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_ALL_EVENTS);
        Errno::result(watch).map_err(|errno| errno as i32)?;
        Ok(inotify)
    }
}

/// readahead(2) of the whole file.
pub fn read_ahead(file: &File, len: usize) {
    // SAFETY: no memory of ours is involved.
    let _ = unsafe { libc::readahead(file.as_raw_fd(), 0, len) };
}

/// One read through io_uring into a buffer of `len` bytes; `offset` -1 is the current position.
/// `None`: io_uring is not to be had here.
pub fn io_uring_read(file: &File, len: usize, offset: u64) -> Option<Tried<Vec<u8>>> {
    let mut ring = Ring::new()?;
    Some(ring.read(file, len, offset))
}

/// The smallest io_uring: one request in flight. Layouts as in `linux/io_uring.h`.
struct Ring {
    fd: i32,
    submissions: Region,
    entries: Region,
    params: Params,
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq: Offsets,
    cq: Offsets,
}

/// Of the submission queue: head, tail, mask, entries, flags, dropped, array. Of the completion queue:
/// head, tail, mask, entries, overflow, cqes, flags.
#[repr(C)]
#[derive(Default)]
struct Offsets {
    fields: [u32; 8],
    address: u64,
}

struct Region {
    start: *mut u8,
    len: usize,
}

impl Region {
    fn new(fd: i32, len: usize, offset: i64) -> Option<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        (start != libc::MAP_FAILED).then(|| Self { start: start.cast(), len })
    }

    fn at(&self, offset: u32) -> *mut u8 {
        assert!((offset as usize) < self.len);
        self.start.wrapping_add(offset as usize)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; nobody holds a pointer into it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

impl Ring {
    const FEATURE_SINGLE_MMAP: u32 = 1;

    fn new() -> Option<Self> {
        let mut params = Params::default();
        // SAFETY: `params` has the layout of `struct io_uring_params`.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, &raw mut params) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        if params.features & Self::FEATURE_SINGLE_MMAP == 0 {
            return None;
        }
        let array_end = params.sq.fields[6] as usize + params.sq_entries as usize * 4;
        let completions_end = params.cq.fields[5] as usize + params.cq_entries as usize * 16;
        let submissions = Region::new(fd, array_end.max(completions_end), 0)?;
        let entries = Region::new(fd, params.sq_entries as usize * 64, 0x1000_0000)?;
        Some(Self { fd, submissions, entries, params })
    }

    fn read(&mut self, file: &File, len: usize, offset: u64) -> Tried<Vec<u8>> {
        const OP_READ: u8 = 22;
        const ENTER_GETEVENTS: u32 = 1;
        let mut buffer = vec![0_u8; len];
        let mut entry = [0_u8; 64];
        entry[0] = OP_READ;
        entry[4..8].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        entry[8..16].copy_from_slice(&offset.to_ne_bytes());
        entry[16..24].copy_from_slice(&(buffer.as_mut_ptr() as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
        let (sq, cq) = (&self.params.sq.fields, &self.params.cq.fields);
        // SAFETY: every offset comes from the kernel; one entry is written and then published by its tail;
        // the buffer outlives the wait for the completion.
        unsafe {
            ptr::copy_nonoverlapping(entry.as_ptr(), self.entries.start, 64);
            self.submissions.at(sq[6]).cast::<u32>().write_volatile(0);
            let tail = self.submissions.at(sq[1]).cast::<u32>();
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            tail.write_volatile(tail.read_volatile().wrapping_add(1));
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            let none = ptr::null::<libc::c_void>();
            let entered =
                libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, ENTER_GETEVENTS, none, 0);
            call(entered)?;
            let completion = self.submissions.at(cq[5]);
            let result = completion.add(8).cast::<i32>().read_volatile();
            let read = call(i64::from(result))?;
            buffer.truncate(read);
        }
        Ok(buffer)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing is in flight.
        unsafe { libc::close(self.fd) };
    }
}
