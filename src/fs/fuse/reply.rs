//! How an answer of the tree becomes a reply to the kernel.
//!
//! A handle or a lookup is counted as its reply is sent, not before: whatever was not told to the
//! kernel need not be taken back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, PollEvents, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll,
    ReplyWrite, ReplyXattr,
};

use super::whole::Whole;
use crate::fs::attributes::{Attributes, FileKind};
use crate::fs::errno::errno;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::Chunk;
use crate::fs::journal::Queued;
use crate::fs::tree::{Entry, OpenMode, Opening, Tree};
use crate::fs::workers::Reply;
use crate::model::Caller;

/// Nothing that one caller was told is kept for the next.
const TTL: Duration = Duration::ZERO;

/// A reply whose answer is counted in the tree as it is sent.
pub(super) struct WithTree<R> {
    pub(super) tree: Arc<Tree>,
    pub(super) reply: R,
}

/// A reply of a worker; its request is in hand until it is sent.
pub(super) struct InHand<R> {
    pub(super) reply: R,
    pub(super) queued: Arc<Queued>,
}

/// A reply to a caller who has room for so many bytes; 0 asks how many there are.
pub(super) struct Sized {
    pub(super) reply: ReplyXattr,
    pub(super) size: u32,
}

/// A reply that is filled with entries as it is sent.
pub(super) struct Listing {
    pub(super) tree: Arc<Tree>,
    pub(super) caller: Caller,
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) reply: ReplyDirectory,
}

impl Listing {
    pub(super) fn fill(&mut self) -> Result<()> {
        let Self { tree, caller, handle, offset, reply } = self;
        tree.read_directory(caller, *handle, *offset, |item, next| {
            reply.add(INodeNo(item.inode), next, file_type(item.kind), &*item.name)
        })
    }

    pub(super) fn finish(self, filled: Result<()>) {
        match filled {
            Ok(()) => self.reply.ok(),
            Err(error) => self.reply.error(number(&error)),
        }
    }
}

impl Reply for Listing {
    type Answer = ();

    fn send(mut self, answer: Result<()>) {
        let filled = answer.and_then(|()| self.fill());
        self.finish(filled);
    }
}

impl<R: Reply> Reply for InHand<R> {
    type Answer = R::Answer;

    fn send(self, answer: Result<R::Answer>) {
        let Self { reply, queued } = self;
        reply.send(answer);
        drop(queued);
    }
}

impl Reply for WithTree<Whole<ReplyEntry>> {
    type Answer = Entry;

    fn send(self, answer: Result<Entry>) {
        match answer {
            Ok(entry) => {
                self.tree.remember(&entry);
                self.reply.entry(&entry.attributes);
            }
            Err(error) => self.reply.otherwise().error(number(&error)),
        }
    }
}

impl Reply for WithTree<Whole<ReplyOpen>> {
    type Answer = Opening;

    fn send(self, answer: Result<Opening>) {
        match answer {
            Ok(opening) => {
                let flags = fopen_flags(opening.mode);
                match self.tree.register(opening) {
                    Ok(handle) => self.reply.opened(handle, flags),
                    Err(error) => self.reply.otherwise().error(number(&error)),
                }
            }
            Err(error) => self.reply.otherwise().error(number(&error)),
        }
    }
}

impl Reply for WithTree<ReplyCreate> {
    type Answer = (Entry, Opening);

    fn send(self, answer: Result<(Entry, Opening)>) {
        match answer {
            Ok((entry, opening)) => {
                let flags = fopen_flags(opening.mode);
                self.tree.remember(&entry);
                let handle = match self.tree.register(opening) {
                    Ok(handle) => FileHandle(handle),
                    Err(error) => {
                        self.tree.forget(entry.attributes.inode, 1);
                        return self.reply.error(number(&error));
                    }
                };
                let attr = file_attr(&entry.attributes);
                self.reply.created(&TTL, &attr, Generation(0), handle, flags);
            }
            Err(error) => self.reply.error(number(&error)),
        }
    }
}

impl Reply for ReplyAttr {
    type Answer = Attributes;

    fn send(self, answer: Result<Attributes>) {
        match answer {
            Ok(attributes) => self.attr(&TTL, &file_attr(&attributes)),
            Err(error) => self.error(number(&error)),
        }
    }
}

impl Reply for Whole<ReplyData> {
    type Answer = Chunk;

    fn send(self, answer: Result<Chunk>) {
        match answer {
            Ok(chunk) => self.data(chunk.bytes()),
            Err(error) => self.otherwise().error(number(&error)),
        }
    }
}

impl Reply for ReplyEmpty {
    type Answer = ();

    fn send(self, answer: Result<()>) {
        match answer {
            Ok(()) => self.ok(),
            Err(error) => self.error(number(&error)),
        }
    }
}

impl Reply for ReplyPoll {
    type Answer = PollEvents;

    fn send(self, answer: Result<PollEvents>) {
        match answer {
            Ok(events) => self.poll(events),
            Err(error) => self.error(number(&error)),
        }
    }
}

impl Reply for ReplyWrite {
    type Answer = u32;

    fn send(self, answer: Result<u32>) {
        match answer {
            Ok(bytes) => self.written(bytes),
            Err(error) => self.error(number(&error)),
        }
    }
}

impl Reply for Sized {
    type Answer = Vec<u8>;

    fn send(self, answer: Result<Vec<u8>>) {
        let Self { reply, size } = self;
        match answer {
            Ok(bytes) => match u32::try_from(bytes.len()) {
                Ok(len) if size == 0 => reply.size(len),
                Ok(len) if len <= size => reply.data(&bytes),
                Ok(_) | Err(_) => reply.error(Errno::ERANGE),
            },
            Err(error) => reply.error(number(&error)),
        }
    }
}

/// Returns the kernel's number for an error.
pub(super) fn number(error: &FsError) -> Errno {
    Errno::from_i32(errno(error))
}

fn fopen_flags(mode: OpenMode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, mode.direct);
    flags.set(FopenFlags::FOPEN_NOFLUSH, mode.no_flush);
    flags.set(FopenFlags::FOPEN_STREAM | FopenFlags::FOPEN_NONSEEKABLE, mode.stream);
    flags
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Link => FileType::Symlink,
    }
}

fn file_attr(attributes: &Attributes) -> FileAttr {
    let modified = SystemTime::from(attributes.modified);
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links(),
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
