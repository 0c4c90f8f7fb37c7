//! The journal's file: one checksummed frame a commit, in space that is written over and over.
//!
//! A header is followed by two halves. Frames follow each other in a half, from its start and at
//! sectors; when it is full they go on in the other one, whose own are in redb by then. All of the
//! file was written once when it was made, so that an fdatasync of a frame has no block to
//! allocate and no length to record. The checksum finds torn writes and bad disks and is no
//! protection against anybody: what a frame says is authenticated by the layer above.

use std::thread::{self, ScopedJoinHandle};

use redb::StorageBackend;
use sha2::{Digest, Sha256};

use super::backend::SharedBackend;
use super::overlay::Layer;
use super::{StoreError, Table};

const MAGIC: &[u8; 6] = b"SFSJRN";
const FORMAT: u16 = 1;
/// Before the first half, in bytes: a page, so that the halves begin at pages.
const HEADER_BYTES: usize = 4096;
/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;
/// Where the two copies of the header are. They are written one after the other, and no frame is
/// before both agree: so whichever is whole will do, and one that is damaged costs nothing.
const HEADER_COPIES: [u64; 2] = [0, SECTOR as u64];
const FRAME_MAGIC: &[u8; 4] = b"SFSF";
/// How much is read at one time, in bytes.
const BLOCK: usize = 256 << 10;
/// Magic, length of the body, number of the commit, code.
const FRAME_HEADER_BYTES: usize = 4 + 4 + 8 + 16;
/// In an entry's first byte, beside the number of its table: it is deleted.
const DELETED: u8 = 0x80;

/// How far a journal was taken over into redb.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Progress {
    /// The journal's id: frames of any other are not this store's.
    pub(super) journal: [u8; 16],
    /// The last commit that redb has.
    pub(super) commit: u64,
}

impl Progress {
    pub(super) fn encode(self) -> Vec<u8> {
        [&self.journal[..], &self.commit.to_be_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (journal, commit) = bytes.split_first_chunk().ok_or_else(malformed)?;
        let commit = u64::from_be_bytes(commit.try_into().map_err(|_| malformed())?);
        Ok(Self { journal: *journal, commit })
    }
}

/// A journal that is open, with the place of the next frame.
pub(super) struct Journal {
    backend: SharedBackend,
    header: Header,
    half: Half,
    /// Where the next frame begins in the half, in bytes.
    end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Half {
    First = 0,
    Second = 1,
}

/// What the frames say that redb does not have yet.
pub(super) struct Pending {
    /// From the half that is full.
    pub(super) older: Layer,
    /// The last commit of `older`.
    pub(super) older_commit: u64,
    pub(super) newer: Layer,
    /// The last commit of all.
    pub(super) commit: u64,
    /// Whether the last commit that redb has is in a frame, too.
    pub(super) holds_base: bool,
}

impl Journal {
    /// Makes an empty journal with an id of its own over whatever the file holds.
    pub(super) fn make(backend: SharedBackend, half_bytes: usize) -> Result<Self, StoreError> {
        let half_bytes = half_bytes.next_multiple_of(SECTOR);
        let header = Header { id: random()?, salt: random()?, half_bytes };
        let zeros = vec![0; 1 << 20];
        let length = HEADER_BYTES + 2 * half_bytes;
        for start in (0..length).step_by(zeros.len()) {
            let part = zeros.get(..zeros.len().min(length - start)).unwrap_or(&zeros);
            backend.write(start as u64, part)?;
        }
        // The header says that all of the rest is there.
        backend.sync_data()?;
        let mut journal = Self { backend, header, half: Half::First, end: 0 };
        journal.reset()?;
        Ok(journal)
    }

    /// Opens the journal in a file; `None` where there is none, or one that was never finished.
    pub(super) fn open(backend: SharedBackend) -> Result<Option<Self>, StoreError> {
        let length = backend.len()?;
        if length < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let copies = HEADER_COPIES.map(|offset| {
            let mut bytes = [0; Header::BYTES];
            backend.read(offset, &mut bytes).map(|()| bytes)
        });
        let [first, second] = copies;
        let (first, second) = (first?, second?);
        let header = match (Header::decode(&first), Header::decode(&second)) {
            (Err(_), Err(_)) if second == [0; Header::BYTES] => return Ok(None),
            (Ok(header), _) | (Err(_), Ok(header)) => header,
            (Err(error), Err(_)) => return Err(error),
        };
        if length < (HEADER_BYTES + 2 * header.half_bytes) as u64 {
            return Err(StoreError::Damaged("the journal was cut".into()));
        }
        let journal = Self { backend, header, half: Half::First, end: 0 };
        if first != second {
            journal.write_header()?;
        }
        Ok(Some(journal))
    }

