//! `.control/restore`: takes a whole backup, and then puts it in the store's place.
//!
//! What is written goes to an unnamed file, sealed as it is. At close(2) or fsync(2) a thread of its
//! own begins; whoever waits is told the verdict, or EINPROGRESS at the deadline. fsync(2) waits
//! again, and reading the file tells how far the last restore is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::json;

use super::Host;
use crate::broker::{BrokerError, StoreError};
use crate::fs::error::{FsError, Result};
use crate::model::Caller;

/// The restore that was begun last.
#[derive(Debug, Default)]
pub(in crate::fs) struct LastRestore(Mutex<Option<Arc<Restore>>>);

/// One handle's backup, and what became of it.
#[derive(Debug)]
pub(in crate::fs) struct Restore {
    stage: Mutex<Stage>,
    ended: Condvar,
}

#[derive(Debug)]
enum Stage {
    Taking { spool: File, bytes: u64 },
    Running { bytes: u64 },
    Ended { bytes: u64, outcome: std::result::Result<(), Arc<BrokerError>> },
}

impl LastRestore {
    /// Says how far it is.
    pub(in crate::fs) fn text(&self) -> String {
        let last = self.0.lock().clone();
        last.map_or_else(|| line(&json!({ "state": "none" })), |restore| restore.text())
    }

    fn replace(&self, restore: &Arc<Restore>) {
        *self.0.lock() = Some(restore.clone());
    }
}

impl Restore {
    /// Returns an empty one.
    pub(in crate::fs) fn new(spool: File) -> Arc<Self> {
        let stage = Mutex::new(Stage::Taking { spool, bytes: 0 });
        Arc::new(Self { stage, ended: Condvar::new() })
    }

    /// Takes bytes at the end, where `offset` must be if there is one.
    pub(in crate::fs) fn write(&self, offset: Option<u64>, data: &[u8]) -> Result<()> {
        let mut stage = self.stage.lock();
        let Stage::Taking { spool, bytes } = &mut *stage else { return Err(FsError::Invalid) };
        if offset.is_some_and(|offset| offset != *bytes) {
            return Err(FsError::Invalid);
        }
        spool.write_all_at(data, *bytes).map_err(StoreError::Io).map_err(BrokerError::from)?;
        *bytes += data.len() as u64;
        Ok(())
    }

    /// Forgets what was taken.
    pub(in crate::fs) fn clear(&self) -> Result<()> {
        let mut stage = self.stage.lock();
        let Stage::Taking { spool, bytes } = &mut *stage else { return Err(FsError::Invalid) };
        spool.set_len(0).map_err(StoreError::Io).map_err(BrokerError::from)?;
        *bytes = 0;
        Ok(())
    }

    /// Tells whether there is anything to begin with or to wait for.
    pub(in crate::fs) fn has_bytes(&self) -> bool {
        !matches!(*self.stage.lock(), Stage::Taking { bytes: 0, .. })
    }

