//! A handle that collects bytes and publishes them as a version.
//!
//! Nothing is published by opening or truncating: only a flush that follows new data makes a
//! version, and what was written before goes into it whole.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::draft::Hold;
use super::error::{FsError, Result};
use super::handle::Pinned;
use super::journal::{Fate, Traits};
use crate::broker::{BrokerError, Put};
use crate::model::{SecretName, Version};
use crate::system::{SecretBuffer, SecretBytes};

/// The writing side of a handle.
#[derive(Debug)]
pub(super) struct Writer {
    name: SecretName,
    /// The version that a handle for reading and writing shows until it is written to.
    pinned: Option<Pinned>,
    draft: Option<Hold>,
    max_bytes: usize,
    /// The thread that opened it: O_TRUNC comes as a request of its own that names no handle.
    opened_by: Option<u32>,
    state: Mutex<State>,
    /// Set for the whole of a publication; never locked together with `state`.
    publishing: Mutex<bool>,
    published: Condvar,
}

#[derive(Debug)]
struct State {
    bytes: Bytes,
    /// Counts the writes, so that a write during a publication is not lost.
    writes: u64,
    published: u64,
    /// A write was refused: what is here is not what the program meant to store.
    torn: bool,
    put: Put,
    /// Nothing has been done with the handle.
    fresh: bool,
}

#[derive(Debug)]
enum Bytes {
    /// What the handle starts from has not been needed yet.
    Base,
    Buffer(SecretBuffer),
    Sealed,
}

/// A version that is to be published.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) name: SecretName,
    pub(super) value: SecretBytes,
    pub(super) put: Put,
}

/// A publication that has begun.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) edition: Edition,
    pub(super) rest: Rest,
}

/// What is left to do of a publication once its outcome is known.
#[derive(Debug)]
pub(super) struct Rest {
    turn: Turn<Arc<Writer>>,
    writes: u64,
}

/// Which version of its handle was published: the handle's one close tells watchers of one version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Published {
    First,
    Further,
}

impl Rest {
    /// Takes note of the outcome and lets the next publication begin.
    pub(super) fn end(
        self,
        outcome: std::result::Result<Version, BrokerError>,
    ) -> Result<Published> {
        Ok(self.turn.0.note_published(self.writes, outcome?))
    }
}

/// The right to publish; ends when it is dropped.
#[derive(Debug)]
struct Turn<W: Deref<Target = Writer>>(W);

impl<W: Deref<Target = Writer>> Turn<W> {
    fn wait(writer: W) -> Self {
        let mut publishing = writer.publishing.lock();
        while *publishing {
            writer.published.wait(&mut publishing);
        }
        *publishing = true;
        drop(publishing);
        Self(writer)
    }

    fn take(writer: W) -> Option<Self> {
        let was_taken = std::mem::replace(&mut *writer.publishing.lock(), true);
        (!was_taken).then(|| Self(writer))
    }
}

impl<W: Deref<Target = Writer>> Drop for Turn<W> {
    fn drop(&mut self) {
        *self.0.publishing.lock() = false;
        self.0.published.notify_one();
    }
}

impl Writer {
    /// Returns a writer of `name` that has written nothing.
    pub(super) fn new(name: SecretName, put: Put, max_bytes: u64) -> Self {
        Self {
            name,
            pinned: None,
            draft: None,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            opened_by: None,
            state: Mutex::new(State {
                bytes: Bytes::Base,
                writes: 0,
                published: 0,
                torn: false,
                put,
                fresh: true,
            }),
            publishing: Mutex::new(false),
            published: Condvar::new(),
        }
    }

    /// Lets the handle read a version too.
    pub(super) fn reading(self, pinned: Pinned) -> Self {
        Self { pinned: Some(pinned), ..self }
    }

    /// Lets the handle hold a draft: there is no base, and nobody else sees the name.
    pub(super) fn drafting(self, hold: Hold) -> Self {
        self.state.lock().bytes = Bytes::Buffer(SecretBuffer::new());
        Self { draft: Some(hold), ..self }
    }