    pub(super) fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// Returns the bytes of the largest frame that a half can take.
    pub(super) fn capacity(&self) -> usize {
        self.header.half_bytes
    }

    /// The bytes of a frame without an entry.
    pub(super) const EMPTY_FRAME_BYTES: usize = FRAME_HEADER_BYTES;

    /// Returns how many bytes an entry adds to a frame.
    pub(super) fn entry_bytes(key: &[u8], value: Option<&[u8]>) -> usize {
        1 + 4 + key.len() + 4 + value.map_or(0, <[u8]>::len)
    }

    /// Tells whether a frame can still go into the half in use.
    pub(super) fn has_room_for(&self, frame: &[u8]) -> bool {
        frame.len() <= self.header.half_bytes - self.end
    }

    /// Goes on at the start of the other half, whose frames must all be in redb.
    pub(super) fn turn(&mut self) {
        self.half = self.half.other();
        self.end = 0;
    }

    /// Writes a frame behind the last one. Returns once it is durable.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<(), StoreError> {
        let offset = self.offset(self.half) + self.end as u64;
        self.backend.write(offset, frame)?;
        self.backend.sync_data()?;
        self.end += frame.len();
        Ok(())
    }

    /// Makes all frames void, durably, and begins anew. All of them must be in redb: otherwise a
    /// copy of the store from before could be led on by them.
    pub(super) fn reset(&mut self) -> Result<(), StoreError> {
        self.header.salt = random()?;
        self.write_header()?;
        (self.half, self.end) = (Half::First, 0);
        Ok(())
    }

    fn write_header(&self) -> Result<(), StoreError> {
        let header = self.header.encode();
        for offset in HEADER_COPIES {
            self.backend.write(offset, &header)?;
            self.backend.sync_data()?;
        }
        Ok(())
    }

    /// Tells whether there is no whole frame at all.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        for half in [Half::First, Half::Second] {
            if self.later_frame(&self.frames(half)?, 0)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the frames behind `commit`, the last that redb has, and goes on behind them.
    ///
    /// A frame that was cut off by a crash was never acknowledged and ends the journal. `Damaged` if
    /// frames are missing before one that is whole.
    pub(super) fn replay(&mut self, commit: u64) -> Result<Pending, StoreError> {
        // Most of what a start does with the store is to read these megabytes.
        let halves = both(|| self.frames(Half::First), || self.frames(Half::Second));
        let halves = [halves.0?, halves.1?];
        let [first, second] = halves.each_ref().map(|frames| self.chain(frames, commit));
        let mut chains = [first?, second?];
        chains.sort_by_key(|frames| frames.first().map(|(frame, _)| frame.commit));
        let mut pending = Pending {
            older: Layer::default(),
            older_commit: commit,
            newer: Layer::default(),
            commit,
            holds_base: false,
        };
        for (frame, changes) in chains.into_iter().flatten() {
            if frame.commit != pending.commit + 1 {
                continue;
            }
            if frame.half != self.half && !pending.newer.is_empty() {
                pending.older = std::mem::take(&mut pending.newer);
                pending.older_commit = pending.commit;
            }
            pending.newer.absorb(changes);
            pending.commit = frame.commit;
            (self.half, self.end) = (frame.half, frame.end());
        }
        let last = pending.commit;
        for frames in &halves {
            for frame in frames.iter().filter(|frame| frame.commit == commit) {
                pending.holds_base |= self.body(frame)?.is_some();
            }
            if let Some(later) = self.later_frame(frames, last)? {
                return Err(StoreError::Damaged(format!(
                    "the journal has commit {later}, but not commit {}: a frame is damaged, or the \
                     store and its journal are not of the same time",
                    last + 1
                )));
            }
        }
        Ok(pending)
    }

    /// Returns the frame of a commit.
    pub(super) fn frame(&self, commit: u64, changes: &Layer) -> Result<Vec<u8>, StoreError> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        for (table, key, value) in changes.changes() {
            let deleted = if value.is_none() { DELETED } else { 0 };
            frame.push(table as u8 | deleted);
            put_bytes(&mut frame, key)?;
            put_bytes(&mut frame, value.unwrap_or_default())?;
        }
        let (header, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
        let length = u32::try_from(body.len()).map_err(std::io::Error::other)?.to_be_bytes();
        let code = code(&self.header.salt, &length, commit, body);
        let fields = [&FRAME_MAGIC[..], &length, &commit.to_be_bytes(), &code].concat();
        header.copy_from_slice(&fields);
        frame.resize(frame.len().next_multiple_of(SECTOR), 0);
        Ok(frame)
    }