    /// Begins unless it has begun, and waits for the end. Errors: `InProgress` where that is later.
    pub(in crate::fs) fn finish(
        self: &Arc<Self>,
        host: &Arc<dyn Host>,
        opener: &Caller,
        last: &LastRestore,
        at_most: Duration,
    ) -> Result<()> {
        let until = Instant::now() + at_most;
        let mut stage = self.stage.lock();
        if let Stage::Taking { spool, bytes } = &*stage {
            if *bytes == 0 {
                return Ok(());
            }
            let backup = spool.try_clone().map_err(StoreError::Io).map_err(BrokerError::from)?;
            let bytes = *bytes;
            self.begin(host.clone(), opener.clone(), backup, bytes)?;
            *stage = Stage::Running { bytes };
            last.replace(self);
        }
        loop {
            if let Stage::Ended { outcome, .. } = &*stage {
                return outcome.clone().map_err(FsError::Told);
            }
            if self.ended.wait_until(&mut stage, until).timed_out() {
                return Err(FsError::InProgress);
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        host: Arc<dyn Host>,
        opener: Caller,
        backup: File,
        bytes: u64,
    ) -> Result<()> {
        let verdict = Verdict { restore: self.clone(), bytes, outcome: None };
        let run = move || verdict.reach(host.restore(&opener, backup));
        let begun = thread::Builder::new().name("restore".into()).spawn(run);
        begun.map_err(|error| BrokerError::from(StoreError::Io(error)))?;
        Ok(())
    }

    /// Says how far it is.
    pub(in crate::fs) fn text(&self) -> String {
        line(&match &*self.stage.lock() {
            Stage::Taking { bytes, .. } => json!({ "state": "taking", "bytes": bytes }),
            Stage::Running { bytes } => json!({ "state": "running", "bytes": bytes }),
            Stage::Ended { bytes, outcome: Ok(()) } => {
                json!({ "state": "restored", "bytes": bytes })
            }
            Stage::Ended { bytes, outcome: Err(error) } => {
                json!({ "state": "failed", "bytes": bytes, "error": error.to_string() })
            }
        })
    }
}

/// Tells the waiters when the thread ends, also by a panic.
struct Verdict {
    restore: Arc<Restore>,
    bytes: u64,
    outcome: Option<std::result::Result<(), BrokerError>>,
}

impl Verdict {
    fn reach(mut self, outcome: std::result::Result<(), BrokerError>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Err(StoreError::Broken.into()));
        *self.restore.stage.lock() =
            Stage::Ended { bytes: self.bytes, outcome: outcome.map_err(Arc::new) };
        self.restore.ended.notify_all();
    }
}

fn line(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::Value;

    use super::super::Health;
    use super::*;
    use crate::model::{Gid, Uid};
    use crate::system::SecretBytes;

    const SOON: Duration = Duration::from_millis(10);
    const LATE: Duration = Duration::from_secs(20);

    /// A program around the tree whose restore takes as long as its lock is held.
    struct Slow(Arc<Mutex<std::result::Result<(), &'static str>>>);

    impl Host for Slow {
        fn restore(&self, _: &Caller, backup: File) -> std::result::Result<(), BrokerError> {
            assert_eq!(backup.metadata().unwrap().len(), 6);
            self.0.lock().map_err(|why| BrokerError::Invalid(why.into()))
        }

        fn anomalies(&self) -> String {
            unreachable!()
        }

        fn injections(&self) -> String {
            unreachable!()
        }

        fn health(&self) -> Health {
            Health::Ok
        }

        fn status(&self) -> Vec<(String, String)> {
            unreachable!()
        }

        fn rotate(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn elevate(&self, _: &Caller, _: &SecretBytes) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn grant(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn revoke_grant(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn holders(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn scan(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn metrics(&self, _: &super::super::Held) -> String {
            unreachable!()
        }

        fn reload(&self, _: &Caller) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn seal(&self, _: &Caller) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn unseal(
            &self,
            _: &Caller,
            _: Option<SecretBytes>,
        ) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn admin(&self, _: &Caller, _: &Value) -> std::result::Result<Value, BrokerError> {
            unreachable!()
        }

        fn backup(&self, _: &Caller, _: &mut dyn Write) -> std::result::Result<(), BrokerError> {
            unreachable!()
        }

        fn spool(&self) -> std::result::Result<File, BrokerError> {
            unreachable!()
        }
    }

    fn admin() -> Caller {
        Caller::with_ids(Uid(0), Gid(0))
    }

    fn taken() -> Arc<Restore> {
        let restore = Restore::new(tempfile::tempfile().unwrap());
        restore.write(Some(0), b"abc").unwrap();
        restore.write(None, b"def").unwrap();
        restore
    }

    #[test]
    fn a_restore_goes_on_past_the_deadline_and_tells_its_verdict_to_whoever_waits_again() {
        let (outcome, last) = (Arc::new(Mutex::new(Ok(()))), LastRestore::default());
        let host: Arc<dyn Host> = Arc::new(Slow(outcome.clone()));
        assert!(last.text().contains("none"));
        let restore = taken();
        let held = outcome.lock();
        for _ in 0..2 {
            let waited = restore.finish(&host, &admin(), &last, SOON);
            assert!(matches!(waited, Err(FsError::InProgress)), "{waited:?}");
            assert!(last.text().contains("running"));
        }
        assert!(matches!(restore.write(None, b"g"), Err(FsError::Invalid)));
        drop(held);
        for _ in 0..2 {
            restore.finish(&host, &admin(), &last, LATE).unwrap();
        }
        assert!(last.text().contains("restored"));
    }

    #[test]
    fn a_restore_that_fails_says_why_to_each_who_asks() {
        let host: Arc<dyn Host> = Arc::new(Slow(Arc::new(Mutex::new(Err("it is cut")))));
        let (restore, last) = (taken(), LastRestore::default());
        for _ in 0..2 {
            let told = restore.finish(&host, &admin(), &last, LATE).unwrap_err();
            assert!(matches!(&told, FsError::Told(why) if why.to_string() == "it is cut"));
        }
        assert!(restore.text().contains("it is cut") && last.text().contains("failed"));
    }

    #[test]
    fn what_is_not_in_order_or_empty_is_no_restore() {
        let host: Arc<dyn Host> = Arc::new(Slow(Arc::new(Mutex::new(Ok(())))));
        let (restore, last) = (taken(), LastRestore::default());
        assert!(matches!(restore.write(Some(5), b"x"), Err(FsError::Invalid)));
        restore.clear().unwrap();
        assert!(!restore.has_bytes());
        restore.finish(&host, &admin(), &last, LATE).unwrap();
        assert!(last.text().contains("none"));
    }
}
