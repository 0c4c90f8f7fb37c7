//! The mount table, unmounting, and the directory that a mount covers.
//!
//! The table is read from `/proc/self/mountinfo` (proc_pid_mountinfo(5)), whose text other users
//! can influence: a line that makes no sense is skipped, never guessed at. A mountpoint is kept with
//! mode 0000, and immutable where root and the filesystem allow it, so that while nothing is mounted
//! nobody writes plaintext to the disk by mistake.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{fstatfs, statfs};

/// One line of mountinfo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// Major and minor number; a FUSE mount's minor names its connection in fusectl.
    pub device: (u32, u32),
    /// What of the filesystem is mounted: `/` but for a bind.
    pub root: PathBuf,
    pub mountpoint: PathBuf,
    /// Options of this mount, such as `rw,nosuid`.
    pub options: String,
    /// The type with its subtype, such as `fuse.secretfs`.
    pub fs_type: String,
    pub source: OsString,
    /// Options of the filesystem, such as `allow_other`.
    pub super_options: String,
    /// Whether what is mounted in it appears in its copies in other namespaces (`shared:N`).
    pub is_shared: bool,
}

impl Mount {
    /// Tells whether either list of options has `option`.
    pub fn has_option(&self, option: &str) -> bool {
        self.options.split(',').chain(self.super_options.split(',')).any(|has| has == option)
    }

    /// Tells whether it is one secret, or one directory, of a mount of ours.
    pub fn is_bind(&self) -> bool {
        self.fs_type == SECRETS && self.root != Path::new("/")
    }

    /// Tells whether it is the whole of what a bind is a part of.
    pub fn is_whole_of(&self, bind: &Self) -> bool {
        self.fs_type == SECRETS && !self.is_bind() && self.device == bind.device
    }

    /// Tells whether `dev`, as stat(2) gives it, is this mount's device.
    pub fn is_device(&self, dev: u64) -> bool {
        self.device == (libc::major(dev), libc::minor(dev))
    }

    /// Returns the connection's directory name under `/sys/fs/fuse/connections`: the device number
    /// as the kernel holds it, with 20 bits of minor.
    pub fn connection(&self) -> u64 {
        (u64::from(self.device.0) << 20) | u64::from(self.device.1)
    }
}

/// The type of our mounts.
pub(super) const SECRETS: &str = "fuse.secretfs";

/// Returns the mount table of this thread, which may have a namespace of its own.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse_mountinfo(&fs::read("/proc/thread-self/mountinfo")?))
}

/// Sees when this process's mount table changes.
#[derive(Debug)]
pub struct MountWatch(File);

impl MountWatch {
    /// Begins to watch.
    pub fn new() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// Waits until something was mounted or unmounted since the last time.
    pub fn wait(&self) -> io::Result<()> {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        loop {
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Returns the mount table of another thread, as seen from its root.
pub(super) fn mounts_of(tid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse_mountinfo(&fs::read(format!("/proc/{tid}/mountinfo"))?))
}

/// Returns the lines that make sense, in their order.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Returns the mount that a path lookup of exactly `path` ends in: of those stacked there, the one
/// that no other one covers.
pub fn topmost<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let here = || mounts.iter().filter(|mount| mount.mountpoint == path);
    here().find(|mount| !here().any(|other| other.parent == mount.id && other.id != mount.id))
}

/// Tells whether the mount at `path` has lost its daemon: any access is ENOTCONN.
pub fn is_stale(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|err| err.raw_os_error() == Some(libc::ENOTCONN))
}

/// Returns the filesystem magic number of statfs(2) at `path`.
pub fn filesystem_magic(path: &Path) -> io::Result<i64> {
    Ok(widen(statfs(path)?.filesystem_type().0))
}

/// Returns the filesystem magic number of an open file, `O_PATH` included.
pub fn filesystem_magic_of(fd: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(widen(fstatfs(fd)?.filesystem_type().0))
}

/// `FUSE_SUPER_MAGIC` of statfs(2).
pub const FUSE_MAGIC: i64 = 0x6573_5546;
/// `TMPFS_MAGIC` of statfs(2).
pub const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `RAMFS_MAGIC` of statfs(2).
pub const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// The magic numbers are 32 bits; some architectures sign-extend them into a wider word.
#[allow(clippy::useless_conversion, reason = "the word's type depends on the architecture")]
fn widen(magic: libc::__fsword_t) -> i64 {
    i64::from(magic) & 0xffff_ffff
}

/// How to unmount.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmount {
    /// Takes the mount out of the tree now; it ends when the last file in it is closed.
    Detach,
    /// Fails with EBUSY while files in it are open.
    IfUnused,
}

