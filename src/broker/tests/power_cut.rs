//! Power cuts during commits: of the store, its journal and the log, each of which keeps what it may.
//!
//! Whatever a cut leaves opens, has the last acknowledged version or the one that was under way, and
//! has in its log one line for each version there is. No cut looks like a change of the log.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::*;
use crate::audit::{Durability, SystemDisk};
use crate::store::tests::disk::{Cut, Disk, Elsewhere, Image, Op, Random, apply, campaign};
use crate::store::{JournaledStore, Options, RedbStore};
use crate::system::Mapping;

/// It goes round several times in a script.
const JOURNAL: Options = Options { half_bytes: 48 << 10, period: Duration::from_millis(20) };

/// So small that a script fills several.
const SEGMENT_BYTES: u64 = 24 << 10;

const SCRIPTS: usize = 10;
const COMMITS: u64 = 90;
const SECTOR: usize = 512;

/// The log's disk, which writes to files and records that. A file is known by the number in its name.
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
        self.0.note_elsewhere(Elsewhere::Write(number_of(file)?, offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.note_elsewhere(Elsewhere::Sync(number_of(file)?));
        Ok(())
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        SystemDisk.cut(file, bytes)?;
        self.0.note_elsewhere(Elsewhere::Cut(number_of(file)?, bytes));
        Ok(())
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        let numbers = fs::read_dir(dir)?.map(|entry| number(&entry?.path()));
        self.0.note_elsewhere(Elsewhere::Directory(numbers.collect::<io::Result<_>>()?));
        Ok(())
    }
}

fn number_of(file: &File) -> io::Result<u64> {
    number(&fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
}

fn number(path: &Path) -> io::Result<u64> {
    let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{}", path.display())))
}

fn make_file(directory: &Path, number: u64, bytes: &[u8]) {
    let mut file = File::create(directory.join(format!("{number:020}.jsonl"))).unwrap();
    file.write_all(bytes).unwrap();
}

fn journaled(disk: &Disk) -> Result<Arc<JournaledStore>> {
    let (file, journal) = (disk.clone(), disk.journal());
    let base = RedbStore::open_with_backend(move || Ok(file.clone()))?;
    let make = move || Ok(journal.clone());
    Ok(Arc::new(JournaledStore::open_with_backend(base, make, JOURNAL)?))
}

fn open(store: Arc<JournaledStore>, directory: &Path, log: Log) -> Result<Broker> {
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

/// What a script has done to the disk.
struct History {
    ops: Vec<Op>,
    before: Image,
}

/// Puts and reads, in one life or in some that end by kills at any moment. That so many versions were acknowledged, or
/// shown, is noted behind each put and each start; a read's line is noted by its place as a write to file 0.
fn history(seed: u64, lives: usize) -> History {
    let disk = Disk::default();
    let file = disk.clone();
    drop(RedbStore::create_with_backend(move || Ok(file.clone())).unwrap());
    let store = journaled(&disk).unwrap();
    Broker::create(&*store, &ManualClock::at(1_800_000_000), &mut make_slot).unwrap();
    drop(store);
    let before = [disk.image(), disk.journal().image()];
    let mut random = Random(seed);
    let (mut image, mut log, mut ops) = (before.clone(), LogCut::default(), Vec::new());
    for life in 1..=lives {
        let disk = Disk::holding_both(image.clone());
        disk.record();
        let directory = tempfile::tempdir().unwrap();
        log.write_to(directory.path(), log.files.keys().copied());
        let settings = Log::of_script(seed, &disk);
        let is_synced = settings.durability == Durability::Synced;
        let store = journaled(&disk).unwrap();
        let opened = Opened { broker: open(store, directory.path(), settings).unwrap(), directory };
        opened.broker.wait_verified(Duration::from_secs(60)).unwrap();
        let acknowledge = |version: u64| disk.acknowledge(usize::try_from(version).unwrap());
        let shown = opened.versions();
        acknowledge(shown);
        let mut done = disk.log();
        let kept = if life == 1 { done.len() } else { 0 };
        let broker = &opened.broker;
        let commits = COMMITS / lives as u64;
        for count in 1..=commits {
            let reads = if shown + count == 1 { 0 } else { random.below(4) };
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
            acknowledge(shown + count);
        }
        done.append(&mut disk.log());
        if life < lives {
            done.truncate(kept + random.below(done.len() - kept + 1));
        }
        for op in &done {
            apply(&mut image, op);
            log.pass(op);
        }
        ops.append(&mut done);
    }
    History { ops, before }
}

/// A file at some moment.
#[derive(Default)]
struct FileCut {
    /// What is on disk.
    durable: Vec<u8>,
    /// What may be, each with its place.
    changes: Vec<Change>,
    /// Whether its name is on disk.
    is_named: bool,
}

enum Change {
    Cut(usize),
    Write(usize, Vec<u8>),
}

impl FileCut {
    /// Returns what a process finds that comes after a kill.
    fn written(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.changes.iter().for_each(|change| change.make(&mut bytes));
        bytes
    }
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Cut(len) => bytes.truncate(*len),
            Self::Write(offset, data) => put_at(bytes, *offset, data, 0..usize::MAX),
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Cut(_) => 0,
            Self::Write(offset, data) => offset + data.len(),
        }
    }
}

