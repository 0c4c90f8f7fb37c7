//! Replies to the requests that a read is made of, each handed to the kernel in one piece.
//!
//! fuser hands over a reply's header and the rest as two, and the kernel looks up the page of each: a read cost 2.5 %
//! more (docs/FIGURES.md). Errors, and values too large to be copied for it, go fuser's way.

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{FopenFlags, ReplyData, ReplyEntry, ReplyOpen, Request};
use nix::unistd::write;
use zerocopy::{Immutable, IntoBytes};

use crate::fs::attributes::{Attributes, FileKind};
use crate::fs::takeover::header;
use crate::system::{MemoryError, SecretBytes};

/// A reply of fuser's, and what it takes to answer without it.
pub(super) struct Whole<R> {
    /// Dropped, it answers EIO.
    reply: R,
    device: Arc<OwnedFd>,
    request: u64,
}

/// The longest reply for which bytes are copied: a page.
const MOST_BYTES: usize = 4096;

/// Has its bytes within one page.
#[repr(align(256))]
struct InOnePage<T>(T);

/// `struct fuse_out_header` of <linux/fuse.h>; those below follow it.
type Header = [u8; 16];

/// `struct fuse_entry_out`. No time is given for which it is valid.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct EntryReply {
    header: Header,
    nodeid: u64,
    generation: u64,
    entry_valid: u64,
    attr_valid: u64,
    valid_nsec: [u32; 2],
    ino: u64,
    size: u64,
    blocks: u64,
    seconds: [u64; 3],
    nanoseconds: [u32; 3],
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    blksize: u32,
    flags: u32,
}

/// `struct fuse_open_out`.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct OpenReply {
    header: Header,
    fh: u64,
    open_flags: u32,
    backing_id: i32,
}

impl<R> Whole<R> {
    /// Returns what answers `request`, by `reply` or without it.
    pub(super) fn new(request: &Request, reply: R, device: Arc<OwnedFd>) -> Self {
        Self { reply, device, request: request.unique().0 }
    }

    /// Returns fuser's own reply, for whatever is not answered here.
    pub(super) fn otherwise(self) -> R {
        self.reply
    }

    fn header(&self, len: usize) -> Header {
        header(u32::try_from(len).unwrap_or(u32::MAX), 0, self.request)
    }

    fn send(self, piece: &[u8]) {
        if let Err(error) = write(&self.device, piece) {
            // Nobody waits for it any more.
            tracing::debug!(%error, "a reply was not taken");
        }
        // It would answer once more. What it shares with the session, the device, stays open as long as the process.
        let _answered = ManuallyDrop::new(self.reply);
    }
}

impl Whole<ReplyEntry> {
    /// Answers with an entry.
    pub(super) fn entry(self, attributes: &Attributes) {
        let modified = attributes.modified;
        let kind = match attributes.kind {
            FileKind::Directory => libc::S_IFDIR,
            FileKind::File => libc::S_IFREG,
            FileKind::Link => libc::S_IFLNK,
        };
        let reply = InOnePage(EntryReply {
            header: self.header(size_of::<EntryReply>()),
            nodeid: attributes.inode,
            generation: 0,
            entry_valid: 0,
            attr_valid: 0,
            valid_nsec: [0; 2],
            ino: attributes.inode,
            size: attributes.size,
            blocks: attributes.size.div_ceil(512),
            seconds: [modified.as_second().cast_unsigned(); 3],
            nanoseconds: [modified.subsec_nanosecond().cast_unsigned(); 3],
            mode: kind | u32::from(attributes.mode),
            nlink: attributes.links(),
            uid: attributes.uid,
            gid: attributes.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        });
        self.send(reply.0.as_bytes());
    }
}

impl Whole<ReplyOpen> {
    /// Answers with a handle.
    pub(super) fn opened(self, handle: u64, flags: FopenFlags) {
        let reply = InOnePage(OpenReply {
            header: self.header(size_of::<OpenReply>()),
            fh: handle,
            open_flags: flags.bits(),
            backing_id: 0,
        });
        self.send(reply.0.as_bytes());
    }
}

impl Whole<ReplyData> {
    /// Answers with bytes, which are copied into locked memory for it if they are few.
    pub(super) fn data(self, bytes: &[u8]) {
        match self.piece(bytes) {
            Some(piece) => self.send(piece.expose()),
            None => self.reply.data(bytes),
        }
    }

    fn piece(&self, bytes: &[u8]) -> Option<SecretBytes> {
        let len = size_of::<Header>() + bytes.len();
        let header = self.header(len);
        let fill = |room: &mut [u8]| {
            let (head, rest) = room.split_at_mut(size_of::<Header>());
            head.copy_from_slice(&header);
            rest.copy_from_slice(bytes);
            Ok::<_, MemoryError>(len)
        };
        // Without locked memory there is still fuser's way.
        if len <= MOST_BYTES { SecretBytes::with_len(len, fill).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_replies_are_as_long_as_the_kernel_s_and_their_fields_where_it_looks() {
        // sizeof and offsetof in <linux/fuse.h>, behind a header of 16 bytes.
        assert_eq!(size_of::<EntryReply>(), 16 + 128);
        assert_eq!(offset_of!(EntryReply, ino), 16 + 40);
        assert_eq!(offset_of!(EntryReply, mode), 16 + 40 + 60);
        assert_eq!(offset_of!(EntryReply, flags), 16 + 40 + 84);
        assert_eq!(size_of::<OpenReply>(), 16 + 16);
        assert_eq!(offset_of!(OpenReply, open_flags), 16 + 8);
    }

    #[test]
    fn a_reply_lies_within_one_page() {
        assert!(align_of::<InOnePage<EntryReply>>() >= size_of::<EntryReply>());
        assert!(align_of::<InOnePage<OpenReply>>() >= size_of::<OpenReply>());
    }
}
