//! What stat(2) shows: every caller sees what it may read as its own, or all see the same.

use crate::broker::Secret;
use crate::model::{Caller, Level, Levels, Timestamp};

/// The kind of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FileKind {
    Directory,
    File,
    Link,
}

/// As whose files things are shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Owners {
    /// As the caller's own, with a mode that says what it may do; the kernel checks no permission.
    #[default]
    Caller,
    /// The same to everybody, so that the kernel can check permissions before the policy is asked:
    /// a secret as its pinned owner's, everything else as this user's.
    Fixed { uid: u32, gid: u32 },
}

/// Everybody may enter a directory by name; nobody else can list it, and so not watch it either.
const FIXED_DIRECTORY: u16 = 0o711;

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
    pub(super) fn of_secret(owners: Owners, caller: &Caller, secret: &Secret) -> Self {
        let mode = mode_of(secret.levels);
        let shown =
            Self::own(caller, secret.inode.0, FileKind::File, mode, secret.modified).shared(owners);
        let pinned = secret.pinned.unwrap_or_default();
        Self {
            size: secret.size,
            mode: pinned.mode.map_or(shown.mode, |mode| mode & 0o777),
            uid: pinned.owner.unwrap_or(shown.uid),
            gid: pinned.group.unwrap_or(shown.gid),
            ..shown
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

    /// Presents an entry whose inode all callers share: where the kernel checks permissions, what
    /// one caller was shown decides about the next.
    pub(super) fn shared(self, owners: Owners) -> Self {
        let Owners::Fixed { uid, gid } = owners else { return self };
        let mode = match self.kind {
            FileKind::Directory => FIXED_DIRECTORY,
            FileKind::File => 0o600,
            FileKind::Link => self.mode,
        };
        Self { mode, uid, gid, ..self }
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
    use crate::model::{Gid, Uid};

    #[test]
    fn with_fixed_owners_all_callers_are_shown_the_same() {
        let owners = Owners::Fixed { uid: 7, gid: 8 };
        let shown = [1, 1000].map(|id| {
            let caller = Caller::with_ids(Uid(id), Gid(id));
            [(FileKind::Directory, 0o500), (FileKind::File, 0o400), (FileKind::Link, 0o777)].map(
                |(kind, mode)| {
                    Attributes::own(&caller, 9, kind, mode, Timestamp::UNIX_EPOCH).shared(owners)
                },
            )
        });
        assert_eq!(shown[0], shown[1]);
        assert_eq!(shown[0].map(|shown| shown.mode), [0o711, 0o600, 0o777]);
        assert!(shown[0].iter().all(|shown| (shown.uid, shown.gid) == (7, 8)));
    }

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
