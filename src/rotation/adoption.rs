//! Which live processes still hold an older version: from what the daemon itself has served.
//!
//! The audit log knows who opened which version. A process counts by the version that it opened last; one
//! that has ended, or has opened the current version since, holds nothing.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::broker::{Broker, BrokerError, Reading};
use crate::model::{Clock, SecretName, Timestamp, Version};
use crate::system::procfs;

/// A live process with the version that it opened last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    pub secret: SecretName,
    pub version: Version,
    /// The one that is current now; `None`: there is no such secret any more.
    pub current: Option<Version>,
    pub pid: u32,
    pub start_time: Timestamp,
    pub uid: u32,
    pub exe: Option<String>,
    pub comm: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    /// When it opened it.
    pub opened: Timestamp,
}

impl Holder {
    /// Tells whether it has not seen the current version.
    pub fn is_stale(&self) -> bool {
        self.current.is_none_or(|current| self.version < current)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.comm.as_deref().unwrap_or("?").escape_default();
        write!(f, "{program} (pid {}, version {})", self.pid, self.version)
    }
}

/// Returns the live processes that have opened a secret (`None`: any), each with the version that it
/// opened last, by name and process.
pub fn holders(
    broker: &Broker,
    clock: &dyn Clock,
    secret: Option<&SecretName>,
) -> Result<Vec<Holder>, BrokerError> {
    let alive = alive(clock.now());
    let oldest = alive.values().min().copied().unwrap_or(Timestamp::MAX);
    let is_alive = |reading: &Reading| {
        let started = alive.get(&reading.pid);
        started.is_some_and(|started| is_same(*started, reading.start_time))
    };
    let mut found: Vec<Holder> = Vec::new();
    let mut seen = HashSet::new();
    broker.each_reading_back(secret, &mut |reading| {
        // Nobody who lives has read anything before the first of them was started.
        if reading.time < oldest {
            return false;
        }
        if is_alive(&reading) && seen.insert((reading.pid, reading.secret.clone())) {
            found.push(holder(reading));
        }
        true
    })?;
    for holder in &mut found {
        holder.current = broker.subject(&holder.secret).ok().map(|subject| subject.current);
    }
    found.sort_by(|a, b| (&a.secret, a.pid).cmp(&(&b.secret, b.pid)));
    Ok(found)
}

fn holder(reading: Reading) -> Holder {
    let Reading { secret, version, pid, start_time, time, uid, exe, comm, unit, container } =
        reading;
    Holder {
        secret,
        version,
        current: None,
        pid,
        start_time,
        uid: uid.0,
        exe,
        comm,
        unit,
        container,
        opened: time,
    }
}

/// Returns every process with the time at which it was started.
fn alive(now: Timestamp) -> HashMap<u32, Timestamp> {
    let pids = procfs::pids().unwrap_or_default().into_iter();
    let started = pids.filter_map(|pid| {
        let stat = procfs::stat(pid).ok()?;
        Some((pid, procfs::wall_time(stat.start_ticks, now).ok()?))
    });
    started.collect()
}

/// Tells whether two times are of one start: each was worked out from the boot's clock and the wall's at
/// another moment, and the latter may have been set a little meanwhile.
fn is_same(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() <= jiff::SignedDuration::from_secs(2)
}
