//! Which live processes still hold an older version: from what the daemon itself has served.
//!
//! The audit log knows who opened which version. A process counts by the version that it opened last; one
//! that has ended, or has opened the current version since, holds nothing.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use serde::Serialize;

use crate::broker::{Broker, BrokerError, Reading};
use crate::model::{Clock, SecretName, Seq, Timestamp, Version};
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

/// What live processes have opened, taken from the log as it grows: to read all of the log for each rotation
/// would take longer the longer the log is.
#[derive(Default)]
pub(super) struct Readers(Mutex<Followed>);

#[derive(Default)]
struct Followed {
    /// The last line that was looked at; `None`: nobody has asked yet.
    through: Option<Seq>,
    by: HashMap<u32, Process>,
}

/// A process with what it has opened.
struct Process {
    /// What it opened last, which says who it is.
    latest: Reading,
    opened: HashMap<SecretName, (Version, Timestamp)>,
}

/// Readings after which those that have ended are forgotten, so that no more is kept than of those who live.
const MANY: usize = 1 << 16;

impl Readers {
    /// Returns the live processes that have opened a secret (`None`: any), each with the version that it
    /// opened last, by name and process.
    pub(super) fn holders(
        &self,
        broker: &Broker,
        clock: &dyn Clock,
        secret: Option<&SecretName>,
    ) -> Result<Vec<Holder>, BrokerError> {
        let mut followed = self.0.lock();
        followed.catch_up(broker, clock)?;
        followed.forget_ended(clock);
        let mut found: Vec<Holder> = Vec::new();
        for process in followed.by.values() {
            let wanted = |name: &SecretName| secret.is_none_or(|secret| secret == name);
            let opened = process.opened.iter().filter(|(name, _)| wanted(name));
            found.extend(opened.map(|(name, opened)| holder(&process.latest, name, *opened)));
        }
        drop(followed);
        for holder in &mut found {
            holder.current = broker.subject(&holder.secret).ok().map(|subject| subject.current);
        }
        found.sort_by(|a, b| (&a.secret, a.pid).cmp(&(&b.secret, b.pid)));
        Ok(found)
    }

    /// Takes what the log has gained, if anybody has asked before: so the next one who does need not wait for it.
    pub(super) fn keep_up(&self, broker: &Broker, clock: &dyn Clock) -> Result<(), BrokerError> {
        let mut followed = self.0.lock();
        if followed.through.is_some() {
            followed.catch_up(broker, clock)?;
            followed.forget_ended(clock);
        }
        Ok(())
    }
}

impl Followed {
    fn catch_up(&mut self, broker: &Broker, clock: &dyn Clock) -> Result<(), BrokerError> {
        let end = Seq(broker.audit_seq());
        match self.through {
            Some(through) => {
                let mut news = 0;
                broker.each_reading_after(through, &mut |reading| {
                    self.take(reading);
                    news += 1;
                    if news % MANY == 0 {
                        self.forget_ended(clock);
                    }
                })?;
            }
            None => self.look_back(broker, clock)?,
        }
        self.through = Some(end);
        Ok(())
    }

    /// Takes what processes have opened that live now, from the end of the log backwards.
    fn look_back(&mut self, broker: &Broker, clock: &dyn Clock) -> Result<(), BrokerError> {
        let alive = alive(clock.now());
        let oldest = alive.values().min().copied().unwrap_or(Timestamp::MAX);
        broker.each_reading_back(&mut |reading| {
            // Nobody who lives has read anything before the first of them was started.
            if reading.time < oldest {
                return false;
            }
            if is_one_of(&alive, &reading) {
                let (pid, name) = (reading.pid, reading.secret.clone());
                let opened = (reading.version, reading.time);
                let new = || Process { latest: reading, opened: HashMap::new() };
                self.by.entry(pid).or_insert_with(new).opened.entry(name).or_insert(opened);
            }
            true
        })
    }

    /// Takes a reading that is younger than those before.
    fn take(&mut self, reading: Reading) {
        let known = self.by.remove(&reading.pid);
        // Its number may have been another's before.
        let known = known.filter(|known| is_same(known.latest.start_time, reading.start_time));
        let mut opened = known.map(|known| known.opened).unwrap_or_default();
        opened.insert(reading.secret.clone(), (reading.version, reading.time));
        self.by.insert(reading.pid, Process { latest: reading, opened });
    }

    fn forget_ended(&mut self, clock: &dyn Clock) {
        let alive = alive(clock.now());
        self.by.retain(|_, process| is_one_of(&alive, &process.latest));
    }
}

fn holder(who: &Reading, secret: &SecretName, (version, opened): (Version, Timestamp)) -> Holder {
    Holder {
        secret: secret.clone(),
        version,
        current: None,
        pid: who.pid,
        start_time: who.start_time,
        uid: who.uid.0,
        exe: who.exe.clone(),
        comm: who.comm.clone(),
        unit: who.unit.clone(),
        container: who.container.clone(),
        opened,
    }
}

fn is_one_of(alive: &HashMap<u32, Timestamp>, reading: &Reading) -> bool {
    alive.get(&reading.pid).is_some_and(|started| is_same(*started, reading.start_time))
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
