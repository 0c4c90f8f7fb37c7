//! Power cuts during commits: of the store, its journal and the log, each of which keeps what it may.
//!
//! Whatever a cut leaves opens, has the last acknowledged version or the one that was under way, and
//! has in its log one line for each version there is. No cut looks like a change of the log.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::audit::{Durability, SystemDisk};
use crate::store::tests::disk::{Cut, Disk, Elsewhere, Image, Op, Random, campaign};
use crate::store::{JournaledStore, Options, RedbStore};
use crate::system::Mapping;

/// It goes round several times in a script.
const JOURNAL: Options = Options { half_bytes: 48 << 10, period: Duration::from_millis(20) };

/// So small that a script fills several.
const SEGMENT_BYTES: u64 = 24 << 10;

const SCRIPTS: usize = 10;
const COMMITS: u64 = 90;
const SECTOR: usize = 512;

/// The log's disk, which writes to files and records that.
#[derive(Debug)]
struct Recorded(Disk);

impl crate::audit::Disk for Recorded {
    fn write(
        &self,
        file: &File,
        mapping: Option<&mut Mapping>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        SystemDisk.write(file, mapping, offset, bytes)?;
        let number = file.metadata()?.ino();
        self.0.note_elsewhere(Elsewhere::Write(number, offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.note_elsewhere(Elsewhere::Sync(file.metadata()?.ino()));
        Ok(())
    }
}

fn journaled(disk: &Disk) -> Result<Arc<JournaledStore>> {
    let (file, journal) = (disk.clone(), disk.journal());
    let base = RedbStore::open_with_backend(move || Ok(file.clone()))?;
    let make = move || Ok(journal.clone());
    Ok(Arc::new(JournaledStore::open_with_backend(base, make, JOURNAL)?))
}

fn open(store: Arc<JournaledStore>, directory: &std::path::Path, log: Log) -> Result<Broker> {
    let header = read_header(&*store)?;
    let root_key = header.slots[0].open(header.store, &key()).unwrap();
    let log = LogSettings {
        directory: directory.to_owned(),
        options: crate::audit::Options {
            disk: log.disk,
            durability: log.durability,
            segment_bytes: SEGMENT_BYTES,
            sync_interval: log.sync_interval,
            ..crate::audit::Options::default()
        },
        names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
    };
    let parts = Parts {
        store,
        policy: Policy::parse(POLICY, &NumericIds).unwrap(),
        clock: Arc::new(ManualClock::at(1_800_000_000)),
        limits: Limits::default(),
        log,
        accept_rollback: false,
    };
    Broker::open(parts, root_key)
}

struct Log {
    disk: Arc<dyn crate::audit::Disk>,
    durability: Durability,
    sync_interval: Duration,
}

impl Log {
    /// Half of the scripts leave the log to the commits, the others sync it meanwhile.
    fn of_script(seed: u64, disk: &Disk) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let sync_interval = if seed.is_multiple_of(2) { YEAR } else { Duration::from_millis(3) };
        let durability = if seed % 5 == 4 { Durability::Synced } else { Durability::Written };
        Self { disk: Arc::new(Recorded(disk.clone())), durability, sync_interval }
    }
}

/// What a script has done to the disk, and the names of the log's files by their numbers.
struct History {
    ops: Vec<Op>,
    files: BTreeMap<u64, String>,
    before: Image,
}

/// Puts and reads. That so many versions were acknowledged is noted behind each put; a read's line is
/// noted by its place as a sync of file 0.
fn history(seed: u64) -> History {
    let disk = Disk::default();
    let file = disk.clone();
    drop(RedbStore::create_with_backend(move || Ok(file.clone())).unwrap());
    let store = journaled(&disk).unwrap();
    Broker::create(&*store, &ManualClock::at(1_800_000_000), &mut make_slot).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let before = [disk.image(), disk.journal().image()];
    disk.record();
    let log = Log::of_script(seed, &disk);
    let is_synced = log.durability == Durability::Synced;
    let broker = open(store, directory.path(), log).unwrap();
    let mut random = Random(seed);
    disk.acknowledge(0);
    for count in 1..=COMMITS {
        let reads = if count == 1 { 0 } else { random.below(4) };
        for _ in 0..reads {
            drop(broker.read(&admin(), &name("app/key"), Which::Current).unwrap());
            if is_synced {
                // Only this thread reads: the line is the last one, or the ticker's.
                disk.note_elsewhere(Elsewhere::Write(0, broker.audit_seq(), Vec::new()));
            }
        }
        let len = 1 + random.below(900);
        let value = random.bytes(len);
        broker.write(&admin(), &name("app/key"), bytes(&value), &Put::default()).unwrap();
        disk.acknowledge(usize::try_from(count).unwrap());
    }
    let ops = disk.log();
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.metadata().unwrap().ino(), entry.file_name().into_string().unwrap())
    });
    let history = History { ops, files: files.collect(), before };
    broker.close();
    history
}

