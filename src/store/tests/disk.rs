//! A simulated disk for the tests of the store: it records, and it fails on demand.
//!
//! It holds two files, the store and its journal. What a power cut leaves is made from the record by
//! [`Cut`]: all that was synced, file by file, and of the rest any subset, each write torn at
//! sectors. Any order of writes that a disk may choose leaves such a subset, because a sector's last
//! write wins.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

const SECTOR: usize = 512;

/// Returns how many cases a campaign runs: `small` in CI, `full` where `SECRETFS_CAMPAIGN=full`.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration but this")]
pub(crate) fn campaign(small: usize, full: usize) -> usize {
    if std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full") { full } else { small }
}

/// Which of the files of a disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Which {
    Journal = 1,
    #[default]
    Store = 0,
}

/// The bytes of both files, in the order of [`Which`].
pub(crate) type Image = [Vec<u8>; 2];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Made by the test: that many commits have been acknowledged.
    Acknowledged(usize),
    /// Something that happened to another file, of which the test keeps account by itself.
    Elsewhere(Elsewhere),
    SetLen(Which, u64),
    Sync(Which),
    Write(Which, u64, Vec<u8>),
}

/// What happens to a file by the number that the test gives it.
#[derive(Clone, Debug)]
pub(crate) enum Elsewhere {
    Cut(u64, u64),
    /// A directory was synced that had these files.
    Directory(Vec<u64>),
    Sync(u64),
    Write(u64, u64, Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The operation that fails, counted from 0.
    pub at: usize,
    /// 0: the backend panics.
    pub errno: i32,
    /// Whether all that follow fail as well, until the disk is healed.
    pub lasting: bool,
}

/// One of the files; clones are of the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>, Which);

#[derive(Debug, Default)]
struct State {
    files: Image,
    fault: Option<Fault>,
    /// A file whose writes and syncs fail with that errno.
    failing: Option<(Which, i32)>,
    log: Vec<Op>,
    operations: usize,
    recording: bool,
}

impl Disk {
    /// Returns a disk with a store and no journal.
    pub(crate) fn holding(store: Vec<u8>) -> Self {
        Self::holding_both([store, Vec::new()])
    }

    pub(crate) fn holding_both(files: Image) -> Self {
        Self(Arc::new(Mutex::new(State { files, ..State::default() })), Which::Store)
    }

    /// Returns the journal's file of the same disk.
    pub(crate) fn journal(&self) -> Self {
        Self(Arc::clone(&self.0), Which::Journal)
    }

    pub(crate) fn failing(fault: Fault) -> Self {
        let disk = Self::default();
        disk.fail(fault);
        disk
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    /// Lets every write and sync of this file fail, until the disk is healed.
    pub(crate) fn refuse(&self, errno: i32) {
        self.0.lock().failing = Some((self.1, errno));
    }

    /// Records from now on, for [`log`](Self::log).
    pub(crate) fn record(&self) {
        self.0.lock().recording = true;
    }

    pub(crate) fn acknowledge(&self, commits: usize) {
        self.0.lock().note(Op::Acknowledged(commits));
    }

    pub(crate) fn note_elsewhere(&self, op: Elsewhere) {
        self.0.lock().note(Op::Elsewhere(op));
    }

    pub(crate) fn log(&self) -> Vec<Op> {
        std::mem::take(&mut self.0.lock().log)
    }

    /// Returns the bytes of this file.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.0.lock().files[self.1 as usize].clone()
    }

    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        (state.fault, state.failing) = (None, None);
    }

    pub(crate) fn operations(&self) -> usize {
        self.0.lock().operations
    }
}

impl State {
    fn note(&mut self, op: Op) {
        if self.recording {
            self.log.push(op);
        }
    }

    fn change(&mut self, file: Which) -> io::Result<()> {
        self.step()?;
        match self.failing {
            Some((failing, errno)) if failing == file => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if operation == fault.at || (fault.lasting && operation > fault.at) => {
                assert_ne!(fault.errno, 0, "the simulated disk was told to panic");
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.0.lock();
        state.step()?;
        Ok(state.files[self.1 as usize].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let file = &state.files[self.1 as usize];
        let found = file.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(self.1)?;
        let op = Op::SetLen(self.1, len);
        apply(&mut state.files, &op);
        state.note(op);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change(self.1)?;
        state.note(Op::Sync(self.1));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let result = state.change(self.1);
        // A write that fails is a short one: half of it is there.
        let written = if result.is_ok() { data } else { &data[..data.len() / 2] };
        let op = Op::Write(self.1, offset, written.to_vec());
        apply(&mut state.files, &op);
        state.note(op);
        result
    }
}

/// A disk at some moment of a record: what is durable, and what may be.
#[derive(Debug)]
pub(crate) struct Cut {
    durable: Image,
    unsynced: Vec<Op>,
}

impl Cut {
    pub(crate) fn before(image: Image) -> Self {
        Self { durable: image, unsynced: Vec::new() }
    }

    /// Goes on by one operation.
    pub(crate) fn pass(&mut self, op: &Op) {
        match op {
            Op::Acknowledged(_) | Op::Elsewhere(_) => {}
            Op::SetLen(..) | Op::Write(..) => self.unsynced.push(op.clone()),
            Op::Sync(file) => {
                let (synced, rest): (Vec<Op>, _) =
                    self.unsynced.drain(..).partition(|op| op.file() == Some(*file));
                self.unsynced = rest;
                synced.iter().for_each(|op| apply(&mut self.durable, op));
            }
        }
    }

    /// Returns what a power cut at this moment may leave.
    pub(crate) fn image(&self, random: &mut Random) -> Image {
        let mut image = self.durable.clone();
        // From hardly anything to nearly everything.
        let kept_of_four = random.below(5);
        for op in
            self.unsynced.iter().filter(|_| random.below(4) < kept_of_four).collect::<Vec<_>>()
        {
            match op {
                Op::Write(file, offset, data) if random.below(3) == 0 => {
                    let start = usize::try_from(*offset).unwrap();
                    for (sector, part) in data.chunks(SECTOR).enumerate() {
                        if random.below(2) == 0 {
                            write(&mut image[*file as usize], start + sector * SECTOR, part);
                        }
                    }
                }
                Op::Acknowledged(_)
                | Op::Elsewhere(_)
                | Op::SetLen(..)
                | Op::Sync(_)
                | Op::Write(..) => {
                    apply(&mut image, op);
                }
            }
        }
        image
    }
}

impl Op {
    fn file(&self) -> Option<Which> {
        match self {
            Self::Acknowledged(_) | Self::Elsewhere(_) => None,
            Self::SetLen(file, _) | Self::Sync(file) | Self::Write(file, ..) => Some(*file),
        }
    }
}

pub(crate) fn apply(files: &mut Image, op: &Op) {
    match op {
        Op::Acknowledged(_) | Op::Elsewhere(_) | Op::Sync(_) => {}
        Op::SetLen(file, len) => files[*file as usize].resize(usize::try_from(*len).unwrap(), 0),
        Op::Write(file, offset, data) => {
            write(&mut files[*file as usize], usize::try_from(*offset).unwrap(), data);
        }
    }
}

fn write(file: &mut Vec<u8>, start: usize, data: &[u8]) {
    let end = start + data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(data);
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed everywhere.
#[derive(Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}
