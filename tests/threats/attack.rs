//! The ways into another process of the same user. Each returns the errno that stopped it.
#![expect(unsafe_code, reason = "raw system calls")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

type Attack = fn(u32) -> Result<(), i32>;

pub const ALL: [(&str, Attack); 9] = [
    ("environ", |pid| read(pid, "environ")),
    ("exe", |pid| link(pid, "exe")),
    ("fd", descriptors),
    ("maps", |pid| read(pid, "maps")),
    ("mem", memory),
    ("pidfd_getfd", take_descriptor),
    ("process_vm_readv", peek),
    ("ptrace", trace),
    ("cwd", |pid| link(pid, "cwd")),
];

fn read(pid: u32, file: &str) -> Result<(), i32> {
    let mut byte = [0; 1];
    let mut file = File::open(format!("/proc/{pid}/{file}")).map_err(number)?;
    file.read(&mut byte).map(drop).map_err(number)
}

fn link(pid: u32, file: &str) -> Result<(), i32> {
    fs::read_link(format!("/proc/{pid}/{file}")).map(drop).map_err(number)
}

fn descriptors(pid: u32) -> Result<(), i32> {
    fs::read_dir(format!("/proc/{pid}/fd")).map(drop).map_err(number)
}

fn memory(pid: u32) -> Result<(), i32> {
    let mut file = File::open(format!("/proc/{pid}/mem")).map_err(number)?;
    let address = stack_of(pid).ok_or(libc::EACCES)?;
    file.seek(SeekFrom::Start(address)).map_err(number)?;
    file.read_exact(&mut [0; 8]).map_err(number)
}

fn peek(pid: u32) -> Result<(), i32> {
    let mut bytes = [0_u8; 8];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // An address that the attacker cannot know is refused before it is looked at.
    let address = stack_of(pid).unwrap_or(4096) as *mut libc::c_void;
    let remote = libc::iovec { iov_base: address, iov_len: bytes.len() };
    let pid = pid.cast_signed();
    // SAFETY: the local buffer is as long as its iovec says and outlives the call.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(read).map(drop).map_err(|errno| errno as i32)
}

fn trace(pid: u32) -> Result<(), i32> {
    let pid = Pid::from_raw(pid.cast_signed());
    let ask = |request| {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of ours.
        let result = unsafe { libc::ptrace(request, pid.as_raw(), none, none) };
        Errno::result(result).map(drop).map_err(|errno| errno as i32)
    };
    ask(libc::PTRACE_ATTACH)?;
    waitpid(pid, None).map_err(|errno| errno as i32)?;
    ask(libc::PTRACE_DETACH)
}

fn take_descriptor(pid: u32) -> Result<(), i32> {
    // SAFETY: no memory of ours is involved, here and in the next call.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = Errno::result(pidfd).map_err(|errno| errno as i32)?;
    // SAFETY: as above; the descriptors go with this process.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0) };
    Errno::result(taken).map(drop).map_err(|errno| errno as i32)
}

fn stack_of(pid: u32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (_, end) = stack.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - 4096)
}

fn number(err: std::io::Error) -> i32 {
    err.raw_os_error().unwrap_or(0)
}
