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

    /// Returns the name of the system's unit that it belongs to. A user's manager and a container have units
    /// of the same names, which are others.
    pub(super) fn system_unit(&self) -> Option<&str> {
        let path = self.unit.as_deref()?;
        let top = path.split('/').next()?;
        let others = ["user.slice", "machine.slice"].contains(&top) || path.contains("/user@");
        if others || self.container.is_some() { None } else { path.rsplit('/').next() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(unit: &str, container: Option<&str>) -> Holder {
        Holder {
            secret: "app/key".parse().unwrap(),
            version: Version(1),
            current: Some(Version(2)),
            pid: 7,
            start_time: Timestamp::UNIX_EPOCH,
            uid: 0,
            exe: None,
            comm: Some("server".into()),
            unit: Some(unit.into()),
            container: container.map(str::to_owned),
            opened: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_the_system_s_own_units_are_restarted() {
        let unit = |path: &str| holder(path, None).system_unit().map(str::to_owned);
        assert_eq!(unit("system.slice/web.service").as_deref(), Some("web.service"));
        assert_eq!(
            unit("system.slice/system-web.slice/web@1.service").as_deref(),
            Some("web@1.service")
        );
        for other in [
            "user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "machine.slice/machine-web.scope",
        ] {
            assert_eq!(unit(other), None, "{other}");
        }
        assert_eq!(holder("system.slice/web.service", Some("podman:web")).system_unit(), None);
    }

    #[test]
    fn a_start_is_known_again_though_the_clock_was_set_a_little() {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        assert!(is_same(time(100), time(102)) && !is_same(time(100), time(103)));
    }
}
