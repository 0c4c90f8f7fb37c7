//! `.control/backup`: a backup that is made while it is read.
//!
//! A thread puts it into a short queue, out of which the reader takes piece by piece, so memory is
//! bounded whatever the size of the store. The view of the store that is copied stops the reuse of
//! space in the store's file: a reader who stops, or comes to no end, loses its backup.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Host;
use crate::broker::{BrokerError, StoreError};
use crate::fs::error::{FsError, Result};
use crate::model::Caller;

/// Bytes in a piece.
const PIECE: usize = 128 << 10;
/// Pieces that wait for the reader.
const QUEUED: usize = 4;

/// How long a view of the store is kept for a reader.
#[derive(Clone, Copy, Debug)]
pub(in crate::fs) struct Patience {
    /// While it takes nothing.
    idle: Duration,
    /// In all.
    whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), whole: Duration::from_secs(3600) }
    }
}

/// An open backup; dropped before its end, it stops the thread that makes it.
#[derive(Debug)]
pub(in crate::fs) struct Backup {
    pipe: Arc<Pipe>,
    /// The piece that is being read. It is kept until what follows it is asked for, so that a
    /// read whose answer was late can be repeated.
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    start: u64,
    piece: Vec<u8>,
}

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    end: Option<std::result::Result<(), Arc<BrokerError>>>,
    reader_gone: bool,
}

impl Backup {
    /// Starts a backup, and waits for its first piece: a refusal is the answer to open(2).
    pub(in crate::fs) fn begin(
        host: Arc<dyn Host>,
        caller: &Caller,
        patience: Patience,
        at_most: Duration,
    ) -> Result<Self> {
        let pipe = Arc::<Pipe>::default();
        let (caller, mut pieces) = (caller.clone(), Pieces::into(&pipe, patience));
        thread::Builder::new()
            .name("backup".into())
            .spawn(move || {
                let outcome = host.backup(&caller, &mut pieces);
                pieces.pipe.end(outcome.map_err(Arc::new));
            })
            .map_err(|error| BrokerError::from(StoreError::Io(error)))?;
        let backup = Self { pipe, place: Mutex::default() };
        backup.read(0, 1, at_most)?;
        Ok(backup)
    }

    /// Returns the bytes at `offset`, which must not be before the piece that was read last.
    pub(in crate::fs) fn read(
        &self,
        offset: u64,
        size: usize,
        at_most: Duration,
    ) -> Result<Vec<u8>> {
        let mut place = self.place.lock();
        if offset == place.start + place.piece.len() as u64 {
            match self.pipe.take(at_most)? {
                Some(piece) => *place = Place { start: offset, piece },
                None => return Ok(Vec::new()),
            }
        }
        let skip = offset.checked_sub(place.start).and_then(|skip| usize::try_from(skip).ok());
        let rest = skip.and_then(|skip| place.piece.get(skip..)).ok_or(FsError::Invalid)?;
        Ok(rest.iter().take(size).copied().collect())
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.reader_gone = true;
        state.pieces.clear();
        self.pipe.changed.notify_all();
    }
}

impl Pipe {
    /// Returns the next piece; `None` is the backup's end.
    fn take(&self, at_most: Duration) -> Result<Option<Vec<u8>>> {
        let until = Instant::now() + at_most;
        let mut state = self.state.lock();
        loop {
            if let Some(piece) = state.pieces.pop_front() {
                self.changed.notify_all();
                return Ok(Some(piece));
            }
            if let Some(end) = &state.end {
                return end.clone().map(|()| None).map_err(FsError::Told);
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Err(FsError::TimedOut);
            }
        }
    }

    fn put(&self, piece: Vec<u8>, until: Instant) -> io::Result<()> {
        let mut state = self.state.lock();
        while state.pieces.len() >= QUEUED && !state.reader_gone {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "its reader has stopped"));
            }
        }
        if state.reader_gone {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "its reader is gone"));
        }
        state.pieces.push_back(piece);
        self.changed.notify_all();
        Ok(())
    }

    /// Says how it ended; what is said first stands.
    fn end(&self, outcome: std::result::Result<(), Arc<BrokerError>>) {
        self.state.lock().end.get_or_insert(outcome);
        self.changed.notify_all();
    }
}

/// The writing end.
struct Pieces {
    pipe: Arc<Pipe>,
    piece: Vec<u8>,
    idle: Duration,
    until: Instant,
}

impl Pieces {
    fn into(pipe: &Arc<Pipe>, patience: Patience) -> Self {
        let until = Instant::now() + patience.whole;
        Self { pipe: pipe.clone(), piece: Vec::new(), idle: patience.idle, until }
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let until = self.until.min(Instant::now() + self.idle);
        self.pipe.put(std::mem::take(&mut self.piece), until)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // A thread that panicked has said nothing; its reader must not take that for the end.
        self.pipe.end(Err(Arc::new(StoreError::Broken.into())));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const LATE: Duration = Duration::from_secs(20);

    fn pipe(patience: Patience) -> (Backup, Pieces) {
        let pipe = Arc::<Pipe>::default();
        let pieces = Pieces::into(&pipe, patience);
        (Backup { pipe, place: Mutex::default() }, pieces)
    }

    #[test]
    fn a_backup_is_read_in_order_and_a_read_can_be_repeated() {
        let (backup, mut pieces) = pipe(Patience::default());
        let bytes: Vec<u8> = (0..=250).cycle().take(PIECE + 1000).collect();
        pieces.write_all(&bytes).unwrap();
        pieces.flush().unwrap();
        pieces.pipe.end(Ok(()));
        let mut read = Vec::new();
        loop {
            let offset = read.len() as u64;
            let part = backup.read(offset, 70_000, LATE).unwrap();
            assert_eq!(backup.read(offset, 70_000, LATE).unwrap(), part);
            if part.is_empty() {
                break;
            }
            read.extend_from_slice(&part);
        }
        assert!(read == bytes);
        assert!(matches!(backup.read(0, 1, LATE), Err(FsError::Invalid)));
    }

    #[test]
    fn a_reader_that_stops_or_goes_ends_the_backup_and_never_more_than_the_queue_is_in_memory() {
        let patience = Patience { idle: SOON, ..Patience::default() };
        let (backup, mut pieces) = pipe(patience);
        let mut taken = 0;
        let stopped = loop {
            match pieces.write(&[0; 4096]) {
                Ok(bytes) => taken += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(stopped.kind(), io::ErrorKind::TimedOut);
        assert!(taken <= (QUEUED + 1) * PIECE, "{taken} bytes are waiting");
        drop(backup);
        pieces.piece.clear();
        pieces.write_all(&[0; 10]).unwrap();
        assert_eq!(pieces.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_backup_takes_no_longer_in_all_than_its_patience() {
        let (backup, mut pieces) = pipe(Patience { whole: Duration::ZERO, ..Patience::default() });
        let written = std::iter::repeat_with(|| pieces.write_all(&[0; PIECE])).take(QUEUED + 1);
        let last = written.last().unwrap();
        assert_eq!(last.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(backup);
    }

    #[test]
    fn a_backup_whose_maker_fails_or_dies_has_no_end_that_looks_like_one() {
        let (backup, pieces) = pipe(Patience::default());
        assert!(matches!(backup.read(0, 1, SOON), Err(FsError::TimedOut)));
        drop(pieces);
        for _ in 0..2 {
            assert!(matches!(backup.read(0, 1, LATE), Err(FsError::Told(_))));
        }
    }
}
