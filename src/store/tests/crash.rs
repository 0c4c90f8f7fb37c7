//! The store after power cuts and failing disks: what was acknowledged is there, whole.
//!
//! A script of random commits runs on a simulated disk. Each state of both files that a power cut
//! may leave, and each state after a power cut during the repair of the first, must open with the
//! content of the last acknowledged commit or of the one that was under way. The journal is tiny, so
//! that it is taken over again and again meanwhile. All of it is also tried without a journal, as a
//! store is while it is made.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;

use std::time::Duration;

use super::disk::{Cut, Disk, Elsewhere, Fault, Image, Op, Random, apply, campaign};
use crate::store::{JournaledStore, Options, RedbStore, Store, StoreError, Table, Txn};

pub(super) type Content = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A few commits fill it; some do not fit into it.
const TINY: Options = Options { half_bytes: 8 << 10, period: Duration::from_millis(1) };

/// Scripts, so that one kind of history does not decide; each gets its share of the states.
const SCRIPTS: usize = 20;
const COMMITS: usize = 16;

pub(super) fn create(disk: &Disk) -> Result<RedbStore, StoreError> {
    let disk = disk.clone();
    RedbStore::create_with_backend(move || Ok(disk.clone()))
}

pub(super) fn open(disk: &Disk) -> Result<RedbStore, StoreError> {
    let disk = disk.clone();
    RedbStore::open_with_backend(move || Ok(disk.clone()))
}

/// What a test runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Alone,
    Journaled,
}

impl Kind {
    fn create(self, disk: &Disk) -> Result<Box<dyn Store>, StoreError> {
        self.over(create(disk)?, disk)
    }

    fn open(self, disk: &Disk) -> Result<Box<dyn Store>, StoreError> {
        self.over(open(disk)?, disk)
    }

    fn over(self, base: RedbStore, disk: &Disk) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::Alone => Box::new(base),
            Self::Journaled => Box::new(journaled(base, disk, TINY)?),
        })
    }
}

pub(super) fn journaled(
    base: RedbStore,
    disk: &Disk,
    options: Options,
) -> Result<JournaledStore, StoreError> {
    let journal = disk.journal();
    JournaledStore::open_with_backend(base, move || Ok(journal.clone()), options)
}