/// The log's files at some moment.
#[derive(Default)]
struct LogCut {
    files: BTreeMap<u64, FileCut>,
    /// The last line that was answered.
    answered: u64,
}

impl LogCut {
    fn pass(&mut self, op: &Op) {
        let Op::Elsewhere(op) = op else { return };
        match op {
            Elsewhere::Write(0, seq, _) => self.answered = *seq,
            Elsewhere::Write(file, offset, data) => {
                let file = self.files.entry(*file).or_default();
                // One that was removed because it held no line is made again.
                if *offset == 0 && data.first() == Some(&0) {
                    file.changes.clear();
                }
                let offset = usize::try_from(*offset).unwrap();
                file.changes.push(Change::Write(offset, data.clone()));
            }
            Elsewhere::Cut(file, len) => {
                let len = usize::try_from(*len).unwrap();
                self.files.entry(*file).or_default().changes.push(Change::Cut(len));
            }
            Elsewhere::Sync(file) => {
                let file = self.files.entry(*file).or_default();
                file.durable = file.written();
                file.changes.clear();
            }
            Elsewhere::Directory(names) => {
                self.files.retain(|file, _| names.contains(file));
                for name in names {
                    self.files.entry(*name).or_default().is_named = true;
                }
            }
        }
    }

    /// Returns what a power cut may leave of the files: each sector as it was after any of the writes
    /// to it, for pages are written in their order and not the file's.
    fn image(&self, random: &mut Random) -> BTreeMap<u64, Vec<u8>> {
        let mood = random.below(4);
        let mut image = BTreeMap::new();
        for (number, file) in &self.files {
            let has_name = match mood {
                0 => file.is_named,
                1 => true,
                _ => file.is_named || random.below(2) == 0,
            };
            if has_name {
                image.insert(*number, file.left(mood, random));
            }
        }
        image
    }

    /// Makes the files as a process finds them that comes after a kill.
    fn write_to(&self, directory: &Path, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            make_file(directory, number, &self.files[&number].written());
        }
    }
}

