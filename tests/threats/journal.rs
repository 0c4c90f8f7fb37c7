//! Whoever has the store's files and puts the journal of another time or store beside it (S3, S4, S7).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secretfs::broker::{Broker, BrokerError, StoreError};
use secretfs::store::{JournaledStore, Options, RedbStore, Store};

use super::store::{Stored, put};

const STORE: &str = "store.redb";
const JOURNAL: &str = "store.journal";

/// Taken over when it is full, and not before.
const OPTIONS: Options = Options { half_bytes: 64 << 10, period: Duration::MAX };

/// A store that is open, so that its directory is what a killed daemon would leave.
struct Running {
    stored: Stored,
    broker: Broker,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        drop(RedbStore::create(&directory.path().join(STORE)).unwrap());
        let stored = Stored::at(Arc::new(journaled(directory.path()).unwrap()), directory);
        let broker = stored.open().unwrap();
        Self { stored, broker }
    }

    fn write(&self, values: usize) {
        for n in 0..values {
            put(&self.broker, "app/key", format!("{n}").as_bytes());
        }
    }

    fn copy_of(&self, file: &str) -> Vec<u8> {
        fs::read(self.stored.directory.path().join(file)).unwrap()
    }

    /// Opens what a killed daemon would have left, with other files in its place; `None` for one that
    /// is gone.
    fn open_with(&self, store: &[u8], journal: Option<&[u8]>) -> Result<(), BrokerError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(STORE), store).unwrap();
        if let Some(journal) = journal {
            fs::write(directory.path().join(JOURNAL), journal).unwrap();
        }
        let (from, to) =
            (self.stored.directory.path().join("audit"), directory.path().join("audit"));
        fs::create_dir(&to).unwrap();
        for segment in fs::read_dir(from).unwrap() {
            let segment = segment.unwrap();
            fs::copy(segment.path(), to.join(segment.file_name())).unwrap();
        }
        let store = Arc::new(journaled(directory.path())?);
        let broker = Stored { store, directory }.open()?;
        broker.close();
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.broker.close();
    }
}

fn journaled(directory: &Path) -> Result<JournaledStore, StoreError> {
    JournaledStore::open(&directory.join(STORE), OPTIONS)
}

fn is_rollback(opened: &Result<(), BrokerError>) -> bool {
    matches!(opened, Err(BrokerError::Rollback { .. }))
}

#[test]
fn a_journal_that_is_gone_or_of_an_earlier_time_is_a_rollback() {
    let running = Running::start();
    running.write(3);
    running.stored.store.settle().unwrap();
    running.write(3);
    let earlier = running.copy_of(JOURNAL);
    running.write(3);
    let (store, journal) = (running.copy_of(STORE), running.copy_of(JOURNAL));
    assert!(running.open_with(&store, Some(&journal)).is_ok());
    for other in [None, Some(&earlier[..]), Some(&[]), Some(&vec![0; journal.len()])] {
        let opened = running.open_with(&store, other);
        assert!(is_rollback(&opened), "{opened:?}");
    }
}

#[test]
fn an_older_store_is_a_rollback_or_is_led_on_to_the_newest_state() {
    let running = Running::start();
    running.write(3);
    let before = running.copy_of(STORE);
    running.stored.store.settle().unwrap();
    running.write(3);
    let (older, older_journal) = (running.copy_of(STORE), running.copy_of(JOURNAL));
    running.write(3);
    let journal = running.copy_of(JOURNAL);
    // The frames begin where this copy ends.
    assert!(running.open_with(&older, Some(&journal)).is_ok());
    // Commits are missing between the two.
    let opened = running.open_with(&before, Some(&journal));
    assert!(matches!(opened, Err(BrokerError::Store(StoreError::Damaged(_)))), "{opened:?}");
    // Both of an earlier time.
    let opened = running.open_with(&older, Some(&older_journal));
    assert!(is_rollback(&opened), "{opened:?}");
    // After an end in order the journal leads nothing on.
    running.stored.store.settle().unwrap();
    let opened = running.open_with(&older, Some(&running.copy_of(JOURNAL)));
    assert!(is_rollback(&opened), "{opened:?}");
}

#[test]
fn the_journal_of_another_store_is_refused() {
    let (ours, theirs) = (Running::start(), Running::start());
    ours.write(3);
    theirs.write(3);
    let opened = ours.open_with(&ours.copy_of(STORE), Some(&theirs.copy_of(JOURNAL)));
    match opened {
        Err(BrokerError::Store(StoreError::Damaged(what))) => {
            assert!(what.contains("another store's"), "{what}");
        }
        opened => panic!("{opened:?}"),
    }
}