/// Unmounts what is mounted at `path`: root by umount2(2), others by `fusermount3`, which is setuid.
pub fn unmount(path: &Path, how: Unmount) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        let flags = match how {
            Unmount::Detach => MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
            Unmount::IfUnused => MntFlags::UMOUNT_NOFOLLOW,
        };
        return Ok(umount2(path, flags)?);
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if how == Unmount::Detach {
        command.arg("-z");
    }
    let output = command.arg("--").arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if said.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::PermissionDenied
    };
    Err(io::Error::new(kind, said))
}

/// A directory that is about to be mounted upon, opened before anything covers it.
#[derive(Debug)]
pub struct Mountpoint {
    /// The covered directory itself: it stays reachable here when something is mounted over the path.
    directory: File,
    path: PathBuf,
}

impl Mountpoint {
    /// Opens the directory and makes it if it is missing and its parent lets us. It must be a real
    /// directory and empty.
    pub fn prepare(path: &Path) -> Result<Self, MountpointError> {
        let fail = |source| MountpointError::Io { path: path.into(), source };
        let found = match fs::symlink_metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(0o000)
                    .create(path)
                    .map_err(|source| MountpointError::CannotMake { path: path.into(), source })?;
                fs::symlink_metadata(path).map_err(fail)?
            }
            found => found.map_err(fail)?,
        };
        if !found.is_dir() {
            return Err(MountpointError::NotDirectory(path.into()));
        }
        // `fusermount3` wants the user to have write access, and mode 0000 keeps its owner out too.
        let uid = nix::unistd::geteuid();
        if !uid.is_root() && found.uid() == uid.as_raw() && found.mode() & 0o700 != 0o700 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fail)?;
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)
            .map_err(fail)?;
        if fs::read_dir(path).map_err(fail)?.next().is_some() {
            return Err(MountpointError::NotEmpty(path.into()));
        }
        Ok(Self { directory, path: path.into() })
    }

    /// Closes the covered directory: mode 0000 and, for root, immutable where the filesystem has such
    /// a flag. Works while something is mounted over it. Returns whether it is immutable.
    pub fn protect(&self) -> io::Result<bool> {
        let is_root = nix::unistd::geteuid().is_root();
        if is_root && matches!(inode_flags(&self.directory), Ok(flags) if flags & IMMUTABLE != 0) {
            return Ok(true);
        }
        self.directory.set_permissions(Permissions::from_mode(0o000))?;
        Ok(is_root && set_immutable(&self.directory, true).is_ok())
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes a mountpoint on which nothing is mounted, its protection first.
pub fn remove_mountpoint(path: &Path) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)?;
        if inode_flags(&directory).is_ok_and(|flags| flags & IMMUTABLE != 0) {
            set_immutable(&directory, false)?;
        }
    }
    fs::remove_dir(path)
}

/// Tells whether an unmounted mountpoint keeps others from writing into it: `None` when it cannot be
/// looked at.
pub fn is_protected(path: &Path) -> Option<bool> {
    let found = fs::symlink_metadata(path).ok()?;
    Some(found.is_dir() && found.mode() & 0o777 == 0)
}

/// Why a directory cannot be mounted upon.
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    #[error("{path} does not exist and cannot be made")]
    CannotMake { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used as a mountpoint")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is not a directory")]
    NotDirectory(PathBuf),
    #[error("{0} is not empty")]
    NotEmpty(PathBuf),
}

/// `FS_IMMUTABLE_FL` of ioctl_iflags(2).
const IMMUTABLE: libc::c_int = 0x10;

fn inode_flags(file: &File) -> io::Result<libc::c_int> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int to the pointer (ioctl_iflags(2):
    // the request is declared with long, but the argument is an int).
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    if result == 0 { Ok(flags) } else { Err(io::Error::last_os_error()) }
}

