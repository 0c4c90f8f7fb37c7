//! What `/proc` tells of a thread, in bounded reads.
//!
//! Only files that a hostile process cannot make hang are read: never `cmdline` or `environ`, which
//! wait for its memory map's lock. What `exe` points to is not touched but by `exe_stamp`.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use crate::model::{Gid, Session, Timestamp, Uid};

/// A `Groups` line may name 65,536 groups of ten digits.
const MAX_STATUS_BYTES: u64 = 1 << 20;
const MAX_STAT_BYTES: u64 = 4096;
const MAX_CGROUP_BYTES: u64 = 1 << 16;

/// What is used of `/proc/TID/stat`, see `proc_pid_stat(5)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stat {
    /// Any bytes but NUL.
    pub comm: Vec<u8>,
    /// One letter: `T` is stopped.
    pub state: u8,
    /// The process that has started it, or has taken it over.
    pub parent: u32,
    /// In clock ticks since the boot.
    pub start_ticks: u64,
}

/// What is used of `/proc/TID/status`, see `proc_pid_status(5)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The thread group: what `ps` calls the pid.
    pub pid: u32,
    pub fsuid: Uid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
}

/// Whose rights a thread has, and whether it has given some up, see `proc_pid_status(5)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    /// Real, effective, saved, for files.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<Gid>,
    /// It can gain no rights by running a program.
    pub no_new_privs: bool,
}

/// Tells one state of one executable file from all others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileStamp {
    device: (u32, u32),
    /// Never used twice until the next boot, other than device numbers.
    mount: Option<u64>,
    inode: u64,
    bytes: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl FileStamp {
    /// Tells whether no other file can ever have it: anonymous device numbers are used again.
    pub fn is_unique(&self) -> bool {
        self.device.0 != 0 || self.mount.is_some()
    }
}

/// Reads name, start and parent of a thread.
pub fn stat(tid: u32) -> io::Result<Stat> {
    parse_stat(&read(tid, "stat", MAX_STAT_BYTES)?)
}

/// Reads thread group and credentials of a thread.
pub fn status(tid: u32) -> io::Result<Status> {
    parse_status(&read(tid, "status", MAX_STATUS_BYTES)?)
}

/// Reads whose rights a thread has.
pub fn credentials(tid: u32) -> io::Result<Credentials> {
    parse_credentials(&read(tid, "status", MAX_STATUS_BYTES)?)
}