    /// Notes which thread opened it.
    pub(super) fn opened_by(self, tid: Option<u32>) -> Self {
        Self { opened_by: tid, ..self }
    }

    /// Returns the version that may be read.
    pub(super) fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Returns the name that is written to.
    pub(super) fn name(&self) -> SecretName {
        self.draft.as_ref().map_or_else(|| self.name.clone(), Hold::name)
    }

    /// Returns the length in bytes of what was collected, if anything was.
    pub(super) fn len(&self) -> Option<u64> {
        match &self.state.lock().bytes {
            Bytes::Buffer(buffer) => Some(buffer.len() as u64),
            Bytes::Base | Bytes::Sealed => None,
        }
    }

    /// Tells whether an O_TRUNC of that thread is meant for this handle.
    pub(super) fn awaits_truncation(&self, tid: Option<u32>) -> bool {
        self.opened_by == tid && self.state.lock().fresh
    }

    /// Writes at an offset, or at the end. `base` is asked for what the handle starts from, if that
    /// is needed. `admit` is asked whether the handle may hold so many bytes. Errors: `TooBig`,
    /// `Sealed`. After one, nothing is published until the handle is truncated to nothing.
    pub(super) fn write(
        &self,
        offset: Option<u64>,
        data: &[u8],
        base: impl FnOnce() -> Result<Option<SecretBytes>>,
        admit: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        let written = self.load(base).and_then(|()| self.put(offset, data, admit));
        written.inspect_err(|_| self.state.lock().torn = true)
    }

    fn put(
        &self,
        offset: Option<u64>,
        data: &[u8],
        admit: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let Bytes::Buffer(buffer) = &mut state.bytes else { return Err(FsError::Sealed) };
        let offset = match offset {
            Some(offset) => usize::try_from(offset).map_err(|_| FsError::TooBig)?,
            None => buffer.len(),
        };
        let end = offset.checked_add(data.len()).filter(|end| *end <= self.max_bytes);
        admit(end.ok_or(FsError::TooBig)? as u64)?;
        buffer.write_at(offset, data)?;
        let len = buffer.len() as u64;
        state.writes += 1;
        drop(state);
        self.draft.iter().for_each(|draft| draft.set_len(len));
        Ok(())
    }