pub(super) fn content(store: &dyn Store) -> Result<Content, StoreError> {
    let mut content = Content::new();
    let snapshot = store.snapshot()?;
    for table in Table::ALL {
        snapshot.scan(table, b"", &mut |key, value| {
            content.insert((table, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(content)
}

/// One random commit; `content` becomes what it makes of the store.
pub(super) fn commit(
    store: &dyn Store,
    random: &mut Random,
    content: &mut Content,
) -> Result<(), StoreError> {
    let mut txn = store.begin()?;
    if random.below(16) == 0 {
        txn.clear()?;
        content.clear();
    }
    for _ in 0..=random.below(6) {
        change(txn.as_mut(), random, content)?;
    }
    // No two commits of a history make the same content.
    let stamp = random.bytes(8);
    txn.put(Table::Root, b"stamp", &stamp)?;
    content.insert((Table::Root, b"stamp".to_vec()), stamp);
    txn.commit()
}

fn change(txn: &mut dyn Txn, random: &mut Random, content: &mut Content) -> Result<(), StoreError> {
    let table = Table::ALL[random.below(Table::ALL.len())];
    let key = format!("key-{:02}", random.below(40)).into_bytes();
    if random.below(4) == 0 {
        assert_eq!(txn.delete(table, &key)?, content.remove(&(table, key)));
        return Ok(());
    }
    // Mostly records; now and then a value that takes pages of its own.
    let len = if random.below(8) == 0 { random.below(20_000) } else { random.below(300) };
    let value = random.bytes(len);
    assert_eq!(txn.put(table, &key, &value)?, content.insert((table, key), value));
    Ok(())
}

/// Runs a script to its end, and returns the disk's log with the content after each commit.
fn history(kind: Kind, seed: u64) -> (Vec<Op>, Vec<Content>) {
    let disk = Disk::default();
    disk.record();
    let mut random = Random(seed);
    let mut contents = vec![Content::new()];
    let store = kind.create(&disk).unwrap();
    disk.acknowledge(0);
    for acknowledged in 1..=COMMITS {
        let mut next = contents.last().unwrap().clone();
        commit(&*store, &mut random, &mut next).unwrap();
        contents.push(next);
        disk.acknowledge(acknowledged);
    }
    drop(store);
    (disk.log(), contents)
}

/// Called with an image, the number of commits acknowledged by then, and the source of chance.
type Check<'a> = dyn FnMut(Image, Option<usize>, &mut Random) + 'a;

/// Calls `check` with `states` images that power cuts during `log` may leave. Nothing is
/// acknowledged before the store's creation is.
fn power_cuts(
    log: &[Op],
    before: Image,
    states: usize,
    random: &mut Random,
    check: &mut Check<'_>,
) {
    let mut points: Vec<usize> = (0..states).map(|_| random.below(log.len() + 1)).collect();
    points.sort_unstable();
    let (mut cut, mut done, mut acknowledged) = (Cut::before(before), 0, None);
    for point in points {
        for op in &log[done..point] {
            cut.pass(op);
            if let Op::Acknowledged(commits) = op {
                acknowledged = Some(*commits);
            }
        }
        done = point;
        let image = cut.image(random);
        check(image, acknowledged, random);
    }
}

/// Opens an image; says which of the contents it has.
fn which(kind: Kind, disk: &Disk, contents: &[Content], at: &str) -> Option<usize> {
    match kind.open(disk) {
        Ok(store) => {
            let found = content(&*store).unwrap();
            let which = contents.iter().rposition(|content| *content == found);
            assert!(which.is_some(), "{at}: content that no commit made");
            which
        }
        Err(StoreError::Damaged(_)) => None,
        Err(error) => panic!("{at}: {error}"),
    }
}

#[test]
fn every_state_after_a_power_cut_is_the_acknowledged_commit_or_the_next() {
    try_power_cuts(Kind::Journaled, campaign(10_000, 200_000));
}

#[test]
fn every_state_after_a_power_cut_without_a_journal_is_the_acknowledged_commit_or_the_next() {
    try_power_cuts(Kind::Alone, campaign(2_000, 40_000));
}

fn try_power_cuts(kind: Kind, states: usize) {
    let (mut cuts, mut cuts_in_repair, mut applied) = (0, 0, 0);
    for seed in 0..SCRIPTS as u64 {
        let (log, contents) = history(kind, seed);
        let (share, mut random) = (states / SCRIPTS, Random(!seed));
        power_cuts(
            &log,
            Image::default(),
            share,
            &mut random,
            &mut |image, acknowledged, random| {
                cuts += 1;
                let at =
                    format!("{kind:?}, seed {seed}, cut {cuts}, acknowledged {acknowledged:?}");
                let disk = Disk::holding_both(image.clone());
                disk.record();
                let found = which(kind, &disk, &contents, &at);
                let Some(acknowledged) = acknowledged else {
                    // Cut while it was being created: no store yet, or an empty one.
                    assert!(found.is_none_or(|found| found == 0), "{at}: found {found:?}");
                    return;
                };
                let allowed = [Some(acknowledged), Some(acknowledged + 1)];
                assert!(allowed.contains(&found), "{at}: found {found:?}");
                applied += usize::from(found == allowed[1]);
                if cuts % 3 == 0 {
                    power_cuts(&disk.log(), image, 1, random, &mut |image, _, _| {
                        cuts_in_repair += 1;
                        let again = which(kind, &Disk::holding_both(image), &contents, &at);
                        assert!(allowed.contains(&again), "{at}, then in repair: found {again:?}");
                    });
                }
            },
        );
    }
    println!(
        "{kind:?}: {cuts} cuts, {cuts_in_repair} in repair, {applied} unacknowledged but there"
    );
    assert_eq!(cuts, states);
    assert!(applied > 0, "no cut ever fell between a commit's last write and its answer");
}

/// Runs a script in lives, each of which ends at any moment by a kill: the next one finds what was written, on disk or
/// not. Returns the disk's log and all contents that a commit made; `Acknowledged` says which of them somebody was
/// shown, and a write elsewhere which of them is begun.
fn history_in_lives(kind: Kind, seed: u64) -> (Vec<Op>, Vec<Content>) {
    const LIVES: usize = 8;
    let mut random = Random(seed);
    let (mut image, mut ops) = (Image::default(), Vec::new());
    let mut contents = vec![Content::new()];
    for life in 0..LIVES {
        let disk = Disk::holding_both(image.clone());
        disk.record();
        let opened = if life == 0 { kind.create(&disk) } else { kind.open(&disk) };
        let store = opened.unwrap();
        store.await_durable().unwrap();
        let found = content(&*store).unwrap();
        let shown = contents.iter().rposition(|content| *content == found).unwrap();
        disk.acknowledge(shown);
        let created = disk.log();
        for _ in 0..random.below(5) {
            let mut next = content(&*store).unwrap();
            disk.note_elsewhere(Elsewhere::Write(contents.len() as u64, 0, Vec::new()));
            commit(&*store, &mut random, &mut next).unwrap();
            disk.acknowledge(contents.len());
            contents.push(next);
        }
        let mut log = [created.clone(), disk.log()].concat();
        let least = if life == 0 { created.len() } else { 0 };
        log.truncate(least + random.below(log.len() - least + 1));
        log.iter().for_each(|op| apply(&mut image, op));
        ops.append(&mut log);
    }
    (ops, contents)
}

/// A kill leaves in the kernel what was not on disk: the next process goes on from there without waiting for all of it.
#[test]
fn every_state_after_kills_and_a_power_cut_is_one_that_was_shown_or_begun() {
    let states = campaign(4_000, 100_000);
    let (mut cuts, mut begun_and_there) = (0, 0);
    for kind in [Kind::Journaled, Kind::Alone] {
        for seed in 0..SCRIPTS as u64 {
            let (log, contents) = history_in_lives(kind, seed);
            let mut random = Random(!seed);
            let begin = log.iter().position(|op| matches!(op, Op::Acknowledged(_))).unwrap();
            let share = states / SCRIPTS / 2;
            let mut points: Vec<usize> =
                (0..share).map(|_| begin + 1 + random.below(log.len() - begin)).collect();
            points.sort_unstable();
            let (mut cut, mut done, mut allowed) = (Cut::before(Image::default()), 0, Vec::new());
            for point in points {
                for op in &log[done..point] {
                    cut.pass(op);
                    match op {
                        Op::Acknowledged(shown) => allowed = vec![*shown],
                        Op::Elsewhere(Elsewhere::Write(begun, ..)) => {
                            allowed.push(usize::try_from(*begun).unwrap());
                        }
                        Op::Elsewhere(_) | Op::SetLen(..) | Op::Sync(_) | Op::Write(..) => {}
                    }
                }
                done = point;
                cuts += 1;
                let at = format!("{kind:?}, seed {seed}, after {point} of {}", log.len());
                let disk = Disk::holding_both(cut.image(&mut random));
                let found = which(kind, &disk, &contents, &at);
                let found = found.unwrap_or_else(|| panic!("{at}: damaged"));
                assert!(allowed.contains(&found), "{at}: found {found}, allowed {allowed:?}");
                begun_and_there += usize::from(found != allowed[0]);
            }
        }
    }
    println!("{cuts} cuts, {begun_and_there} unacknowledged but there");
    assert!(cuts >= states - 4 * SCRIPTS && begun_and_there > 0);
}

#[test]
fn a_store_that_a_power_cut_left_takes_commits() {
    let kind = Kind::Journaled;
    let (log, contents) = history(kind, 77);
    let (states, mut random) = (campaign(200, 5_000), Random(78));
    power_cuts(&log, Image::default(), states, &mut random, &mut |image, _, random| {
        let disk = Disk::holding_both(image);
        let Some(found) = which(kind, &disk, &contents, "seed 77") else { return };
        let mut expected = contents[found].clone();
        let store = kind.open(&disk).unwrap();
        commit(&*store, random, &mut expected).unwrap();
        drop(store);
        assert_eq!(content(&*kind.open(&disk).unwrap()).unwrap(), expected);
    });
}

#[test]
fn reopening_after_a_power_cut_needs_no_full_repair() {
    let disk = Disk::default();
    let store = create(&disk).unwrap();
    for seed in 0..8 {
        commit(&store, &mut Random(seed), &mut content(&store).unwrap()).unwrap();
        let copy = Disk::holding(disk.image());
        let mut builder = redb::Builder::new();
        builder.set_repair_callback(redb::RepairSession::abort);
        assert!(builder.create_with_backend(copy).is_ok());
    }
}

/// Runs a script on a disk with a fault, recovers after each error, and returns the errors.
fn run_on(kind: Kind, disk: &Disk, errno: i32, commits: usize) -> Vec<StoreError> {
    let mut errors = Vec::new();
    let store = match kind.create(disk) {
        Ok(store) => store,
        Err(error) => return vec![error],
    };
    let mut expected = Content::new();
    for seed in 0..commits as u64 {
        let mut next = expected.clone();
        let Err(error) = commit(&*store, &mut Random(seed), &mut next) else {
            expected = next;
            continue;
        };
        errors.push(error);
        assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
        // Reads go on where redb has the page in memory, and then they are right.
        assert!(content(&*store).map_or(true, |content| content == expected));
        disk.heal();
        store.recover().unwrap();
        let found = content(&*store).unwrap();
        assert!(found == expected || found == next, "{kind:?}, errno {errno}, commit {seed}");
        expected = found;
    }
    drop(store);
    disk.heal();
    assert_eq!(content(&*kind.open(disk).unwrap()).unwrap(), expected);
    errors
}

#[test]
fn no_failing_operation_loses_what_was_acknowledged() {
    const COMMITS_A_RUN: usize = 6;
    for kind in [Kind::Alone, Kind::Journaled] {
        let whole = Disk::default();
        assert!(run_on(kind, &whole, 0, COMMITS_A_RUN).is_empty());
        let mut full = 0;
        for errno in [libc::EIO, libc::ENOSPC] {
            for at in 0..whole.operations() {
                for lasting in [false, true] {
                    let disk = Disk::failing(Fault { at, errno, lasting });
                    for error in run_on(kind, &disk, errno, COMMITS_A_RUN) {
                        full += usize::from(is_full(&error, errno, at));
                    }
                }
            }
        }
        assert!(full > 0, "{kind:?}: a full disk was never reported as one");
    }
}

/// Tells whether an error says that the disk is full; it must be one that the disk's error explains.
fn is_full(error: &StoreError, errno: i32, at: usize) -> bool {
    match error {
        StoreError::Broken => false,
        StoreError::Io(error) => {
            assert_eq!(error.raw_os_error(), Some(errno), "operation {at}");
            error.kind() == ErrorKind::StorageFull
        }
        StoreError::Damaged(_) | StoreError::Locked => {
            panic!("operation {at}, errno {errno}: {error}")
        }
    }
}

#[test]
fn a_panic_below_a_commit_is_damage_until_the_recovery() {
    let disk = Disk::default();
    let store = create(&disk).unwrap();
    let (mut expected, mut panics) = (Content::new(), 0);
    for seed in 0..12 {
        let mut next = expected.clone();
        let at = disk.operations() + usize::try_from(seed).unwrap();
        disk.fail(Fault { at, errno: 0, lasting: false });
        if let Err(error) = commit(&store, &mut Random(seed), &mut next) {
            panics += 1;
            assert!(matches!(error, StoreError::Damaged(_)), "{error}");
            assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
            disk.heal();
            store.recover().unwrap();
        }
        disk.heal();
        let found = content(&store).unwrap();
        assert!(found == expected || found == next, "seed {seed}");
        expected = found;
    }
    assert!(panics > 5, "only {panics} commits met the panic");
}

#[test]
fn a_recovery_that_fails_can_be_tried_again() {
    for kind in [Kind::Alone, Kind::Journaled] {
        let disk = Disk::default();
        let store = kind.create(&disk).unwrap();
        let mut expected = Content::new();
        commit(&*store, &mut Random(5), &mut expected).unwrap();
        disk.fail(Fault { at: disk.operations(), errno: libc::EIO, lasting: true });
        assert!(store.recover().is_err());
        assert!(matches!(store.get(Table::Root, b"k"), Err(StoreError::Broken)));
        assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
        disk.heal();
        store.recover().unwrap();
        assert_eq!(content(&*store).unwrap(), expected);
        store.begin().unwrap().commit().unwrap();
    }
}