    /// Returns whatever begins like a frame in a half, whole or not, in its order. Nothing else is kept of what is
    /// read: most of it is in redb since long, and a start is not to wait for megabytes of memory.
    fn frames(&self, half: Half) -> Result<Vec<Frame>, StoreError> {
        let mut frames = Vec::new();
        let mut block = vec![0; BLOCK.min(self.header.half_bytes)];
        for start in (0..self.header.half_bytes).step_by(BLOCK) {
            let length = block.len().min(self.header.half_bytes - start);
            let Some(block) = block.get_mut(..length) else { break };
            self.backend.read(self.offset(half) + start as u64, block)?;
            let sectors = block.chunks(SECTOR).zip((start..).step_by(SECTOR));
            let found = sectors.filter_map(|(sector, at)| Frame::begun(sector, half, at));
            frames.extend(found.filter(|frame| frame.end() <= self.header.half_bytes));
        }
        Ok(frames)
    }

    /// Returns the frames at the start of a half that follow each other, with what they change. Those up to
    /// `commit`, which redb has, are stepped over by what they say: to add up what they hold took longer than
    /// all else of a start. If one of them leads astray, the frames behind it are missed as if it were damaged.
    fn chain(&self, frames: &[Frame], commit: u64) -> Result<Vec<(Frame, Layer)>, StoreError> {
        let mut chain = Vec::new();
        let (mut at, mut last) = (0, None);
        for frame in frames {
            // What lies in between is the inside of a frame.
            if frame.at < at {
                continue;
            }
            // What lies behind the last frame is from an earlier use of the half.
            if frame.at > at || last.is_some_and(|last| frame.commit != last + 1) {
                break;
            }
            if frame.commit > commit {
                chain.push(*frame);
            }
            (at, last) = (frame.end(), Some(frame.commit));
        }
        let (one, two) = chain.split_at(chain.len() / 2);
        let bytes: usize = chain.iter().map(Frame::body_bytes).sum();
        let (one, two) = if bytes > BLOCK {
            both(|| self.changes(one), || self.changes(two))
        } else {
            (self.changes(one), self.changes(two))
        };
        let mut changes = one?;
        if changes.len() == chain.len() / 2 {
            changes.extend(two?);
        }
        Ok(chain.into_iter().zip(changes).collect())
    }

    /// Returns what frames change, up to the first one that is not whole.
    fn changes(&self, frames: &[Frame]) -> Result<Vec<Layer>, StoreError> {
        let mut changes = Vec::with_capacity(frames.len());
        for frame in frames {
            let Some(body) = self.body(frame)? else { break };
            changes.push(decode(&body)?);
        }
        Ok(changes)
    }

    /// Returns the number of some whole frame behind the last commit, wherever it lies.
    fn later_frame(&self, frames: &[Frame], last: u64) -> Result<Option<u64>, StoreError> {
        for frame in frames.iter().filter(|frame| frame.commit > last) {
            if self.body(frame)?.is_some() {
                return Ok(Some(frame.commit));
            }
        }
        Ok(None)
    }

    /// Returns what a frame holds, if it is whole.
    fn body(&self, frame: &Frame) -> Result<Option<Vec<u8>>, StoreError> {
        let mut body = vec![0; frame.body_bytes()];
        self.backend
            .read(self.offset(frame.half) + (frame.at + FRAME_HEADER_BYTES) as u64, &mut body)?;
        let is_whole = code(&self.header.salt, &frame.length, frame.commit, &body) == frame.code;
        Ok(is_whole.then_some(body))
    }

    fn offset(&self, half: Half) -> u64 {
        (HEADER_BYTES + half as usize * self.header.half_bytes) as u64
    }
}

impl Half {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Header {
    /// Drawn when the journal is made, and kept in redb: binds the two files.
    id: [u8; 16],
    /// Drawn at each reset: voids the frames before it.
    salt: [u8; 16],
    half_bytes: usize,
}

impl Header {
    /// Magic, format, id, salt, bytes of a half, code.
    const BYTES: usize = 6 + 2 + 16 + 16 + 8 + 16;
    /// More than this was never made.
    const MAX_HALF_BYTES: u64 = 1 << 30;

