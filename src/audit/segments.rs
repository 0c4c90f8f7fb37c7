//! The files of the log: their names, how they are listed, made and opened.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::chain::Head;
use super::entry::{Entry, SegmentHeader};
use super::line::{self, Line, MAX_LINE};
use crate::model::{Seq, Timestamp};

const EXTENSION: &str = ".jsonl";

/// Least room to keep for a segment. Where not even this is left, the disk counts as full.
const LEAST_ROOM: u64 = 64 * 1024;

/// A segment on disk, named by the seq of its first line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SegmentFile {
    pub(super) first: Seq,
    pub(super) path: PathBuf,
}

impl SegmentFile {
    pub(super) fn new(dir: &Path, first: Seq) -> Self {
        Self { first, path: dir.join(format!("{:020}{EXTENSION}", first.0)) }
    }

    /// Returns the name without its directory.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        regular(options.open(&self.path)?)
    }

    /// Opens it for writing.
    pub(super) fn open_to_write(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        regular(options.open(&self.path)?)
    }

    /// Opens it for writing anywhere in it.
    pub(super) fn open_to_repair(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        regular(options.open(&self.path)?)
    }

    /// Makes it, empty, with room for `bytes` or, on a disk that is nearly full, for less. Its name is not durable.
    pub(super) fn create(&self, bytes: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = options.open(&self.path)?;
        match keep_room(&file, bytes) {
            Ok(()) => Ok(file),
            Err(error) => {
                fs::remove_file(&self.path)?;
                Err(error)
            }
        }
    }

    /// Returns its last complete line's place, without looking at the code.
    pub(super) fn last_head(&self) -> io::Result<Option<Head>> {
        let mut head = None;
        for_each_line(self.open()?, |line| {
            let line = Line::parse(line);
            head = line
                .and_then(|line| Some(Head { seq: line.seq, mac: line::unhex(line.mac)? }))
                .or(head);
            Ok::<_, io::Error>(())
        })?;
        Ok(head)
    }

    /// Returns the time of its first line, or `None` where that cannot be read.
    pub(super) fn begun(&self) -> io::Result<Option<Timestamp>> {
        let mut text = Vec::new();
        read_line(&mut BufReader::new(self.open()?), &mut text)?;
        Ok(serde_json::from_slice::<Entry>(&text).ok().map(|entry| entry.time))
    }

    /// Returns the store that its first line names, or `None` where that cannot be read.
    pub(super) fn store(&self) -> io::Result<Option<String>> {
        let mut text = Vec::new();
        read_line(&mut BufReader::new(self.open()?), &mut text)?;
        let detail = serde_json::from_slice::<Entry>(&text).ok().and_then(|entry| entry.detail);
        let header = detail.and_then(|detail| serde_json::from_value::<SegmentHeader>(detail).ok());
        Ok(header.and_then(|header| header.store))
    }

    /// Tells whether it has no line yet: its maker writes to the segment before it first, or died then.
    pub(super) fn is_unborn(&self) -> io::Result<bool> {
        let is_short = self.open()?.metadata()?.len() < MAX_LINE as u64;
        Ok(is_short && !self.has_a_line()?)
    }

    /// Tells whether its first line is there.
    pub(super) fn has_a_line(&self) -> io::Result<bool> {
        Ok(read_line(&mut BufReader::new(self.open()?), &mut Vec::new())? == Ending::Newline)
    }

    /// Tells whether it ends with a line. Zeros are left at the end of one whose process was killed, as long as it is
    /// not known to be on disk: see [`backlog`](super::backlog).
    pub(super) fn is_finished(&self) -> io::Result<bool> {
        let file = self.open()?;
        let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        Ok(byte == *b"\n")
    }

    /// Returns what stands behind the first `whole_bytes`, which end with a line.
    pub(super) fn tail(&self, whole_bytes: u64) -> io::Result<Tail> {
        let mut reader = BufReader::new(self.open()?);
        reader.seek(SeekFrom::Start(whole_bytes))?;
        let mut tail = Tail::default();
        let (mut offset, mut zero) = (0, None);
        loop {
            let block = reader.fill_buf()?;
            if block.is_empty() {
                return Ok(tail);
            }
            for (byte, at) in block.iter().zip(offset..) {
                if *byte == 0 {
                    zero = zero.or(Some(at));
                } else {
                    tail = Tail { bytes: at + 1, hole: zero };
                }
            }
            let length = block.len();
            offset += length as u64;
            reader.consume(length);
        }
    }
}

/// Makes the directory of the log if need be, for its owner alone.
pub(super) fn prepare_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_directory(dir.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::metadata(dir)?.mode() & 0o077 != 0 {
                fs::set_permissions(dir, Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Returns the segments, oldest first. Other files are passed over.
pub(super) fn list(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)).filter(|digits| {
            digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some(first) = first.and_then(|digits| digits.parse().ok()) {
            segments.push(SegmentFile { first: Seq(first), path: entry.path() });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Drops the first segments as far as all of their lines come before the one behind `after`.
pub(super) fn drop_before(segments: &mut Vec<SegmentFile>, after: Seq) {
    let begun = |segment: &SegmentFile| segment.first.0 <= after.0.saturating_add(1);
    segments.drain(..segments.iter().skip(1).take_while(|next| begun(next)).count());
}

/// Makes creations, renames and removals in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// What stands behind the last whole line of a segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tail {
    /// Up to the last byte that is not zero.
    pub(super) bytes: u64,
    /// Where the first zero is that something follows.
    pub(super) hole: Option<u64>,
}

/// Reads the next line into `line` without its newline. Zeros are where nothing was written yet: a line
/// with one in it is not complete, and one that begins with it is the end.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Ending> {
    line.clear();
    reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', line)?;
    Ok(match (line.first(), line.last()) {
        (None | Some(0), _) => Ending::End,
        (_, Some(b'\n')) if memchr::memchr(0, line).is_none() => {
            line.pop();
            Ending::Newline
        }
        _ => Ending::Torn,
    })
}

/// Returns where the lines of a segment end that may be in use: behind the newline before the zeros.
pub(super) fn end_of_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(block.len());
        let room = block.get_mut(..length).unwrap_or_default();
        file.read_exact_at(room, start)?;
        if let Some(newline) = room.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// How [`read_line`] ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    End,
    Newline,
    Torn,
}

/// Calls `visit` with each complete line.
pub(super) fn for_each_line<E: From<io::Error>>(
    file: File,
    mut visit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? == Ending::Newline {
        visit(&line)?;
    }
    Ok(())
}

/// A device, pipe or directory in place of a segment must not be read, let alone written.
fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "an audit segment is not a regular file"))
}

/// Keeps room, so that a full disk shows when a segment is made and not in its middle.
fn keep_room(file: &File, bytes: u64) -> io::Result<()> {
    let mut room = bytes.max(LEAST_ROOM);
    loop {
        let length = i64::try_from(room).unwrap_or(i64::MAX);
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Ok(()) => return Ok(()),
            // A filesystem that cannot keep room shows a full disk at the write, which is refused then.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) if room > LEAST_ROOM => {
                // Some filesystems keep what they had found before they ran out.
                file.set_len(0)?;
                room = (room / 2).max(LEAST_ROOM);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}
