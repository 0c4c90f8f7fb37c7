//! What stat(2) shows: every caller sees what it may read as its own.

use crate::broker::Secret;
use crate::model::{Caller, Level, Levels, Timestamp};

/// The kind of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FileKind {
    Directory,
    File,
    Link,
}

/// What stat(2) shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Attributes {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Timestamp,
}

impl Attributes {
    /// Presents a secret.
    pub(super) fn of_secret(caller: &Caller, secret: &Secret) -> Self {
        let pinned = secret.pinned.unwrap_or_default();
        Self {
            inode: secret.inode.0,
            kind: FileKind::File,
            size: secret.size,
            mode: pinned.mode.map_or(mode_of(secret.levels), |mode| mode & 0o777),
            uid: pinned.owner.unwrap_or(caller.uid.0),
            gid: pinned.group.unwrap_or(caller.gid.0),
            modified: secret.modified,
        }
    }

    /// Presents a directory. Its time is no directory's own: that would tell of changes in it to
    /// those who may not know of them.
    pub(super) fn of_directory(
        caller: &Caller,
        may_write: bool,
        inode: u64,
        time: Timestamp,
    ) -> Self {
        let mode = if may_write { 0o700 } else { 0o500 };
        Self::own(caller, inode, FileKind::Directory, mode, time)
    }

    /// Presents an empty entry as the caller's own.
    pub(super) fn own(
        caller: &Caller,
        inode: u64,
        kind: FileKind,
        mode: u16,
        modified: Timestamp,
    ) -> Self {
        Self { inode, kind, size: 0, mode, uid: caller.uid.0, gid: caller.gid.0, modified }
    }

    /// Sets the size in bytes.
    pub(super) fn sized(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// Returns the link count. It tells nothing of what a directory holds.
    pub(super) fn links(&self) -> u32 {
        match self.kind {
            FileKind::Directory => 2,
            FileKind::File | FileKind::Link => 1,
        }
    }
}

/// Returns the permission bits that stand for what a caller may do.
pub(super) fn mode_of(levels: Levels) -> u16 {
    let bit = |level, bit| if levels.allow(level) { bit } else { 0 };
    bit(Level::Read, 0o400) | bit(Level::Write, 0o200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_says_what_the_caller_may_do() {
        let mode = |levels: &[Level]| mode_of(levels.iter().copied().collect());
        assert_eq!(mode(&[Level::Read]), 0o400);
        assert_eq!(mode(&[Level::Read, Level::Write]), 0o600);
        assert_eq!(mode(&[Level::Write]), 0o200);
        assert_eq!(mode(&[Level::Admin]), 0o600);
        assert_eq!(mode(&[Level::Delete]), 0);
    }
}