/// A file at some moment: what is durable, and the writes, each with its place, that may be.
type FileCut = (Vec<u8>, Vec<(usize, Vec<u8>)>);

/// The log's files at some moment.
#[derive(Default)]
struct LogCut {
    files: BTreeMap<u64, FileCut>,
    /// The last line that was answered.
    answered: u64,
}

impl LogCut {
    fn pass(&mut self, op: &Op) {
        match op {
            Op::Elsewhere(Elsewhere::Write(0, seq, _)) => self.answered = *seq,
            Op::Elsewhere(Elsewhere::Write(file, offset, data)) => {
                let write = (usize::try_from(*offset).unwrap(), data.clone());
                self.files.entry(*file).or_default().1.push(write);
            }
            Op::Elsewhere(Elsewhere::Sync(file)) => {
                let (durable, writes) = self.files.entry(*file).or_default();
                for (offset, data) in writes.drain(..) {
                    put_at(durable, offset, &data, 0..usize::MAX);
                }
            }
            Op::Acknowledged(_) | Op::SetLen(..) | Op::Sync(_) | Op::Write(..) => {}
        }
    }

    /// Returns what a power cut may leave of the files: each sector as it was after any of the writes
    /// to it, for pages are written in their order and not the file's.
    fn image(&self, random: &mut Random) -> BTreeMap<u64, Vec<u8>> {
        let mood = random.below(4);
        let mut image = BTreeMap::new();
        for (number, (durable, writes)) in &self.files {
            let mut bytes = durable.clone();
            let ends = writes.iter().map(|(offset, data)| offset + data.len());
            let grown = ends.max().unwrap_or(0).max(bytes.len());
            let len = match mood {
                0 => bytes.len(),
                1 => grown,
                _ => bytes.len() + random.below(grown - bytes.len() + 1),
            };
            bytes.resize(len, 0);
            for start in (0..len).step_by(SECTOR) {
                let sector = start..(start + SECTOR).min(len);
                let touches = |(offset, data): &&(usize, Vec<u8>)| {
                    *offset < sector.end && offset + data.len() > sector.start
                };
                let count = writes.iter().filter(touches).count();
                let kept = match mood {
                    0 => 0,
                    1 => count,
                    _ => random.below(count + 1),
                };
                for (offset, data) in writes.iter().filter(touches).take(kept) {
                    put_at(&mut bytes, *offset, data, sector.clone());
                }
            }
            image.insert(*number, bytes);
        }
        image
    }
}

/// Writes the part of `data` that lies in `place`.
fn put_at(file: &mut Vec<u8>, offset: usize, data: &[u8], place: std::ops::Range<usize>) {
    let (from, to) = (offset.max(place.start), (offset + data.len()).min(place.end));
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(&data[from - offset..to - offset]);
}

/// What a power cut has left.
struct Left {
    image: Image,
    log: BTreeMap<u64, Vec<u8>>,
    /// Versions that were acknowledged, and the last line that was.
    acknowledged: u64,
    answered: u64,
}

/// Calls `check` with so many states that power cuts during a script may leave.
fn power_cuts(seed: u64, states: usize, check: &mut dyn FnMut(Left, &History, &mut Random)) {
    let history = history(seed);
    let mut random = Random(!seed);
    let first = history.ops.iter().position(|op| matches!(op, Op::Acknowledged(_))).unwrap();
    let mut points: Vec<usize> =
        (0..states).map(|_| first + random.below(history.ops.len() - first + 1)).collect();
    points.sort_unstable();
    let (mut cut, mut log, mut done) = (Cut::before(history.before.clone()), LogCut::default(), 0);
    let mut acknowledged = 0;
    for point in points {
        for op in &history.ops[done..point] {
            cut.pass(op);
            log.pass(op);
            if let Op::Acknowledged(count) = op {
                acknowledged = *count as u64;
            }
        }
        done = point;
        let (image, files) = (cut.image(&mut random), log.image(&mut random));
        let left = Left { image, log: files, acknowledged, answered: log.answered };
        check(left, &history, &mut random);
    }
}

