//! Translates the kernel's requests into calls on the tree. No decisions are made here.
//!
//! Every method has the same shape: build the caller, make one call, reply. What may block is given
//! to a worker. A panic ends in EIO for the one request: the reply is dropped, and that answers it.

use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

mod reply;
mod whole;

use reply::{InHand, Listing, Sized, WithTree, number};
use whole::Whole;

use super::Identify;
use super::control::Waker;
use super::error::{FsError, Result};
use super::handle::{Chunk, Handle};
use super::tree::{Change, Renaming, Tree, Want};
use super::workers::{Reply, Workers};
use super::xattr::{Attribute, HOLDERS};
use crate::broker::{BrokerError, Replace, Sought};
use crate::model::{Caller, Gid, Request as Asked, Uid};
use crate::system::SecretBytes;

const MAX_WRITE: u32 = 128 << 10;

/// The adapter.
pub(super) struct Fuse {
    tree: Arc<Tree>,
    identify: Arc<dyn Identify>,
    workers: Arc<Workers>,
    device: Arc<OwnedFd>,
}

impl Fuse {
    /// Returns an adapter with no threads of its own yet.
    pub(super) fn new(
        tree: Arc<Tree>,
        identify: Arc<dyn Identify>,
        deadline: Duration,
        device: OwnedFd,
    ) -> Self {
        Self { tree, identify, workers: Arc::new(Workers::new(deadline)), device: Arc::new(device) }
    }

    fn caller(&self, request: &Request) -> Caller {
        let caller = self.identify.identify(request.uid(), request.gid(), request.pid());
        caller.asking(asked(request))
    }

    fn glimpse(&self, request: &Request) -> Caller {
        let caller = self.identify.glimpse(request.uid(), request.gid(), request.pid());
        caller.asking(asked(request))
    }

    /// Notes that a request is in hand and answers it; see the head of this file for what a panic
    /// does.
    fn guarded(&self, request: &Request, answer: impl FnOnce()) {
        let asked = asked(request);
        if asked.resent && self.tree.is_poison(asked.number) {
            // Its reply goes unused, and that answers it with EIO.
            let _at_work = self.tree.work().begin(asked);
            drop(answer);
            tracing::error!(request = asked.number, "a request that ends servers is refused");
            return;
        }
        let _at_work = self.tree.work().begin(asked);
        // After it is noted, so that who shuts the gate sees it.
        if self.tree.is_shut() {
            // Without an answer the kernel sends it again, to the next server.
            self.tree.work().leave();
            let _unanswered = ManuallyDrop::new(answer);
            return;
        }
        if catch_unwind(AssertUnwindSafe(answer)).is_err() {
            tracing::error!("a request panicked");
        }
    }

    /// Returns who reads from a handle. Its opener is known already; anybody else is looked at.
    fn reader(&self, request: &Request, handle: &Handle) -> Caller {
        if self.tree.is_known_reader(request.uid(), handle) {
            let caller = Caller::with_ids(Uid(request.uid()), Gid(request.gid()));
            return caller.asking(asked(request));
        }
        self.caller(request)
    }

    /// Returns who writes to a handle. Commands are done in their caller's name; anything else was
    /// decided when it was opened, and only whose the write is matters.
    fn writer(&self, request: &Request, handle: &Handle) -> Caller {
        if self.tree.write_blocks(handle) {
            return self.caller(request);
        }
        Caller::with_ids(Uid(request.uid()), Gid(request.gid())).asking(asked(request))
    }

    /// Replies with an answer that is there; but while there can be none for a moment, a worker makes
    /// the call that `again` returns: see [`Tree::patiently`].
    fn reply<R: Reply, F>(
        &self,
        request: &Request,
        reply: R,
        answer: Result<R::Answer>,
        again: impl FnOnce() -> F,
    ) where
        F: Fn(&Tree) -> Result<R::Answer> + Send + 'static,
    {
        match answer {
            Err(FsError::Broker(BrokerError::Changing(_) | BrokerError::Verifying)) => {
                let (again, deadline) = (again(), self.workers.deadline());
                self.work(request, reply, move |tree| tree.patiently(deadline, again));
            }
            Err(FsError::Broker(BrokerError::Elsewhere(sought))) => {
                self.fetched(request, reply, &sought, again());
            }
            answer => reply.send(answer),
        }
    }