impl FileCut {
    fn left(&self, mood: usize, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        // What is behind a cut stays there as long as that is not on disk.
        let cut = self.changes.iter().rposition(|change| matches!(change, Change::Cut(_)));
        let is_cut = cut.is_some() && (mood == 1 || mood > 1 && random.below(2) == 0);
        if let Some(cut) = cut.filter(|_| is_cut) {
            self.changes[..=cut].iter().for_each(|change| change.make(&mut bytes));
            // Its length is on disk; what was written before, maybe.
            let kept = self.durable.len().min(bytes.len());
            bytes[kept..].fill(0);
        }
        let grown = self.changes.iter().map(Change::end).max().unwrap_or(0).max(bytes.len());
        let len = match mood {
            _ if is_cut => bytes.len(),
            0 => bytes.len(),
            1 => grown,
            _ => bytes.len() + random.below(grown - bytes.len() + 1),
        };
        bytes.resize(len, 0);
        let writes = || {
            self.changes.iter().filter_map(|change| match change {
                Change::Cut(_) => None,
                Change::Write(offset, data) => Some((*offset, data)),
            })
        };
        for start in (0..len).step_by(SECTOR) {
            let sector = start..(start + SECTOR).min(len);
            let touches = |(offset, data): &(usize, &Vec<u8>)| {
                *offset < sector.end && offset + data.len() > sector.start
            };
            let count = writes().filter(touches).count();
            let kept = match mood {
                0 => 0,
                1 => count,
                _ => random.below(count + 1),
            };
            for (offset, data) in writes().filter(touches).take(kept) {
                put_at(&mut bytes, offset, data, sector.clone());
            }
        }
        bytes
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
fn power_cuts(
    (seed, lives): (u64, usize),
    states: usize,
    check: &mut dyn FnMut(Left, &mut Random),
) {
    let history = history(seed, lives);
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
        check(left, &mut random);
    }
}

/// A broker over what was left.
struct Opened {
    broker: Broker,
    directory: tempfile::TempDir,
}

impl Opened {
    fn over(left: &Left) -> Result<Self> {
        let directory = tempfile::tempdir().unwrap();
        for (number, bytes) in &left.log {
            make_file(directory.path(), *number, bytes);
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
        match self.broker.history(&admin(), &name("app/key")) {
            Ok((_, versions)) => versions.last().unwrap().version.0,
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

    /// Returns what the last start says of the log that it found.
    fn of_start(&self, what: &str) -> u64 {
        let start = Filter { action: Some(Action::Start), ..Filter::default() };
        let detail = self.entries(&start).pop().unwrap().detail.unwrap();
        detail["start"][what].as_u64().unwrap()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.broker.close();
    }
}

#[test]
fn every_state_after_a_power_cut_has_each_acknowledged_version_and_its_line() {
    try_power_cuts(1, campaign(600, 20_000));
}

/// Behind a kill a start waits for nothing of the log: it becomes durable beside the requests.
#[test]
fn every_state_after_kills_and_a_power_cut_has_each_acknowledged_version_and_its_line() {
    try_power_cuts(6, campaign(600, 20_000));
}

#[expect(clippy::print_stdout, reason = "a campaign says what it has seen")]
fn try_power_cuts(lives: usize, states: usize) {
    let (mut restored, mut applied, mut dropped) = (0, 0, 0);
    for seed in 0..SCRIPTS as u64 {
        power_cuts((seed, lives), states / SCRIPTS, &mut |left, _| {
            let at = format!("seed {seed}, {} acknowledged", left.acknowledged);
            let opened = Opened::over(&left).unwrap_or_else(|err| panic!("{at}: {err}"));
            let versions = opened.versions();
            let allowed = left.acknowledged..=left.acknowledged + 1;
            assert!(allowed.contains(&versions), "{at}: {versions} versions");
            assert!(opened.is_all_on_record(), "{at}");
            assert!(opened.broker.audit_seq() > left.answered, "{at}: an answered line is lost");
            restored += u64::from(opened.of_start("restored_lines") > 0);
            dropped += u64::from(opened.of_start("dropped_bytes") > 0);
            applied += u64::from(versions > left.acknowledged);
            // It goes on.
            let value = bytes(b"example-value");
            opened.broker.write(&admin(), &name("app/key"), value, &Put::default()).unwrap();
            assert!(opened.is_all_on_record(), "{at}, and one more");
        });
    }
    println!(
        "{states} cuts, {restored} with lines restored, {dropped} with some dropped, {applied} unacknowledged but there"
    );
    assert!(restored > 0 && applied > 0 && dropped > 0);
}

/// What a bit that flips in the journal can do while the log lacks what was not synced.
#[test]
#[expect(clippy::print_stdout, reason = "a campaign says what it has seen")]
fn a_flipped_bit_of_a_journal_that_carries_lines_is_found_or_costs_the_last_version_with_its_line()
{
    let (mut refused, mut whole, mut cut) = (0, 0, 0);
    power_cuts((2, 1), campaign(300, 10_000), &mut |mut left, random| {
        let journal = &mut left.image[1];
        let used: Vec<usize> = (0..journal.len()).filter(|&at| journal[at] != 0).collect();
        let at = used[random.below(used.len())];
        journal[at] ^= 1 << random.below(8);
        let Ok(opened) = Opened::over(&left) else {
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
