//! Lines of the log that only the store has: they come back, and hide nothing that was done to the log.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::*;
use crate::audit::AuditError;

type Entry = (Table, Vec<u8>, Vec<u8>);

/// What a dead daemon has left, to be changed and opened.
struct Left {
    world: World,
    /// The lines of the last segment.
    lines: Vec<Vec<u8>>,
}

impl World {
    /// Makes so many versions, and dies.
    fn left_after(versions: usize) -> Left {
        let world = Self::new();
        (0..versions).for_each(|_| _ = world.put("app/key", CANARY));
        world.left()
    }

    fn left(&self) -> Left {
        let world = Self {
            broker: None,
            store: Arc::new(MemoryStore::new()),
            clock: self.clock.clone(),
            limits: self.limits.clone(),
            directory: tempfile::tempdir().unwrap(),
        };
        for entry in self.entries() {
            world.put_raw(&entry);
        }
        fs::create_dir(world.directory.path().join("audit")).unwrap();
        for path in self.segments() {
            fs::copy(&path, world.directory.path().join("audit").join(path.file_name().unwrap()))
                .unwrap();
        }
        let mut text = fs::read(world.segments().last().unwrap()).unwrap();
        text.retain(|&byte| byte != 0);
        let lines = text.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        Left { world, lines }
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join("audit")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let snapshot = self.store.snapshot().unwrap();
        for table in Table::ALL {
            snapshot
                .scan(table, &[], &mut |key, value| {
                    entries.push((table, key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        entries
    }

    /// The slots with lines.
    fn slots(&self) -> Vec<Entry> {
        let is_slot = |(table, key, _): &Entry| *table == Table::Root && key != Root::KEY;
        self.entries().into_iter().filter(is_slot).collect()
    }

    fn put_raw(&self, (table, key, value): &Entry) {
        let mut txn = self.store.begin().unwrap();
        txn.put(*table, key, value).unwrap();
        txn.commit().unwrap();
    }
}

impl Left {
    /// Leaves so many lines of the log.
    fn keep_lines(&self, count: usize) {
        let mut file = fs::File::create(self.world.segments().last().unwrap()).unwrap();
        file.write_all(&self.lines[..count].concat()).unwrap();
    }

    /// Opens it. Returns how many lines the start has restored.
    fn open(&mut self) -> Result<u64> {
        self.world.broker = Some(Broker::open(self.world.parts(), self.world.root_key())?);
        self.world.wait_verified();
        let filter = Filter { action: Some(Action::Start), ..Filter::default() };
        let directory = self.world.directory.path().join("audit");
        let start = crate::audit::query(&directory, &filter).unwrap().last().unwrap().unwrap();
        assert_eq!(self.world.broker().verify_audit(&admin()).unwrap()["ok"], true);
        Ok(start.detail.unwrap()["start"]["restored_lines"].as_u64().unwrap())
    }

    fn is_refused(&mut self) -> bool {
        let opened = self.open();
        matches!(opened, Err(BrokerError::Audit(AuditError::Tampered(_))))
    }

    /// Tells whether each version has its line.
    fn is_all_on_record(&self, versions: usize) -> bool {
        let written = [(Action::Write, Outcome::Allowed)].repeat(versions);
        self.world.outcomes("app/key") == written
    }
}

/// The start, the first version's line: those were on disk; then an anchor and a line for each
/// version, and the last one's anchor.
const ON_DISK: usize = 2;

#[test]
fn a_commit_syncs_no_log_and_yet_each_version_has_its_line_whatever_the_crash_took() {
    for kept in [ON_DISK, 5, 9, 10] {
        let mut left = World::left_after(5);
        assert_eq!((left.lines.len(), left.world.slots().len()), (11, 4));
        left.keep_lines(kept);
        assert_eq!(left.open().unwrap(), 10 - kept as u64);
        assert!(left.is_all_on_record(5));
        left.world.put("app/key", CANARY);
        left.world.reopen().unwrap();
        assert!(left.is_all_on_record(6));
    }
}

#[test]
fn a_log_with_more_than_the_last_commit_knew_loses_nothing() {
    let world = World::new();
    (0..3).for_each(|_| _ = world.put("app/key", CANARY));
    (0..3).for_each(|_| drop(world.read(1000, "app/key").unwrap()));
    let mut left = world.left();
    assert_eq!(left.open().unwrap(), 0);
    assert_eq!(left.world.outcomes("app/key").len(), 6);
}

#[test]
fn an_older_copy_of_the_log_is_refused_if_a_crash_cannot_have_left_it() {
    let world = World::new();
    (0..3).for_each(|_| _ = world.put("app/key", CANARY));
    let older = world.left().lines.len();
    // Puts the log on disk.
    assert_eq!(world.broker().verify_audit(&admin()).unwrap()["ok"], true);
    world.put("app/key", CANARY);
    let mut left = world.left();
    left.keep_lines(older);
    assert!(left.is_refused());
    // A crash can take the line that the last commit has carried, and no more.
    for (kept, refused) in [(left.lines.len() - 2, false), (left.lines.len() - 3, true)] {
        let mut left = world.left();
        left.keep_lines(kept);
        assert_eq!(left.is_refused(), refused, "{kept} of {}", left.lines.len());
    }
}

#[test]
fn slots_that_were_changed_restore_nothing_and_hide_nothing() {
    type Change = fn(&World, &[Entry]);
    let changes: [(&str, Change); 4] = [
        ("one is gone", |world, slots| {
            let mut txn = world.store.begin().unwrap();
            txn.delete(slots[1].0, &slots[1].1).unwrap();
            txn.commit().unwrap();
        }),
        ("one is cut", |world, slots| {
            let (table, key, value) = slots[1].clone();
            world.put_raw(&(table, key, value[..value.len() / 2].to_vec()));
        }),
        ("one has the place of another", |world, slots| {
            world.put_raw(&(slots[1].0, slots[1].1.clone(), slots[2].2.clone()));
        }),
        ("one is from before", |world, slots| {
            let (table, key, value) = slots[1].clone();
            world.put_raw(&(table, [&key[..], b"x"].concat(), value.clone()));
            world.put_raw(&(table, key, vec![0; value.len()]));
        }),
    ];
    for (what, change) in changes {
        for kept in [ON_DISK, 11] {
            let mut left = World::left_after(5);
            let slots = left.world.slots();
            change(&left.world, &slots);
            left.keep_lines(kept);
            let is_whole = kept == 11;
            assert_eq!(left.is_refused(), !is_whole, "{what}, {kept} lines");
        }
    }
    // Any bit of any of them.
    let count = World::left_after(5).world.slots().len();
    for slot in 0..count {
        let mut left = World::left_after(5);
        let (table, key, mut value) = left.world.slots().swap_remove(slot);
        let at = value.len() * (slot + 1) / (count + 1);
        value[at] ^= 1;
        left.world.put_raw(&(table, key, value));
        left.keep_lines(ON_DISK);
        assert!(left.is_refused(), "slot {slot}, byte {at}");
    }
}

#[test]
fn slots_are_used_again_once_the_log_is_on_disk_and_after_a_failure() {
    let world = World::new();
    // More than there are slots: the log is synced in between.
    (0..150).for_each(|_| _ = world.put("app/key", CANARY));
    assert_eq!(world.slots().len(), 64);
    for outcome in [FailedCommit::Applied, FailedCommit::Lost] {
        world.store.fail_next_commit(outcome);
        let put = world.broker().write(&admin(), &name("app/x"), bytes(b"x"), &Put::default());
        assert!(put.is_err());
        world.put("app/key", CANARY);
    }
    world.broker().seal(&admin()).unwrap();
    world.broker().unseal(&admin(), world.root_key()).unwrap();
    world.put("app/key", CANARY);
    world.broker().rotate_epoch(&admin()).unwrap();
    // Re-wrapping commits by itself, until the epoch before is gone.
    let epochs =
        || world.broker().key_status(&admin()).unwrap()["epochs"].as_array().unwrap().len();
    while epochs() > 1 {
        std::thread::yield_now();
    }
    world.put("app/key", CANARY);
    let mut left = world.left();
    // Up to the last version's line, which came back; the anchor behind it did not.
    left.keep_lines(left.lines.len() - 2);
    assert_eq!(left.open().unwrap(), 1);
    assert_eq!(left.world.outcomes("app/key"), world.outcomes("app/key"));
}