    /// Replies once a secret was fetched from the service that keeps it. However many wait for it, no
    /// thread does: whoever fetches it makes their calls, one after the other.
    fn fetched<R: Reply, F>(&self, request: &Request, reply: R, sought: &Sought, again: F)
    where
        F: Fn(&Tree) -> Result<R::Answer> + Send + 'static,
    {
        let queued = Arc::new(self.tree.work().queue());
        queued.begin();
        let Some(promise) = self.workers.promise(InHand { reply, queued }) else { return };
        let (tree, workers, uid) = (self.tree.clone(), self.workers.clone(), request.uid());
        self.tree.fetch_then(sought, move || {
            if promise.is_late() {
                // What is not answered any more is not to be on record as read.
                return;
            }
            match again(&tree) {
                // It is to be waited for once more, which nobody else's call may be held up by.
                Err(FsError::Broker(
                    BrokerError::Changing(_) | BrokerError::Elsewhere(_) | BrokerError::Verifying,
                )) => {
                    let deadline = workers.deadline();
                    workers.submit(uid, promise, move || tree.patiently(deadline, again));
                }
                answer => promise.keep(answer),
            }
        });
    }

    fn work<R: Reply>(
        &self,
        request: &Request,
        reply: R,
        call: impl FnOnce(&Tree) -> Result<R::Answer> + Send + 'static,
    ) {
        let (tree, queued) = (self.tree.clone(), Arc::new(self.tree.work().queue()));
        let reply = InHand { reply, queued: queued.clone() };
        self.workers.submit(request.uid(), reply, move || {
            queued.begin();
            call(&tree)
        });
    }

    fn whole<R>(&self, request: &Request, reply: R) -> Whole<R> {
        Whole::new(request, reply, self.device.clone())
    }

    fn with<R>(&self, request: &Request, reply: R) -> WithTree<Whole<R>> {
        WithTree { tree: self.tree.clone(), reply: self.whole(request, reply) }
    }

    /// Finds a handle, or answers that there is none.
    fn handle<R: Reply>(&self, number: FileHandle, reply: R) -> Option<(Arc<Handle>, R)> {
        match self.tree.handle(number.0) {
            Ok(handle) => Some((handle, reply)),
            Err(error) => {
                reply.send(Err(error));
                None
            }
        }
    }

