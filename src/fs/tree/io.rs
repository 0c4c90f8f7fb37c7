//! read(2), write(2), close(2) and poll(2) on open handles.

use std::sync::Arc;

use super::Tree;
use crate::broker::BrokerError;
use crate::fs::control::Waker;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::{Chunk, Content, Handle, part};
use crate::fs::journal::Fate;
use crate::fs::writer::{Edition, Publication, Published, Writer};
use crate::model::{Caller, Request, Version};
use crate::system::SecretBytes;

impl Handle {
    /// Tells whether a flush has something to do.
    pub(in crate::fs) fn flush_blocks(&self) -> bool {
        match &self.content {
            Content::Gone(gone) => gone.is_unpublished(),
            Content::Restore(restore) => restore.has_bytes(),
            Content::Writer(writer) => writer.has_news(),
            Content::AuditLog(_)
            | Content::Backup(_)
            | Content::Bytes(_)
            | Content::Command(_)
            | Content::Directory(_)
            | Content::Events(_)
            | Content::Health(_)
            | Content::Scratch(_)
            | Content::Secret(_)
            | Content::Values(_) => false,
        }
    }
}

impl Tree {
    /// Tells whether a read may take long enough to be given to a worker.
    pub(in crate::fs) fn read_blocks(&self, caller: &Caller, handle: &Handle) -> bool {
        // A handle that was passed on is recorded for its new reader.
        matches!(handle.content, Content::AuditLog(_) | Content::Backup(_))
            || (caller.uid != handle.opener.uid && self.broker.reads_may_block())
    }

    /// Tells whether what a handle was opened with decides about a read by `uid`, too.
    pub(in crate::fs) fn is_known_reader(&self, uid: u32, handle: &Handle) -> bool {
        handle.opener.uid.0 == uid && !matches!(handle.content, Content::AuditLog(_))
    }

    /// Tells whether a write may take long enough to be given to a worker.
    pub(in crate::fs) fn write_blocks(&self, handle: &Handle) -> bool {
        if let Content::Writer(writer) = &handle.content {
            // The first write reads what it starts from.
            writer.len().is_none() && self.broker.reads_may_block()
        } else {
            matches!(handle.content, Content::Command(_) | Content::Restore(_))
        }
    }

