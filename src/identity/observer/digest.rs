//! SHA-256 of running programs, computed once for each state of a file.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::statfs::{FsType, fstatfs};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::system::procfs::{self, FileStamp};

/// Larger programs have no digest.
const MAX_BYTES: u64 = 1 << 30;
/// Digests that are remembered; then all are forgotten.
const MAX_KNOWN: usize = 1024;

/// Filesystems (`linux/magic.h`) whose server may show us other bytes than it had executed: FUSE,
/// NFS, SMB, CIFS, 9P, Ceph, AFS.
const FOREIGN: [i64; 8] =
    [0x6573_5546, 0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400, 0x6b41_4653];

/// The digests known so far.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<FileStamp, [u8; 32]>>);

impl Digests {
    /// Returns the digest of what the thread runs, if it is known. Never waits for a filesystem.
    pub(super) fn known(&self, tid: u32) -> Option<[u8; 32]> {
        self.0.lock().get(&procfs::exe_stamp(tid).ok()?).copied()
    }

    /// Reads the program and remembers its digest. May take as long as the filesystem likes.
    pub(super) fn compute(&self, tid: u32) -> Option<[u8; 32]> {
        let before = procfs::exe_stamp(tid).ok()?;
        let digest = hash(tid).ok().flatten()?;
        let after = procfs::exe_stamp(tid).ok()?;
        if before != after {
            return None;
        }
        if after.is_unique() {
            let mut known = self.0.lock();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(after, digest);
        }
        Some(digest)
    }
}

fn hash(tid: u32) -> io::Result<Option<[u8; 32]>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let mut file = options.open(format!("/proc/{tid}/exe"))?;
    let is_foreign = FOREIGN.map(FsType).contains(&fstatfs(&file)?.filesystem_type());
    let metadata = file.metadata()?;
    if is_foreign || !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut left = MAX_BYTES;
    loop {
        let length = file.read(&mut buffer)?;
        left = match left.checked_sub(length as u64) {
            Some(left) => left,
            None => return Ok(None),
        };
        match buffer.get(..length) {
            Some([]) | None => return Ok(Some(hasher.finalize().into())),
            Some(bytes) => hasher.update(bytes),
        }
    }
}