    fn flush_or_sync(&self, request: &Request, number: FileHandle, reply: ReplyEmpty) {
        let Some((handle, reply)) = self.handle(number, reply) else { return };
        if !handle.flush_blocks() {
            return reply.ok();
        }
        let asked = asked(request);
        match self.tree.begin_flush(&handle) {
            Ok(None) => self.work(request, reply, move |tree| tree.flush(asked, &handle)),
            Ok(Some(publication)) => {
                // The broker's writer answers by itself: no thread waits for it meanwhile.
                let queued = Arc::new(self.tree.work().queue());
                queued.begin();
                let Some(promise) = self.workers.promise(InHand { reply, queued }) else { return };
                let done = move |answer| promise.keep(answer);
                self.tree.publish_then(asked, &handle, publication, done);
            }
            Err(error) => reply.send(Err(error)),
        }
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The page cache must never decide for us: see docs on why the other flags stay off.
        for flag in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            if config.add_capabilities(flag).is_err() {
                tracing::info!(flag = ?flag, "not known to this kernel");
            }
        }
        if let Err(nearest) = config.set_max_write(MAX_WRITE) {
            tracing::warn!(nearest, "the kernel's largest write was not lowered");
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guarded(request, || {
            if self.tree.is_toucher(request.pid()) {
                let answer = self.tree.lookup_to_touch(parent.0, name.as_bytes());
                return self.with(request, reply).send(answer);
            }
            let caller = self.glimpse(request);
            let answer = self.tree.lookup(&caller, parent.0, name.as_bytes());
            self.reply(request, self.with(request, reply), answer, || {
                let name = name.to_owned();
                move |tree: &Tree| tree.lookup(&caller, parent.0, name.as_bytes())
            });
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, count: u64) {
        // Not noted: it has no answer, and does not come again.
        if !self.tree.is_shut() {
            self.tree.forget(inode.0, count);
        }
    }

    fn getattr(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.guarded(request, || {
            let caller = self.glimpse(request);
            let handle = handle.map(|handle| handle.0);
            let answer = self.tree.attributes(&caller, inode.0, handle);
            self.reply(request, reply, answer, || {
                move |tree: &Tree| tree.attributes(&caller, inode.0, handle)
            });
        });
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.guarded(request, || {
            let caller = self.glimpse(request);
            let handle = handle.map(|handle| handle.0);
            let change = Change { mode, uid, gid, size };
            let answer = self.tree.set_attributes(&caller, inode.0, handle, change);
            self.reply(request, reply, answer, || {
                move |tree: &Tree| tree.set_attributes(&caller, inode.0, handle, change)
            });
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let answer = self.tree.access(&caller, inode.0, mask.bits());
            self.reply(request, reply, answer, || {
                move |tree: &Tree| tree.access(&caller, inode.0, mask.bits())
            });
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let link =
                move |tree: &Tree| Ok(Chunk::Owned(tree.read_link(&caller, inode.0)?.into_bytes()));
            self.reply(request, self.whole(request, reply), link.clone()(&self.tree), || link);
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.guarded(request, || {
            let reply = self.with(request, reply);
            if self.tree.is_toucher(request.pid()) {
                return reply.send(self.tree.open_to_touch(inode.0));
            }
            let caller = self.caller(request);
            let want = Want::from_flags(flags.0);
            if self.tree.open_blocks(inode.0) {
                let deadline = self.workers.deadline();
                return self.work(request, reply, move |tree| {
                    tree.patiently(deadline, |tree| tree.open(&caller, inode.0, want))
                });
            }
            let answer = self.tree.open(&caller, inode.0, want);
            self.reply(request, reply, answer, || {
                move |tree: &Tree| tree.open(&caller, inode.0, want)
            });
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let want = Want::from_flags(flags);
            let answer = self.tree.create(&caller, parent.0, name.as_bytes(), want);
            let reply = WithTree { tree: self.tree.clone(), reply };
            self.reply(request, reply, answer, || {
                let name = name.to_owned();
                move |tree: &Tree| tree.create(&caller, parent.0, name.as_bytes(), want)
            });
        });
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.guarded(request, || {
            let Some((handle, reply)) = self.handle(handle, self.whole(request, reply)) else {
                return;
            };
            let caller = self.reader(request, &handle);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            // Only a read for the kernel's own pages has no owner (mmap, sendfile, readahead).
            let paged = owner.is_none();
            if self.tree.read_blocks(&caller, &handle) {
                return self.work(request, reply, move |tree| {
                    tree.read(&caller, &handle, offset, size, paged)
                });
            }
            reply.send(self.tree.read(&caller, &handle, offset, size, paged));
        });
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.guarded(request, || {
            let Some((handle, reply)) = self.handle(handle, reply) else { return };
            if self.tree.is_draining() && !handle.flush_blocks() {
                // The bytes are to be the next server's.
                self.tree.work().leave();
                let _unanswered = ManuallyDrop::new(reply);
                return;
            }
            let caller = self.writer(request, &handle);
            // The kernel takes the end of an append from an inode that all callers share.
            let offset = (flags.0 & libc::O_APPEND == 0).then_some(offset);
            if self.tree.write_blocks(&handle) {
                return match SecretBytes::copy_from(data) {
                    Ok(data) => self.work(request, reply, move |tree| {
                        tree.write_or_run(&caller, &handle, offset, &data)
                    }),
                    Err(error) => reply.send(Err(error.into())),
                };
            }
            reply.send(self.tree.write(&caller, &handle, offset, data));
        });
    }

    fn flush(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || self.flush_or_sync(request, handle, reply));
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.guarded(request, || self.flush_or_sync(request, handle, reply));
    }

    fn release(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || {
            self.tree.release(handle.0);
            reply.ok();
        });
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let answer = self.tree.open_directory(&caller, inode.0);
            self.reply(request, self.with(request, reply), answer, || {
                move |tree: &Tree| tree.open_directory(&caller, inode.0)
            });
        });
    }

    fn readdir(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.guarded(request, || {
            let (tree, caller) = (self.tree.clone(), self.caller(request));
            let mut listing = Listing { tree, caller, handle: handle.0, offset, reply };
            match listing.fill() {
                Err(FsError::Broker(BrokerError::Verifying)) => {
                    let deadline = self.workers.deadline();
                    self.work(request, listing, move |tree| tree.wait_verified(deadline));
                }
                answer => listing.finish(answer),
            }
        });
    }

