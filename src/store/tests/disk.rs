//! A simulated disk for the tests of the store: it records, and it fails on demand.
//!
//! What a power cut leaves is made from the record by [`after_power_cut`]: all that was synced, and
//! of the rest any subset, each write torn at sectors. Any order of writes that a disk may choose
//! leaves such a subset, because a sector's last write wins.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

const SECTOR: usize = 512;

/// Returns how many cases a campaign runs: `small` in CI, `full` where `SECRETFS_CAMPAIGN=full`.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration but this")]
pub(super) fn campaign(small: usize, full: usize) -> usize {
    if std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full") { full } else { small }
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Made by the test: that many commits have been acknowledged.
    Acknowledged(usize),
    SetLen(u64),
    Sync,
    Write(u64, Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The operation that fails, counted from 0.
    pub at: usize,
    /// 0: the backend panics.
    pub errno: i32,
    /// Whether all that follow fail as well, until the disk is healed.
    pub lasting: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    fault: Option<Fault>,
    log: Vec<Op>,
    operations: usize,
    recording: bool,
}

impl Disk {
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    pub(super) fn failing(fault: Fault) -> Self {
        let disk = Self::default();
        disk.fail(fault);
        disk
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    /// Records from now on, for [`log`](Self::log).
    pub(super) fn record(&self) {
        self.0.lock().recording = true;
    }

    pub(super) fn acknowledge(&self, commits: usize) {
        self.0.lock().note(Op::Acknowledged(commits));
    }

    pub(super) fn log(&self) -> Vec<Op> {
        std::mem::take(&mut self.0.lock().log)
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    pub(super) fn heal(&self) {
        self.0.lock().fault = None;
    }

    pub(super) fn operations(&self) -> usize {
        self.0.lock().operations
    }
}

impl State {
    fn note(&mut self, op: Op) {
        if self.recording {
            self.log.push(op);
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
        Ok(state.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = state.bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let op = Op::SetLen(len);
        apply(&mut state.bytes, &op);
        state.note(op);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.note(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let result = state.step();
        // A write that fails is a short one: half of it is there.
        let written = if result.is_ok() { data } else { &data[..data.len() / 2] };
        let op = Op::Write(offset, written.to_vec());
        apply(&mut state.bytes, &op);
        state.note(op);
        result
    }
}

pub(super) fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Acknowledged(_) | Op::Sync => {}
        Op::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
        Op::Write(offset, data) => write(image, usize::try_from(*offset).unwrap(), data),
    }
}

fn write(image: &mut Vec<u8>, start: usize, data: &[u8]) {
    let end = start + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[start..end].copy_from_slice(data);
}

/// Returns what may be left of `durable` and the `unsynced` operations after it.
pub(super) fn after_power_cut(durable: &[u8], unsynced: &[Op], random: &mut Random) -> Vec<u8> {
    let mut image = durable.to_vec();
    // From hardly anything to nearly everything.
    let kept_of_four = random.below(5);
    for op in unsynced.iter().filter(|_| random.below(4) < kept_of_four).collect::<Vec<_>>() {
        match op {
            Op::Write(offset, data) if random.below(3) == 0 => {
                let start = usize::try_from(*offset).unwrap();
                for (sector, part) in data.chunks(SECTOR).enumerate() {
                    if random.below(2) == 0 {
                        write(&mut image, start + sector * SECTOR, part);
                    }
                }
            }
            Op::Acknowledged(_) | Op::SetLen(_) | Op::Sync | Op::Write(..) => apply(&mut image, op),
        }
    }
    image
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed everywhere.
#[derive(Debug)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}
