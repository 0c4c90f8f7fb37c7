//! Exactly once: what an earlier server did for requests that the kernel sends again.
//!
//! Each line of the log carries the number of the request that it was written for. A line that says
//! that something is allowed is not written a second time for the same request; and a change was
//! made if, and only if, the store's own anchor reaches its line, for the two are committed together.
//! A change whose line is there and which was not made gets a second line that says so, and is made
//! anew.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::log::unreadable;
use super::{Broker, BrokerError, Result};
use crate::audit::{Action, AuditLog, Entry, Event, Outcome, written_for};
use crate::model::{Caller, Request, SecretId, SecretName, Seq, Status, Version};
use crate::system::SecretBytes;

/// What is known of requests that were in hand when a server died.
#[derive(Default)]
pub(super) struct Replay {
    /// The last line that the store knew of when it was opened.
    anchored: AtomicU64,
    requests: OnceLock<Mutex<Requests>>,
}

/// By the request's number.
type Requests = HashMap<u64, Vec<Past>>;

/// A line that was written for a request.
struct Past {
    line: Entry,
    /// Of a change: whether it was made.
    done: bool,
}

impl Broker {
    /// Learns what was done for `interrupted` requests, whose lines come after `after`. To be called
    /// once, before the first request. Errors: `Sealed`, `Audit`.
    pub fn adopt(&self, after: u64, interrupted: &HashSet<u64>) -> Result<()> {
        let inner = &*self.inner;
        let log = inner.gate.log()?;
        let lines =
            written_for(&inner.log.directory, Seq(after), interrupted).map_err(unreadable)?;
        let lines = lines.iter().filter_map(|text| serde_json::from_slice::<Entry>(text).ok());
        let anchored = inner.replay.anchored.load(Ordering::Relaxed);
        let mut requests = Requests::new();
        for line in lines {
            let Some(request) = line.request else { continue };
            let past = requests.entry(request).or_default();
            if line.outcome == Outcome::Failed {
                // It takes back the line before it of the same kind.
                past.retain(|past| past.line.action != line.action);
            }
            let done = line.outcome == Outcome::Allowed && line.seq.0 <= anchored;
            past.push(Past { line, done });
        }
        for past in requests.values_mut() {
            for Past { line, .. } in past.extract_if(.., |past| past.is_undone_change()) {
                take_back(log, &line)?;
            }
        }
        drop(inner.replay.requests.set(Mutex::new(requests)));
        Ok(())
    }

    /// Reads a version that a handle of an earlier server has pinned. That the handle was opened is
    /// on record, and this is not recorded again.
    pub fn read_again(&self, id: SecretId, version: Version) -> Result<SecretBytes> {
        let unlocked = self.inner.unlocked()?;
        self.check_not_revoked(id)?;
        self.inner.open_value(&unlocked, id, version)
    }

    /// Fails with `Revoked` for a secret that is revoked now.
    pub fn check_not_revoked(&self, id: SecretId) -> Result<()> {
        let record = self.inner.secret_record(&*self.inner.unlocked()?, id)?;
        if record.metadata.status == Status::Revoked {
            return Err(BrokerError::Revoked(record.name));
        }
        Ok(())
    }

    /// Tells whether the request that the caller repeats has made a version already.
    pub fn was_written(&self, caller: &Caller) -> bool {
        [Action::Write, Action::Stage].into_iter().any(|action| self.done(caller, action).is_some())
    }

    /// Returns the version (0 where there is none) of a change that an earlier server has made for
    /// the request that the caller repeats.
    pub(super) fn done(&self, caller: &Caller, action: Action) -> Option<Version> {
        self.inner.replay.find(caller, |past| past.done && past.line.action == action)
    }
}

impl Replay {
    /// Notes how far the store's own account of the log reaches, before anything is committed.
    pub(super) fn anchored_at(&self, seq: Seq) {
        self.anchored.store(seq.0, Ordering::Relaxed);
    }

    /// Returns the version that an earlier server recorded as read for the same request.
    pub(super) fn version_read(&self, caller: &Caller, secret: &SecretName) -> Option<Version> {
        self.find(caller, |Past { line, .. }| {
            let allowed = (line.action, line.outcome) == (Action::Read, Outcome::Allowed);
            allowed && line.secret.as_ref() == Some(secret)
        })
    }

    /// Tells whether an earlier server has written this very line for the same request; once a line.
    pub(super) fn is_recorded(&self, event: &Event<'_>) -> bool {
        let Some((request, requests)) = self.resent(event.caller) else { return false };
        let mut requests = requests.lock();
        let Some(past) = requests.get_mut(&request) else { return false };
        let same = |Past { line, .. }: &Past| {
            (line.action, line.outcome, line.version)
                == (event.action, event.outcome, event.version)
                && line.secret.as_ref() == event.secret
        };
        let found = past.iter().position(same).map(|at| past.swap_remove(at));
        found.is_some()
    }

    fn find(&self, caller: &Caller, wanted: impl Fn(&Past) -> bool) -> Option<Version> {
        let (request, requests) = self.resent(Some(caller))?;
        let requests = requests.lock();
        let found = requests.get(&request)?.iter().find(|past| wanted(past))?;
        Some(found.line.version.unwrap_or_default())
    }

    fn resent(&self, caller: Option<&Caller>) -> Option<(u64, &Mutex<Requests>)> {
        match caller?.request {
            Some(Request { number, resent: true }) => Some((number, self.requests.get()?)),
            Some(Request { resent: false, .. }) | None => None,
        }
    }
}

impl Past {
    fn is_undone_change(&self) -> bool {
        let Self { line, done } = self;
        line.outcome == Outcome::Allowed && !done && is_change(line.action)
    }
}

/// Tells whether an action is one that the writer commits.
fn is_change(action: Action) -> bool {
    [
        Action::BreakGlass,
        Action::CreateDirectory,
        Action::Delete,
        Action::Destroy,
        Action::Elevate,
        Action::Grant,
        Action::GrantApprove,
        Action::GrantRequest,
        Action::GrantRevoke,
        Action::KeyChange,
        Action::MfaEnrol,
        Action::MfaForget,
        Action::Promote,
        Action::RemoveDirectory,
        Action::Rename,
        Action::Restore,
        Action::SetAttribute,
        Action::Stage,
        Action::Write,
    ]
    .contains(&action)
}

/// Writes the line that says that another did not happen.
fn take_back(log: &AuditLog, line: &Entry) -> Result<()> {
    let request = line.request.map(|number| Request { number, resent: true });
    let ids = line.uid.zip(line.gid).map(|(uid, gid)| Caller::with_ids(uid, gid));
    let caller = ids.map(|caller| Caller { request, ..caller });
    log.append(&Event {
        secret: line.secret.as_ref(),
        version: line.version,
        caller: caller.as_ref(),
        reason: Some("the server died before it was committed"),
        detail: line.detail.clone(),
        ..Event::new(line.action, Outcome::Failed)
    })?;
    Ok(())
}
