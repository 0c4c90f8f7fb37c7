//! What a binding asks of a caller. A fact that is not known meets no condition.

use std::ffi::{OsStr, OsString};
use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{Context, Term};
use crate::model::{Caller, Container, Exe, Gid, Process, Timestamp, Uid, WeeklyHours};

/// One condition; of a list any entry does.
#[derive(Debug)]
pub(super) enum Condition {
    /// The process is younger than this.
    AfterStart(SignedDuration),
    Container(Box<[ContainerRef]>),
    /// Paths, compared byte by byte with the program that runs right now.
    Exe(Box<[OsString]>),
    ExeSha256(Box<[[u8; 32]]>),
    /// The caller's own or a supplementary group.
    Gid(Box<[Gid]>),
    Schedule(WeeklyHours),
    /// Of a grant.
    Term(Term),
    Uid(Box<[Uid]>),
    /// Full cgroup paths without a leading slash.
    Unit(Box<[Box<str>]>),
    Until(Timestamp),
}

/// A container as a policy names it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ContainerRef {
    pub(super) runtime: Box<str>,
    pub(super) id: Box<str>,
}

impl Condition {
    pub(super) fn holds(&self, caller: &Caller, context: &Context<'_>) -> bool {
        let now = context.now;
        let process = caller.process.as_deref();
        match self {
            Self::AfterStart(limit) => process.is_some_and(|p| is_younger(p, *limit, now)),
            Self::Container(wanted) => process
                .and_then(|process| process.container.as_ref())
                .is_some_and(|found| wanted.iter().any(|wanted| wanted.fits(found))),
            Self::Exe(paths) => caller
                .exe_now
                .as_deref()
                .is_some_and(|exe| paths.iter().any(|path| path == exe.path.as_os_str())),
            Self::ExeSha256(digests) => {
                sha256(caller.exe_now.as_deref()).is_some_and(|found| digests.contains(&found))
            }
            Self::Gid(gids) => {
                let groups = caller.groups.as_deref().unwrap_or_default();
                gids.contains(&caller.gid) || groups.iter().any(|group| gids.contains(group))
            }
            Self::Schedule(schedule) => schedule.holds(now),
            Self::Term(term) => term.holds(now, context.uptime),
            Self::Uid(uids) => uids.contains(&caller.uid),
            Self::Unit(units) => process
                .and_then(|process| process.unit.as_ref())
                .is_some_and(|found| units.contains(found)),
            Self::Until(until) => now < *until,
        }
    }

    /// Says what was asked for and what is the case, for a condition that does not hold.
    pub(super) fn failure(&self, caller: &Caller, context: &Context<'_>) -> String {
        let now = context.now;
        let process = caller.process.as_deref();
        let found = match self {
            Self::AfterStart(_) => {
                process.map(|p| format!("the process started {:#} ago", age(p, now)))
            }
            Self::Container(_) => process
                .and_then(|p| p.container.as_ref())
                .map(|c| format!("it is {}:{}", c.runtime, c.id)),
            Self::Exe(_) => caller.exe_now.as_deref().map(|exe| format!("it is {:?}", exe.path)),
            Self::ExeSha256(_) => {
                sha256(caller.exe_now.as_deref()).map(|digest| format!("it is {}", hex(&digest)))
            }
            Self::Gid(_) => Some(format!("the groups are {}", groups(caller))),
            Self::Schedule(_) | Self::Term(_) | Self::Until(_) => Some(format!("it is {now}")),
            Self::Uid(_) => Some(format!("it is {}", caller.uid)),
            Self::Unit(_) => process.and_then(|p| p.unit.as_ref()).map(|u| format!("it is {u}")),
        };
        format!("{self}: {}", found.as_deref().unwrap_or("it is not known"))
    }
}

impl ContainerRef {
    /// Shortest part of an id that names a container, in hexadecimal digits.
    pub(super) const MIN_ID_DIGITS: usize = 12;

    fn fits(&self, found: &Container) -> bool {
        let is_prefix = self.id.len() >= Self::MIN_ID_DIGITS
            && self.id.bytes().all(|b| b.is_ascii_hexdigit())
            && found.id.starts_with(&*self.id);
        self.runtime == found.runtime && (self.id == found.id || is_prefix)
    }
}

fn sha256(exe: Option<&Exe>) -> Option<[u8; 32]> {
    exe.and_then(|exe| exe.sha256)
}

fn age(process: &Process, now: Timestamp) -> SignedDuration {
    now.duration_since(process.started)
}

/// A start in the future by more than the kernel's tick and some jitter means that the clock was
/// set back: the age is not known then, and a short window must not become a long one.
fn is_younger(process: &Process, limit: SignedDuration, now: Timestamp) -> bool {
    let age = age(process, now);
    age >= SignedDuration::from_secs(-1) && age < limit
}

fn groups(caller: &Caller) -> String {
    let mut all = vec![caller.gid.to_string()];
    match &caller.groups {
        Some(groups) => all.extend(groups.iter().map(Gid::to_string)),
        None => all.push("others that are not known".to_owned()),
    }
    all.join(" ")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Shows it as `uid 33 1001` or `unit system.slice/nginx.service`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T>(
            f: &mut fmt::Formatter<'_>,
            key: &str,
            items: &[T],
            show: impl Fn(&T) -> String,
        ) -> fmt::Result {
            f.write_str(key)?;
            items.iter().try_for_each(|item| write!(f, " {}", show(item)))
        }
        match self {
            Self::AfterStart(limit) => write!(f, "after_start {limit:#}"),
            Self::Container(all) => {
                list(f, "container", all, |c| format!("{}:{}", c.runtime, c.id))
            }
            Self::Exe(all) => list(f, "exe", all, |path| format!("{:?}", OsStr::new(path))),
            Self::ExeSha256(all) => list(f, "exe_sha256", all, |digest| hex(digest)),
            Self::Gid(all) => list(f, "gid", all, Gid::to_string),
            Self::Schedule(schedule) => schedule.fmt(f),
            Self::Term(term) => term.fmt(f),
            Self::Uid(all) => list(f, "uid", all, Uid::to_string),
            Self::Unit(all) => list(f, "unit", all, |unit| unit.to_string()),
            Self::Until(until) => write!(f, "until {until}"),
        }
    }
}