fn set_immutable(file: &File, immutable: bool) -> io::Result<()> {
    let before = inode_flags(file)?;
    let flags = if immutable { before | IMMUTABLE } else { before & !IMMUTABLE };
    // SAFETY: the descriptor is open, and the kernel reads one int from the pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Parses `id parent major:minor root mountpoint options [optional...] - type source super-options`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = PathBuf::from(unescape(fields.next()?)?);
    let mountpoint = PathBuf::from(unescape(fields.next()?)?);
    let options = String::from_utf8(fields.next()?.to_vec()).ok()?;
    // The optional fields end at a lone hyphen; a source or a path cannot be taken for it, because
    // both stand at fixed places before and after.
    let optional: Vec<&[u8]> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let is_shared = optional.iter().any(|field| field.starts_with(b"shared:"));
    let fs_type = String::from_utf8(unescape(fields.next()?)?.into_vec()).ok()?;
    let source = unescape(fields.next()?)?;
    let super_options = String::from_utf8_lossy(fields.next()?).into_owned();
    let complete = fields.next().is_none() && mountpoint.is_absolute();
    complete.then_some(Mount {
        id,
        parent,
        device,
        root,
        mountpoint,
        options,
        fs_type,
        source,
        super_options,
        is_shared,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's escapes: a backslash and three octal digits for space, tab, newline,
/// backslash and number sign.
fn unescape(field: &[u8]) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(3)?;
        let code = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
        bytes.push(code);
        rest = after;
    }
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw";
    const OURS: &str = "90 22 0:51 / /secrets rw,nosuid,nodev,noexec shared:7 master:2 - fuse.secretfs secretfs rw,user_id=0,allow_other";

    #[test]
    fn a_line_is_split_into_its_fields_whatever_optional_ones_it_has() {
        let table = parse_mountinfo(format!("{ROOT}\n{OURS}\n").as_bytes());
        assert_eq!(table.len(), 2);
        let ours = topmost(&table, Path::new("/secrets")).unwrap();
        assert_eq!((ours.fs_type.as_str(), ours.device), ("fuse.secretfs", (0, 51)));
        assert!(ours.has_option("nosuid") && ours.has_option("allow_other"));
        assert!(!ours.has_option("allow"));
        assert_eq!(ours.connection(), 51);
        assert!(ours.is_shared);
        assert!(!ours.is_bind());
        let bind = parse_mountinfo(OURS.replace("0:51 /", "0:51 /prod/db").as_bytes());
        assert!(bind[0].is_bind() && bind[0].root == Path::new("/prod/db"));
        let slave = parse_mountinfo(OURS.replace("shared:7 ", "").as_bytes());
        assert!(!slave[0].is_shared);
    }

    #[test]
    fn escaped_spaces_newlines_and_backslashes_come_back_as_they_were() {
        let line = br"5 1 0:9 / /a\040b\012c\134040 rw - fuse.x so\011urce rw";
        let table = parse_mountinfo(line);
        assert_eq!(table[0].mountpoint, PathBuf::from("/a b\nc\\040"));
        assert_eq!(table[0].source, "so\turce");
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped_and_the_others_kept() {
        let hostile: [&[u8]; 14] = [
            b"",
            b" ",
            b"x 1 0:9 / /a rw - fuse.secretfs s rw",
            b"5 1 0-9 / /a rw - fuse.secretfs s rw",
            b"5 1 0:9 / /a rw fuse.secretfs s rw",
            b"5 1 0:9 / /a rw -",
            b"5 1 0:9 / /a rw - fuse.secretfs s",
            b"5 1 0:9 / relative rw - fuse.secretfs s rw",
            br"5 1 0:9 / /a\04 rw - fuse.secretfs s rw",
            br"5 1 0:9 / /a\999 rw - fuse.secretfs s rw",
            br"5 1 0:9 / /a\ rw - fuse.secretfs s rw",
            b"99999999999999999999 1 0:9 / /a rw - fuse.secretfs s rw",
            b"5 1 0:9 / /a rw - fuse.secretfs s rw trailing",
            b"5 1 0:9 / /a \xff\xfe - fuse.secretfs s rw",
        ];
        for line in hostile {
            let text = [line, b"\n", OURS.as_bytes()].concat();
            let table = parse_mountinfo(&text);
            assert_eq!(table.len(), 1, "{}", String::from_utf8_lossy(line));
            assert_eq!(table[0].id, 90);
        }
    }

    #[test]
    fn a_source_named_like_a_mount_line_is_not_taken_for_one() {
        let line = br"5 1 0:9 / /a rw - tmpfs x\04091\0401\0400:9\040/\040/secrets rw";
        assert!(topmost(&parse_mountinfo(line), Path::new("/secrets")).is_none());
    }

    #[test]
    fn a_mount_over_ours_is_the_one_that_is_found() {
        let over = "17 90 0:60 / /secrets rw - tmpfs tmpfs rw";
        for text in [format!("{OURS}\n{over}"), format!("{over}\n{OURS}")] {
            let table = parse_mountinfo(text.as_bytes());
            assert_eq!(topmost(&table, Path::new("/secrets")).unwrap().fs_type, "tmpfs");
        }
    }

    #[test]
    fn the_own_table_is_read_and_has_a_root() {
        assert!(topmost(&mounts().unwrap(), Path::new("/")).is_some());
    }

    #[test]
    fn a_missing_mountpoint_is_made_and_left_without_any_permission() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let mountpoint = Mountpoint::prepare(&path).unwrap();
        mountpoint.protect().unwrap();
        assert_eq!(is_protected(&path), Some(true));
        Mountpoint::prepare(&path).unwrap().protect().unwrap();
        remove_mountpoint(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn files_links_and_full_directories_are_no_mountpoints() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(matches!(Mountpoint::prepare(&file), Err(MountpointError::NotDirectory(_))));
        assert!(matches!(Mountpoint::prepare(&link), Err(MountpointError::NotDirectory(_))));
        assert!(matches!(Mountpoint::prepare(dir.path()), Err(MountpointError::NotEmpty(_))));
        let orphan = dir.path().join("none/secrets");
        assert!(matches!(Mountpoint::prepare(&orphan), Err(MountpointError::CannotMake { .. })));
    }
}