/// Reads what a security module has confined a thread to. `None`: to nothing, as far as AppArmor goes.
pub fn apparmor_profile(tid: u32) -> io::Result<Option<String>> {
    match read(tid, "attr/apparmor/current", MAX_STAT_BYTES) {
        Ok(label) => {
            let label = String::from_utf8_lossy(&label).trim().to_owned();
            Ok((!label.is_empty() && label != "unconfined").then_some(label))
        }
        // There is no AppArmor, or it is switched off.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the cgroups of a thread, see `cgroups(7)`.
pub fn cgroup(tid: u32) -> io::Result<Vec<u8>> {
    read(tid, "cgroup", MAX_CGROUP_BYTES)
}

/// Reads the audit session of a thread; `None` where no login is behind it.
pub fn session(tid: u32) -> io::Result<Option<Session>> {
    parse_session(&read(tid, "sessionid", MAX_STAT_BYTES)?)
}

/// Reads where the executable of a thread is, without touching it. Errors: `EACCES` for a process
/// of somebody else without CAP_SYS_PTRACE.
pub fn exe(tid: u32) -> io::Result<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{tid}/exe"))?;
    Ok(OsString::from_vec(path.into_os_string().into_vec()).into())
}

/// Returns a stamp of the executable of a thread from what the kernel has cached of it, so that a
/// hostile filesystem cannot make the call hang.
pub fn exe_stamp(tid: u32) -> io::Result<FileStamp> {
    let path = CString::new(format!("/proc/{tid}/exe"))?;
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | STATX_MNT_ID_UNIQUE;
    // SAFETY: the structure holds integers only, for which all zeroes is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL and `found` is as large as the kernel's structure; both live
    // until the call returns.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut found) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let has_mount = found.stx_mask & STATX_MNT_ID_UNIQUE != 0;
    Ok(FileStamp {
        device: (found.stx_dev_major, found.stx_dev_minor),
        mount: has_mount.then_some(found.stx_mnt_id),
        inode: found.stx_ino,
        bytes: found.stx_size,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

/// `linux/stat.h`, since Linux 6.8.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// Returns the processes that there are.
pub fn pids() -> io::Result<Vec<u32>> {
    let names =
        std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Returns the number below which all thread ids are.
pub fn pid_max() -> io::Result<u32> {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max")?;
    text.trim().parse().map_err(|_| malformed())
}

/// Returns the wall clock's time of a moment in ticks since the boot, `now` being the time.
pub fn wall_time(start_ticks: u64, now: Timestamp) -> io::Result<Timestamp> {
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    let ticks_per_second = u64::try_from(ticks_per_second).unwrap_or(100).max(1);
    let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let nanos = start_ticks.saturating_mul(1_000_000_000 / ticks_per_second);
    let age = since_boot.saturating_sub(Duration::from_nanos(nanos));
    now.saturating_sub(age).map_err(io::Error::other)
}

fn read(tid: u32, file: &str, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048);
    let file = File::open(format!("/proc/{tid}/{file}"))?;
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn parse_stat(bytes: &[u8]) -> io::Result<Stat> {
    const START_TIME: usize = 22;
    // The name stands in brackets and may hold brackets itself.
    let open = bytes.iter().position(|&b| b == b'(');
    let close = bytes.iter().rposition(|&b| b == b')');
    let (Some(open), Some(close)) = (open, close) else { return Err(malformed()) };
    let comm = bytes.get(open + 1..close).ok_or_else(malformed)?.to_vec();
    let fields = std::str::from_utf8(bytes.get(close + 1..).unwrap_or_default());
    let fields = fields.map_err(|_| malformed())?;
    // The first field after the name is the third of the line.
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.bytes().next()).ok_or_else(malformed)?;
    let number = |field: Option<&str>| field.and_then(|field| field.parse().ok());
    let parent = number(fields.next()).and_then(|parent| u32::try_from(parent).ok());
    let start_ticks = number(fields.nth(START_TIME - 5)).ok_or_else(malformed)?;
    Ok(Stat { comm, state, parent: parent.ok_or_else(malformed)?, start_ticks })
}

/// Returns the words behind `key` in a status.
fn words<'a>(bytes: &'a [u8], key: &str) -> io::Result<std::str::SplitAsciiWhitespace<'a>> {
    let mut lines = bytes.split(|&b| b == b'\n');
    let rest = lines.find_map(|line| line.strip_prefix(key.as_bytes())).ok_or_else(malformed)?;
    std::str::from_utf8(rest).map(str::split_ascii_whitespace).map_err(|_| malformed())
}

fn parse_credentials(bytes: &[u8]) -> io::Result<Credentials> {
    let numbers = |key: &str| -> io::Result<Vec<u32>> {
        words(bytes, key)?.map(|word| word.parse().map_err(|_| malformed())).collect()
    };
    let four = |key| numbers(key)?.try_into().map_err(|_| malformed());
    Ok(Credentials {
        uids: four("Uid:")?,
        gids: four("Gid:")?,
        groups: numbers("Groups:")?.into_iter().map(Gid).collect(),
        no_new_privs: numbers("NoNewPrivs:")? != [0],
    })
}

fn parse_status(bytes: &[u8]) -> io::Result<Status> {
    let line = |key: &str| words(bytes, key);
    let number = |text: Option<&str>| text.and_then(|t| t.parse().ok()).ok_or_else(malformed);
    let groups: io::Result<Vec<Gid>> =
        line("Groups:")?.map(|group| number(Some(group)).map(Gid)).collect();
    Ok(Status {
        pid: number(line("Tgid:")?.next())?,
        // Real, effective, saved, filesystem.
        fsuid: Uid(number(line("Uid:")?.nth(3))?),
        groups: groups?,
    })
}

fn parse_session(bytes: &[u8]) -> io::Result<Option<Session>> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let number: u32 = text.trim().parse().map_err(|_| malformed())?;
    // AUDIT_SID_UNSET.
    Ok((number != u32::MAX).then_some(Session(number)))
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_newlines_does_not_shift_the_fields() {
        let line = b"42 (a) S 1 (\n b) R 1 42 42 0 -1 4194304 9 0 0 0 1 2 3 4 20 0 1 0 777 1 2 3\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            stat,
            Stat { comm: b"a) S 1 (\n b".to_vec(), state: b'R', parent: 1, start_ticks: 777 }
        );
        assert!(parse_stat(b"42 (a) R 1 2").is_err());
        assert!(parse_stat(b"42 )a(").is_err());
    }

    #[test]
    fn the_number_that_stands_for_no_session_is_none() {
        assert_eq!(parse_session(b"7").unwrap(), Some(Session(7)));
        assert_eq!(parse_session(b"4294967295").unwrap(), None);
        assert!(parse_session(b"-1").is_err() && parse_session(b"").is_err());
    }

    #[test]
    fn a_status_gives_the_filesystem_uid_and_all_groups() {
        let text = b"Name:\tx\\nUid:\t9\nTgid:\t7\nPid:\t8\nUid:\t1\t2\t3\t4\nGid:\t1\t1\t1\t1\nGroups:\t5 6 \n";
        let expected = Status { pid: 7, fsuid: Uid(4), groups: vec![Gid(5), Gid(6)] };
        assert_eq!(parse_status(text).unwrap(), expected);
        assert!(parse_status(b"Tgid:\t7\nUid:\t1\t2\nGroups:\t\n").is_err());
    }

    #[test]
    fn credentials_are_all_four_ids_and_whether_more_can_be_gained() {
        let text =
            b"Name:\tUid:\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 \nNoNewPrivs:\t1\n";
        let expected = Credentials {
            uids: [1, 2, 3, 4],
            gids: [5, 6, 7, 8],
            groups: vec![Gid(9)],
            no_new_privs: true,
        };
        assert_eq!(parse_credentials(text).unwrap(), expected);
        assert!(parse_credentials(b"Uid:\t1\t2\t3\nGid:\t5\t6\t7\t8\nGroups:\t\n").is_err());
    }
}