    fn encode(self) -> Vec<u8> {
        let mut bytes = [
            &MAGIC[..],
            &FORMAT.to_be_bytes(),
            &self.id,
            &self.salt,
            &(self.half_bytes as u64).to_be_bytes(),
        ]
        .concat();
        bytes.extend_from_slice(&short_digest(&[&bytes]));
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::Damaged(what.into());
        let (magic, rest) = bytes.split_first_chunk::<6>().ok_or_else(malformed)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (id, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (salt, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (half_bytes, code) = rest.split_first_chunk().ok_or_else(malformed)?;
        if magic != MAGIC {
            return Err(damaged("the journal beside it is none"));
        }
        let format = u16::from_be_bytes(*format);
        if format != FORMAT {
            return Err(StoreError::Damaged(format!(
                "format version {format} of the journal is not known to this release"
            )));
        }
        let covered = bytes.len() - code.len();
        if bytes.get(..covered).is_none_or(|covered| short_digest(&[covered]) != code) {
            return Err(damaged("the journal's header does not add up"));
        }
        let half_bytes = u64::from_be_bytes(*half_bytes);
        if half_bytes > Self::MAX_HALF_BYTES || half_bytes % SECTOR as u64 != 0 {
            return Err(damaged("the journal's header names an impossible length"));
        }
        let half_bytes = usize::try_from(half_bytes).map_err(std::io::Error::other)?;
        Ok(Self { id: *id, salt: *salt, half_bytes })
    }
}

/// What begins like a frame; whether it is one, the code says.
#[derive(Clone, Copy)]
struct Frame {
    half: Half,
    /// Where it begins in the half, in bytes.
    at: usize,
    /// Of the body, as it stands in the header.
    length: [u8; 4],
    commit: u64,
    code: [u8; 16],
}

impl Frame {
    /// Returns what begins in a sector.
    fn begun(sector: &[u8], half: Half, at: usize) -> Option<Self> {
        let rest = sector.strip_prefix(FRAME_MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (commit, rest) = rest.split_first_chunk()?;
        let (code, _) = rest.split_first_chunk()?;
        let commit = u64::from_be_bytes(*commit);
        Some(Self { half, at, length: *length, commit, code: *code })
    }

    fn body_bytes(&self) -> usize {
        usize::try_from(u32::from_be_bytes(self.length)).unwrap_or(usize::MAX)
    }

    /// Where it ends in the half, with the padding up to the next sector.
    fn end(&self) -> usize {
        let end = self.body_bytes().saturating_add(self.at + FRAME_HEADER_BYTES);
        end.checked_next_multiple_of(SECTOR).unwrap_or(usize::MAX)
    }
}

/// Does two things beside each other; the first one here, too, where there can be no thread now, or it has panicked.
fn both<T: Send>(first: impl Fn() -> T + Sync, second: impl FnOnce() -> T) -> (T, T) {
    thread::scope(|scope| {
        let name = "secretfs-half".to_owned();
        let beside = thread::Builder::new().name(name).spawn_scoped(scope, &first);
        let second = second();
        match beside.map(ScopedJoinHandle::join) {
            Ok(Ok(first)) => (first, second),
            Ok(Err(_)) | Err(_) => (first(), second),
        }
    })
}

fn decode(mut body: &[u8]) -> Result<Layer, StoreError> {
    let mut changes = Layer::default();
    while let Some((first, rest)) = body.split_first() {
        body = rest;
        let table = Table::ALL.into_iter().find(|table| *table as u8 == first & !DELETED);
        let (key, value) = (take_bytes(&mut body), take_bytes(&mut body));
        let (Some(table), Some(key), Some(value)) = (table, key, value) else {
            return Err(malformed());
        };
        changes.set(table, key, (first & DELETED == 0).then_some(value));
    }
    Ok(changes)
}

fn put_bytes(frame: &mut Vec<u8>, bytes: &[u8]) -> Result<(), StoreError> {
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    Ok(())
}

fn take_bytes<'b>(body: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = body.split_first_chunk()?;
    let (bytes, rest) =
        rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *body = rest;
    Some(bytes)
}

fn code(salt: &[u8; 16], length: &[u8; 4], commit: u64, body: &[u8]) -> [u8; 16] {
    short_digest(&[salt, length, &commit.to_be_bytes(), body])
}

fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut first = [0; 16];
    first.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    first
}

fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

fn malformed() -> StoreError {
    StoreError::Damaged("the journal is malformed".into())
}