    /// Reads at most `size` bytes. `paged`: they go into the kernel's page cache.
    pub(in crate::fs) fn read(
        &self,
        caller: &Caller,
        handle: &Handle,
        offset: u64,
        size: usize,
        paged: bool,
    ) -> Result<Chunk> {
        if paged {
            self.inodes.paged(handle.inode);
        }
        if caller.uid != handle.opener.uid {
            self.pass_on(caller, handle)?;
        }
        match &handle.content {
            Content::AuditLog(log) => {
                Ok(Chunk::Owned(self.broker.audit_log_read(caller, log, offset, size)?))
            }
            Content::Backup(backup) => {
                Ok(Chunk::Owned(backup.read(offset, size, self.patience())?))
            }
            Content::Bytes(bytes) => {
                Ok(Chunk::Shared(bytes.clone(), part(bytes.len(), offset, size)))
            }
            Content::Command(command) => Ok(Chunk::Owned(command.read(size))),
            Content::Directory(_) => Err(FsError::IsDirectory),
            Content::Events(events) => Ok(Chunk::Owned(events.read(offset, size))),
            Content::Gone(gone) => Err(gone.error()),
            Content::Health(health) => Ok(Chunk::Owned(health.read(offset, size))),
            Content::Restore(restore) => {
                let text: Arc<[u8]> = restore.text().into_bytes().into();
                let part = part(text.len(), offset, size);
                Ok(Chunk::Shared(text, part))
            }
            Content::Scratch(file) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(Chunk::whole(file.read(offset, size)?))
            }
            Content::Secret(pinned) => Ok(Chunk::of(pinned.value()?, offset, size)),
            Content::Values(values) => Ok(Chunk::of(values.get()?, offset, size)),
            Content::Writer(writer) => match (writer.read(offset, size)?, writer.pinned()) {
                (Some(collected), _) => Ok(Chunk::whole(collected)),
                (None, Some(pinned)) => Ok(Chunk::of(pinned.value()?, offset, size)),
                (None, None) => Err(FsError::BadHandle),
            },
        }
    }

    /// A handle that was passed on does not widen access: its new reader is asked for and recorded.
    fn pass_on(&self, caller: &Caller, handle: &Handle) -> Result<()> {
        let pinned = handle.pinned().ok_or(FsError::Access)?;
        pinned.pass_on(caller.uid, || {
            Ok(self.broker.read_passed_on(caller, &pinned.name, pinned.version)?)
        })
    }

    /// Writes to a handle, at `offset` or at the end. Returns how many bytes were taken: all.
    pub(in crate::fs) fn write(
        &self,
        caller: &Caller,
        handle: &Handle,
        offset: Option<u64>,
        data: &[u8],
    ) -> Result<u32> {
        match &handle.content {
            Content::Gone(gone) => return Err(gone.error()),
            Content::Restore(restore) => {
                own(caller, handle)?;
                restore.write(offset, data)?;
            }
            Content::Scratch(file) => {
                let offset =
                    offset.map(usize::try_from).transpose().map_err(|_| FsError::TooBig)?;
                file.write(offset, data, self.max_bytes(), self.clock.now())?;
            }
            Content::Writer(writer) => {
                // First: a server that dies in between must not seem to have lost nothing.
                self.handles.set_fate(handle, Fate::Unpublished);
                let base = || self.base(&handle.opener, &writer.name());
                writer.write(offset, data, base, |bytes| handle.ticket.lock().hold(bytes))?;
            }
            Content::AuditLog(_)
            | Content::Backup(_)
            | Content::Bytes(_)
            | Content::Command(_)
            | Content::Directory(_)
            | Content::Events(_)
            | Content::Health(_)
            | Content::Secret(_)
            | Content::Values(_) => return Err(FsError::BadHandle),
        }
        u32::try_from(data.len()).map_err(|_| FsError::TooBig)
    }

    /// Does a write that may block: as [`write`](Self::write), and it runs commands.
    pub(in crate::fs) fn write_or_run(
        &self,
        caller: &Caller,
        handle: &Handle,
        offset: Option<u64>,
        data: &SecretBytes,
    ) -> Result<u32> {
        let Content::Command(command) = &handle.content else {
            return self.write(caller, handle, offset, data.expose());
        };
        // A setuid program that writes to what it was handed must not command in its own name.
        own(caller, handle)?;
        command.run(&self.broker, &*self.host, caller, data)?;
        u32::try_from(data.len()).map_err(|_| FsError::TooBig)
    }

    /// Publishes what is new; may block. What it returns is close(2)'s or fsync(2)'s answer.
    pub(in crate::fs) fn flush(&self, request: Request, handle: &Handle) -> Result<()> {
        let opener = handle.opener.clone().asking(request);
        match &handle.content {
            Content::Gone(gone) => {
                if !self.broker.was_written(&opener) {
                    return Err(gone.error());
                }
                self.handles.set_fate(handle, Fate::Published);
                gone.was_published();
                Ok(())
            }
            Content::Restore(restore) => {
                restore.finish(&self.host, &opener, &self.last_restore, self.patience())
            }
            Content::Writer(writer) => {
                let published = writer.flush(|edition| self.publish(&opener, edition))?;
                self.published(handle, writer, published);
                Ok(())
            }
            Content::AuditLog(_)
            | Content::Backup(_)
            | Content::Bytes(_)
            | Content::Command(_)
            | Content::Directory(_)
            | Content::Events(_)
            | Content::Health(_)
            | Content::Scratch(_)
            | Content::Secret(_)
            | Content::Values(_) => Ok(()),
        }
    }

    /// Begins what [`flush`](Self::flush) does, for somebody who may not wait. `None`: it has to be
    /// called.
    pub(in crate::fs) fn begin_flush(&self, handle: &Handle) -> Result<Option<Publication>> {
        let Content::Writer(writer) = &handle.content else { return Ok(None) };
        // Its history has to come back first.
        if self.scratch.origin(handle.opener.uid.0, &writer.name()).is_some() {
            return Ok(None);
        }
        writer.begin()
    }

    /// Makes the version of a flush that has begun; calls `done`, which must not block, with
    /// close(2)'s or fsync(2)'s answer.
    pub(in crate::fs) fn publish_then(
        self: &Arc<Self>,
        request: Request,
        handle: &Arc<Handle>,
        publication: Publication,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let opener = handle.opener.clone().asking(request);
        let (tree, handle) = (Arc::clone(self), Arc::clone(handle));
        let Publication { edition: Edition { name, value, put }, rest } = publication;
        let end = move |outcome| {
            done(rest.end(outcome).map(|published| {
                if let Content::Writer(writer) = &handle.content {
                    tree.published(&handle, writer, Some(published));
                }
            }));
        };
        self.broker.write_then(&opener, &name, value, &put, end);
    }

    /// Notes what has become of a handle that was flushed.
    fn published(&self, handle: &Handle, writer: &Writer, published: Option<Published>) {
        if published == Some(Published::Further) {
            self.touch(&writer.name());
        }
        self.handles.set_fate(handle, writer.fate());
    }

    /// Makes a version. A secret that its editor has just renamed to a backup comes back first, so
    /// that its history and metadata stay its own.
    pub(super) fn publish(
        &self,
        opener: &Caller,
        edition: Edition,
    ) -> std::result::Result<Version, BrokerError> {
        let Edition { name, value, mut put } = edition;
        if let Some(id) = self.scratch.origin(opener.uid.0, &name) {
            match self.broker.restore(opener, id, None) {
                Ok(()) => put.create_new = false,
                Err(error) => tracing::debug!(name = %name, error = %error, "not restored"),
            }
            self.scratch.forget_origin(opener.uid.0, id);
        }
        self.broker.write(opener, &name, value, &put)
    }

    /// Closes a handle.
    pub(in crate::fs) fn release(&self, number: u64) {
        let Some(handle) = self.handles.remove(number) else { return };
        if let Content::Scratch(file) = &handle.content {
            file.released();
        } else if let Content::Writer(writer) = &handle.content
            && writer.has_news()
        {
            tracing::debug!(name = %writer.name(), "closed without having been published");
        }
        let (inode, pages) = (handle.inode, self.inodes.released(handle.inode, number));
        // The plaintext goes before the pages do.
        drop(handle);
        if pages {
            self.drop_pages(inode);
        }
    }

    /// Tells whether a handle can be read without waiting; if it cannot, keeps the waker, which comes
    /// with the kernel's number for those who wait.
    pub(in crate::fs) fn poll(&self, handle: &Handle, waker: Option<(u64, Waker)>) -> bool {
        let waker = waker.map(|(number, waker)| {
            self.handles.set_poll(handle, number);
            waker
        });
        if let Content::Events(events) = &handle.content {
            events.poll(waker)
        } else if let Content::Health(health) = &handle.content {
            health.poll(waker)
        } else {
            true
        }
    }
}

impl Chunk {
    fn whole(bytes: SecretBytes) -> Self {
        let all = 0..bytes.len();
        Self::Secret(bytes.into(), all)
    }

    fn of(bytes: Arc<SecretBytes>, offset: u64, size: usize) -> Self {
        let part = part(bytes.len(), offset, size);
        Self::Secret(bytes, part)
    }
}

fn own(caller: &Caller, handle: &Handle) -> Result<()> {
    if caller.uid == handle.opener.uid { Ok(()) } else { Err(FsError::Access) }
}