    fn releasedir(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || {
            self.tree.release(handle.0);
            reply.ok();
        });
    }

    fn fsyncdir(&self, request: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Every change was durable when it was answered.
        self.guarded(request, || reply.ok());
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.guarded(request, || {
            let (caller, name) = (self.caller(request), name.to_owned());
            self.work(request, self.with(request, reply), move |tree| {
                tree.make_directory(&caller, parent.0, name.as_bytes())
            });
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(request, || {
            let (caller, name) = (self.caller(request), name.to_owned());
            self.work(request, reply, move |tree| tree.unlink(&caller, parent.0, name.as_bytes()));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(request, || {
            let (caller, name) = (self.caller(request), name.to_owned());
            self.work(request, reply, move |tree| {
                tree.remove_directory(&caller, parent.0, name.as_bytes())
            });
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || {
            if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
                return reply.error(Errno::EINVAL);
            }
            let caller = self.caller(request);
            let renaming = Renaming {
                parent: parent.0,
                name: name.as_bytes().into(),
                new_parent: new_parent.0,
                new_name: new_name.as_bytes().into(),
                replace: if flags.is_empty() { Replace::Allowed } else { Replace::Refused },
            };
            self.work(request, reply, move |tree| tree.rename(&caller, &renaming));
        });
    }

    fn link(
        &self,
        request: &Request,
        _: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let refused = self.tree.refuse_link(&caller, parent.0, name.as_bytes());
            reply.error(refused.map_or_else(|error| number(&error), |()| Errno::EPERM));
        });
    }

    fn symlink(&self, request: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        self.guarded(request, || reply.error(Errno::EPERM));
    }

    fn mknod(
        &self,
        request: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.guarded(request, || reply.error(Errno::EPERM));
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Counts would tell what others make and remove.
        self.guarded(request, || reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096));
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        if name == HOLDERS {
            return self.guarded(request, || {
                let caller = self.caller(request);
                self.work(request, Sized { reply, size }, move |tree| {
                    tree.holders(&caller, inode.0)
                });
            });
        }
        // The kernel asks for `security.capability` at each O_TRUNC: there is nobody to ask for.
        if let Err(error) = Attribute::find(name.as_bytes()) {
            return reply.error(number(&error));
        }
        self.guarded(request, || {
            let caller = self.caller(request);
            let answer = self.tree.attribute(&caller, inode.0, name.as_bytes());
            self.reply(request, Sized { reply, size }, answer, || {
                let name = name.to_owned();
                move |tree: &Tree| tree.attribute(&caller, inode.0, name.as_bytes())
            });
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.guarded(request, || {
            let caller = self.caller(request);
            let answer = self.tree.attribute_names(&caller, inode.0);
            self.reply(request, Sized { reply, size }, answer, || {
                move |tree: &Tree| tree.attribute_names(&caller, inode.0)
            });
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || {
            let (caller, name, value) = (self.caller(request), name.to_owned(), value.to_vec());
            self.work(request, reply, move |tree| {
                tree.set_attribute(&caller, inode.0, name.as_bytes(), Some(&value), flags)
            });
        });
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(request, || {
            let (caller, name) = (self.caller(request), name.to_owned());
            self.work(request, reply, move |tree| {
                tree.set_attribute(&caller, inode.0, name.as_bytes(), None, 0)
            });
        });
    }

    fn poll(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        self.guarded(request, || {
            let Some((handle, reply)) = self.handle(handle, reply) else { return };
            let wake = || -> (u64, Waker) {
                let number = notifier.handle().0;
                let waker = move || {
                    if let Err(error) = notifier.notify() {
                        tracing::debug!(error = %error, "nobody was woken");
                    }
                };
                (number, Box::new(waker))
            };
            let waker = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(wake);
            // The kernel always asks for errors and hang-ups too, of which there are none.
            let mut ready = PollEvents::POLLOUT | PollEvents::POLLWRNORM;
            if self.tree.poll(&handle, waker) {
                ready |= PollEvents::POLLIN | PollEvents::POLLRDNORM;
            }
            reply.poll(events & ready);
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, || reply.error(Errno::EOPNOTSUPP));
    }

    fn ioctl(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.guarded(request, || reply.error(Errno::ENOTTY));
    }

    /// ENOSYS lets the kernel do it by itself from now on, here and in the next method.
    fn lseek(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: i64,
        _: i32,
        reply: ReplyLseek,
    ) {
        self.guarded(request, || reply.error(Errno::ENOSYS));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.guarded(request, || reply.error(Errno::ENOSYS));
    }
}

fn asked(request: &Request) -> Asked {
    Asked::from_kernel(request.unique().0)
}