/// A broker over what was left.
struct Opened {
    broker: Broker,
    directory: tempfile::TempDir,
}

impl Opened {
    fn over(left: &Left, history: &History) -> Result<Self> {
        let directory = tempfile::tempdir().unwrap();
        for (number, bytes) in &left.log {
            let mut file = File::create(directory.path().join(&history.files[number])).unwrap();
            file.write_all(bytes).unwrap();
        }
        let disk = Disk::holding_both(left.image.clone());
        let log = Log::of_script(0, &disk);
        let broker = open(journaled(&disk)?, directory.path(), log)?;
        broker.wait_verified(Duration::from_secs(60)).unwrap();
        Ok(Self { broker, directory })
    }

    fn entries(&self, filter: &Filter) -> Vec<Entry> {
        crate::audit::query(self.directory.path(), filter)
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect()
    }

    fn versions(&self) -> u64 {
        match self.broker.versions(&admin(), &name("app/key")) {
            Ok(versions) => versions.last().unwrap().version.0,
            Err(BrokerError::NotFound(_)) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Tells whether the log has one line for each version, and verifies.
    fn is_all_on_record(&self) -> bool {
        let write = Filter { action: Some(Action::Write), ..Filter::default() };
        let mut lines: BTreeMap<u64, Vec<Outcome>> = BTreeMap::new();
        for entry in self.entries(&write) {
            lines.entry(entry.version.unwrap().0).or_default().push(entry.outcome);
        }
        let on_record = (1..=self.versions())
            .all(|version| lines.get(&version).is_some_and(|l| l.contains(&Outcome::Allowed)));
        on_record && self.broker.verify_audit(&admin()).unwrap()["ok"] == true
    }

    fn restored(&self) -> u64 {
        let start = Filter { action: Some(Action::Start), ..Filter::default() };
        let detail = self.entries(&start).pop().unwrap().detail.unwrap();
        detail["start"]["restored_lines"].as_u64().unwrap()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.broker.close();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a campaign says what it has seen")]
fn every_state_after_a_power_cut_has_each_acknowledged_version_and_its_line() {
    let states = campaign(600, 20_000);
    let (mut restored, mut applied) = (0, 0);
    for seed in 0..SCRIPTS as u64 {
        power_cuts(seed, states / SCRIPTS, &mut |left, history, _| {
            let at = format!("seed {seed}, {} acknowledged", left.acknowledged);
            let opened = Opened::over(&left, history).unwrap_or_else(|err| panic!("{at}: {err}"));
            let versions = opened.versions();
            let allowed = left.acknowledged..=left.acknowledged + 1;
            assert!(allowed.contains(&versions), "{at}: {versions} versions");
            assert!(opened.is_all_on_record(), "{at}");
            assert!(opened.broker.audit_seq() > left.answered, "{at}: an answered line is lost");
            restored += u64::from(opened.restored() > 0);
            applied += u64::from(versions > left.acknowledged);
            // It goes on.
            let value = bytes(b"example-value");
            opened.broker.write(&admin(), &name("app/key"), value, &Put::default()).unwrap();
            assert!(opened.is_all_on_record(), "{at}, and one more");
        });
    }
    println!("{states} cuts, {restored} with lines restored, {applied} unacknowledged but there");
    assert!(restored > 0 && applied > 0);
}

/// What a bit that flips in the journal can do while the log lacks what was not synced.
#[test]
#[expect(clippy::print_stdout, reason = "a campaign says what it has seen")]
fn a_flipped_bit_of_a_journal_that_carries_lines_is_found_or_costs_the_last_version_with_its_line()
{
    let (mut refused, mut whole, mut cut) = (0, 0, 0);
    power_cuts(2, campaign(300, 10_000), &mut |mut left, history, random| {
        let journal = &mut left.image[1];
        let used: Vec<usize> = (0..journal.len()).filter(|&at| journal[at] != 0).collect();
        let at = used[random.below(used.len())];
        journal[at] ^= 1 << random.below(8);
        let Ok(opened) = Opened::over(&left, history) else {
            refused += 1;
            return;
        };
        let (versions, least) = (opened.versions(), left.acknowledged.saturating_sub(1));
        assert!((least..=left.acknowledged + 1).contains(&versions), "byte {at}: {versions}");
        assert!(opened.is_all_on_record(), "byte {at}");
        if versions < left.acknowledged { cut += 1 } else { whole += 1 }
    });
    println!("{refused} refused, {whole} harmless, {cut} cost the last version");
    assert!(refused > 0 && whole > 0 && cut > 0);
}