    /// Sets the length. A cut or a hole is new data; to cut everything off is not, for that is how
    /// a shell begins to write.
    pub(super) fn truncate(
        &self,
        len: u64,
        base: impl FnOnce() -> Result<Option<SecretBytes>>,
    ) -> Result<()> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.max_bytes);
        let len = len.ok_or(FsError::TooBig)?;
        if len > 0 {
            self.load(base)?;
        }
        let mut state = self.state.lock();
        state.fresh = false;
        state.torn &= len > 0;
        match &mut state.bytes {
            Bytes::Base => state.bytes = Bytes::Buffer(SecretBuffer::new()),
            Bytes::Buffer(buffer) => {
                let changes = len > 0 && buffer.len() != len;
                buffer.truncate(len)?;
                state.writes += u64::from(changes);
            }
            Bytes::Sealed => return Err(FsError::Sealed),
        }
        drop(state);
        self.draft.iter().for_each(|draft| draft.set_len(len as u64));
        Ok(())
    }

    /// Copies what a read of `size` bytes at `offset` asks for out of what was collected. `None`:
    /// nothing was, and the pinned version is to be read.
    pub(super) fn read(&self, offset: u64, size: usize) -> Result<Option<SecretBytes>> {
        match &self.state.lock().bytes {
            Bytes::Base => Ok(None),
            Bytes::Buffer(buffer) => {
                let part = super::handle::part(buffer.len(), offset, size);
                let bytes = buffer.expose().get(part).unwrap_or_default();
                Ok(Some(SecretBytes::copy_from(bytes)?))
            }
            Bytes::Sealed => Err(FsError::Sealed),
        }
    }

    /// Returns what has become of what was written.
    pub(super) fn fate(&self) -> Fate {
        let state = self.state.lock();
        if state.writes > state.published || state.torn {
            return Fate::Unpublished;
        }
        match (state.writes, state.fresh) {
            (0, true) => Fate::Fresh,
            (0, false) => Fate::Emptied,
            (_, _) => Fate::Published,
        }
    }

    /// Returns what else the next server has to know.
    pub(super) fn traits(&self) -> Traits {
        Traits {
            draft: self.draft.is_some(),
            create_new: self.state.lock().put.create_new,
            reads: self.pinned.is_some(),
        }
    }

    /// Tells whether a flush would publish something.
    pub(super) fn has_news(&self) -> bool {
        let state = self.state.lock();
        state.writes > state.published
    }

    /// Publishes what is new by `publish`, one publication at a time. `None`: there was nothing new.
    pub(super) fn flush(
        &self,
        publish: impl FnOnce(Edition) -> std::result::Result<Version, BrokerError>,
    ) -> Result<Option<Published>> {
        let _turn = Turn::wait(self);
        let Some((edition, writes)) = self.edition()? else { return Ok(None) };
        Ok(Some(self.note_published(writes, publish(edition)?)))
    }

    /// Begins to publish what is new, for somebody who may not wait. `None`: another publication is
    /// under way, or there is nothing new.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Option<Publication>> {
        let Some(turn) = Turn::take(Arc::clone(self)) else { return Ok(None) };
        let edition = self.edition()?;
        Ok(edition.map(|(edition, writes)| Publication { edition, rest: Rest { turn, writes } }))
    }

    fn note_published(&self, writes: u64, version: Version) -> Published {
        let mut state = self.state.lock();
        let published = if state.published > 0 { Published::Further } else { Published::First };
        state.published = writes;
        state.put.create_new = false;
        if state.put.expect.is_some() {
            state.put.expect = Some(version);
        }
        drop(state);
        self.draft.iter().for_each(Hold::published);
        published
    }

    /// Forgets all bytes: the store is sealed.
    pub(super) fn wipe(&self) {
        self.state.lock().bytes = Bytes::Sealed;
        self.pinned.iter().for_each(Pinned::wipe);
    }

    fn edition(&self) -> Result<Option<(Edition, u64)>> {
        let state = self.state.lock();
        if state.writes == state.published || self.draft.as_ref().is_some_and(Hold::is_unlinked) {
            return Ok(None);
        }
        if state.torn && !matches!(state.bytes, Bytes::Sealed) {
            return Err(FsError::TooBig);
        }
        let buffer = match &state.bytes {
            Bytes::Base => return Ok(None),
            Bytes::Buffer(buffer) => buffer,
            Bytes::Sealed => return Err(FsError::Sealed),
        };
        // Written and truncated to nothing again: an empty secret is made on purpose only.
        if buffer.is_empty() {
            return Ok(None);
        }
        let value = SecretBytes::copy_from(buffer.expose())?;
        let edition = Edition { name: self.name(), value, put: state.put.clone() };
        Ok(Some((edition, state.writes)))
    }

    /// Makes sure that the bytes which a write leaves alone are there.
    fn load(&self, base: impl FnOnce() -> Result<Option<SecretBytes>>) -> Result<()> {
        let mut state = self.state.lock();
        state.fresh = false;
        if !matches!(state.bytes, Bytes::Base) {
            return Ok(());
        }
        drop(state);
        // Not under the lock: sealing must not wait for a decryption.
        let base = match &self.pinned {
            Some(pinned) => Some(copy(&pinned.value()?)?),
            None => base()?,
        };
        let buffer = base.map_or_else(SecretBuffer::new, SecretBuffer::from);
        let mut state = self.state.lock();
        if matches!(state.bytes, Bytes::Base) {
            state.bytes = Bytes::Buffer(buffer);
        }
        Ok(())
    }
}

fn copy(bytes: &Arc<SecretBytes>) -> Result<SecretBytes> {
    Ok(SecretBytes::copy_from(bytes.expose())?)
}

#[cfg(test)]
mod tests;
