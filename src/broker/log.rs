//! The audit log as admins and front ends see it: read, verified, followed, pruned.

use std::ops::ControlFlow;

use serde::Deserialize;

use super::{Broker, BrokerError, Notice, Result};
use crate::audit::{
    Action, AuditError, AuditKey, AuditLog, Entry, Event, Head, LogFile, Outcome, Totals, back,
    is_about, onward, tail,
};
use crate::model::{Caller, SecretName, Seq, Timestamp, Uid, Version};

impl Broker {
    /// Verifies the whole audit log: where it ends, or where it breaks.
    pub fn verify_audit(&self, caller: &Caller) -> Result<serde_json::Value> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "audit-verify")?;
        let unlocked = inner.unlocked()?;
        let anchor = unlocked.root.lock().audit;
        let key = AuditKey::new(unlocked.keyring.load().audit_key());
        let log = inner.gate.log()?;
        // What the file alone cannot tell from a line that is being written: that nobody else wrote there.
        log.check()?;
        log.sync()?;
        let verdict = crate::audit::verify(&inner.log.directory, &key, Some(&anchor));
        Ok(match verdict {
            Ok(verified) => serde_json::json!({
                "ok": true,
                "first": verified.first,
                "head": head_json(verified.head),
                "segments": verified.segments,
                "runs": verified.runs,
                "generation": verified.generation,
                "notes": verified.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }),
            Err(err) => {
                let why = err.to_string();
                inner.gate.record_damage(&why)?;
                serde_json::json!({ "ok": false, "error": why })
            }
        })
    }

    /// Opens the audit log for reading as one file, and records that an admin does.
    pub fn audit_log_open(&self, caller: &Caller) -> Result<LogReader> {
        let _admitted = self.inner.gate.admit_control(caller, "audit-log")?;
        self.inner.gate.record(&Event {
            caller: Some(caller),
            ..Event::new(Action::AuditRead, Outcome::Allowed)
        })?;
        self.audit_log_again()
    }

    /// Opens it for somebody whose opening is on record already.
    pub fn audit_log_again(&self) -> Result<LogReader> {
        LogFile::open(&self.inner.log.directory).map(LogReader).map_err(unreadable)
    }

    /// The size in bytes of the audit log as one file; needs admin.
    pub fn audit_log_size(&self, caller: &Caller) -> Result<u64> {
        self.must_be_admin(caller)?;
        self.audit_log_again()?.0.size().map_err(unreadable)
    }

    /// Reads from the audit log as one file; needs admin.
    pub fn audit_log_read(
        &self,
        caller: &Caller,
        log: &LogReader,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>> {
        self.must_be_admin(caller)?;
        let mut bytes = vec![0; len];
        let read = log.0.read_at(offset, &mut bytes).map_err(unreadable)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn must_be_admin(&self, caller: &Caller) -> Result<()> {
        if self.inner.gate.is_admin(caller) { Ok(()) } else { Err(BrokerError::Denied) }
    }

    /// Returns the lines of the log after `after`, with their secrets, the oldest first: for those who
    /// follow it, who may not be told of all of them.
    pub fn audit_tail(&self, after: u64) -> Result<Vec<(Seq, Option<SecretName>, String)>> {
        /// No more than is asked for: callers may wait.
        #[derive(Deserialize)]
        struct About {
            seq: Seq,
            secret: Option<SecretName>,
        }
        let texts = tail(&self.inner.log.directory, Seq(after)).map_err(unreadable)?;
        let lines = texts.into_iter().filter_map(|text| {
            let About { seq, secret } = serde_json::from_slice(&text).ok()?;
            Some((seq, secret, String::from_utf8(text).ok()?))
        });
        Ok(lines.collect())
    }

    /// Calls `visit` with each read that is on record, the youngest first, until it returns false. It is for the
    /// daemon's own use: whoever is told of it must be asked for before.
    pub fn each_reading_back(&self, visit: &mut dyn FnMut(Reading) -> bool) -> Result<()> {
        let visited = back(&self.inner.log.directory, &mut |_, line| {
            if Reading::in_line(line).is_none_or(&mut *visit) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        visited.map_err(unreadable)
    }

    /// Calls `visit` with each read that is on record after `after`, in their order. It is for the daemon's own use.
    pub fn each_reading_after(&self, after: Seq, visit: &mut dyn FnMut(Reading)) -> Result<()> {
        self.each_line_after(after, &mut |line| {
            Reading::in_line(line).into_iter().for_each(&mut *visit);
            ControlFlow::Continue(())
        })
    }

    /// Calls `visit` with each entry of the log after `after` and its line, in their order, until it breaks off. A
    /// line that is not understood is passed over: its number is missing. It is for the daemon's own use: whoever is
    /// told of it must be asked for before.
    pub fn each_entry_after(
        &self,
        after: Seq,
        visit: &mut dyn FnMut(&Entry, &str) -> ControlFlow<()>,
    ) -> Result<()> {
        self.each_line_after(after, &mut |line| {
            let text = std::str::from_utf8(line).unwrap_or_default();
            match serde_json::from_str(text) {
                Ok(entry) => visit(&entry, text),
                Err(_) => ControlFlow::Continue(()),
            }
        })
    }

    fn each_line_after(
        &self,
        after: Seq,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        /// Lines that are read into memory at one time.
        const NEAR: u64 = 20_000;
        let end = self.audit_seq();
        if end <= after.0 {
            return Ok(());
        }
        let directory = &self.inner.log.directory;
        if end - after.0 <= NEAR {
            let lines = tail(directory, after).map_err(unreadable)?;
            let _broken_off = lines.iter().try_for_each(|line| visit(line));
            return Ok(());
        }
        onward(directory, after, &mut |_, line| visit(line)).map_err(unreadable)
    }

    /// Puts a finding of the daemon's own on record.
    pub fn record_anomaly(
        &self,
        secret: Option<&SecretName>,
        finding: serde_json::Value,
    ) -> Result<()> {
        let detail = Some(finding);
        let event = Event::new(Action::Anomaly, Outcome::Allowed);
        self.inner.gate.record(&Event { secret, detail, ..event })
    }

    /// Seals what was learned from the log, for a file. Errors: `Sealed`.
    pub fn seal_learned(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let unlocked = self.inner.unlocked()?;
        unlocked.keyring.load().seal_learned(plain).map_err(BrokerError::Key)
    }

    /// Opens what [`seal_learned`](Self::seal_learned) has sealed. Errors: `Sealed`, `Key`.
    pub fn open_learned(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let unlocked = self.inner.unlocked()?;
        unlocked.keyring.load().open_learned(sealed).map_err(BrokerError::Key)
    }

    /// Returns the place of the last line that is on disk: those behind it may be lost by a power cut.
    pub fn audit_synced_seq(&self) -> u64 {
        self.inner.gate.log().map_or(0, |log| log.synced_head().seq.0)
    }

    /// Returns the place of the last line, 0 where there is none.
    pub fn audit_seq(&self) -> u64 {
        self.inner.gate.log().map_or(0, |log| log.head().seq.0)
    }

    /// The head of the audit chain: `seq` and `mac`.
    pub fn audit_head(&self) -> serde_json::Value {
        let head = self.inner.gate.log().map(AuditLog::head).unwrap_or_default();
        head_json(head)
    }

    /// Returns the counts of what retention has removed from the log, as JSON.
    pub fn audit_totals(&self) -> Result<String> {
        let totals = Totals::read(&self.inner.log.directory)?;
        serde_json::to_string(&totals).map_err(|error| unreadable(error.into()))
    }

    /// Removes audit segments that are past their retention; their totals stay.
    pub fn prune_audit(&self) -> Result<()> {
        self.inner.gate.log()?.prune(self.inner.clock.now())?;
        Ok(())
    }

    /// Calls `notify` with each audit line as it is written. It must not block. Takes effect once
    /// the store is unsealed for the first time.
    pub fn subscribe(&self, notify: Box<dyn Fn(&Notice<'_>) + Send + Sync>) {
        self.inner.gate.subscribe(Box::new(move |recorded| {
            notify(&Notice { seq: recorded.seq, secret: recorded.secret, line: recorded.line });
        }));
    }
}

/// The audit log as one file, as it is for one who has opened it: it keeps its place among the segments.
#[derive(Debug)]
pub struct LogReader(LogFile);

/// A read that was allowed, by a process that is known.
#[derive(Clone, Debug)]
pub struct Reading {
    pub secret: SecretName,
    pub version: Version,
    pub time: Timestamp,
    pub pid: u32,
    pub start_time: Timestamp,
    pub uid: Uid,
    pub exe: Option<String>,
    pub comm: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
}

impl Reading {
    /// Returns the one that a line is about, without reading any other line whole.
    fn in_line(line: &[u8]) -> Option<Self> {
        is_about(line, Action::Read).then_some(())?;
        Self::of(serde_json::from_slice(line).ok()?)
    }

    fn of(entry: Entry) -> Option<Self> {
        if entry.outcome != Outcome::Allowed {
            return None;
        }
        Some(Self {
            secret: entry.secret?,
            version: entry.version?,
            time: entry.time,
            pid: entry.pid?,
            start_time: entry.start_time?,
            uid: entry.uid?,
            exe: entry.exe,
            comm: entry.comm,
            unit: entry.unit,
            container: entry.container,
        })
    }
}

fn head_json(head: Head) -> serde_json::Value {
    let mac: String = head.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({ "seq": head.seq, "mac": mac })
}

pub(super) fn unreadable(err: std::io::Error) -> BrokerError {
    AuditError::Io(err).into()
}
