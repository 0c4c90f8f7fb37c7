//! Guards: what must be met besides a rule that allows, on the names and levels that it is put over.
//!
//! A guard allows nothing, and no rule of the policy, no plain grant and no admin passes it.

use std::fmt;
use std::sync::Arc;

use super::rule::Names;
use super::{Policy, Reason, Target};
use crate::model::{Level, Levels, SecretName};

/// One guard.
#[derive(Debug)]
pub(super) struct Guard {
    /// Its place among the guards, from 1.
    pub(super) number: usize,
    pub(super) names: Box<[Names]>,
    pub(super) levels: Levels,
    /// How many admins must agree, who asks not counted.
    pub(super) approvers: u32,
    /// Whether the login session must be elevated.
    pub(super) require_mfa: bool,
}

/// What is there to meet a guard with: the approvals of a grant, and the session's elevation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    pub(super) approvals: u32,
    pub(super) elevated: bool,
}

impl Guard {
    /// Returns what decisions and audit lines call it.
    pub(super) fn label(&self) -> Arc<str> {
        format!("guard {}", self.number).into()
    }

    /// Returns the levels that it keeps: `admin` with each, because that would imply it.
    pub(super) fn levels(&self) -> Levels {
        self.levels.union(Levels::from_iter([Level::Admin]))
    }

    pub(super) fn guards(&self, level: Level, target: Target<'_>) -> bool {
        self.levels().names(level) && self.selects(target)
    }

    /// Tells whether it is over the target. No approval can be had for the store as a whole.
    pub(super) fn selects(&self, target: Target<'_>) -> bool {
        match target {
            Target::Secret { name, .. } => self.names.iter().any(|names| names.matches(name)),
            Target::Store => self.require_mfa && self.covers(None),
        }
    }

    /// Tells whether it is over every name below the directory (`None`: the root).
    pub(super) fn covers(&self, dir: Option<&SecretName>) -> bool {
        self.names.iter().any(|names| names.covers(dir))
    }

    /// Says what is missing.
    pub(super) fn lacks(&self, means: Means, target: Option<Target<'_>>) -> Option<Reason> {
        let is_store = matches!(target, Some(Target::Store));
        if self.approvers > means.approvals && !is_store {
            Some(Reason::NeedsApproval)
        } else if self.require_mfa && !means.elevated {
            Some(Reason::NeedsElevation)
        } else {
            None
        }
    }
}

impl Policy {
    /// Tells whether some guard is over one name and not over another.
    pub fn leaves_guard(&self, from: &SecretName, to: &SecretName) -> bool {
        let target = |name| Target::Secret { name, attributes: None };
        self.guards.iter().any(|guard| guard.selects(target(from)) && !guard.selects(target(to)))
    }

    /// Returns how many admins must agree before anybody has those levels on the target.
    pub fn approvers(&self, levels: Levels, target: Target<'_>) -> u32 {
        let guards = self.guards.iter().filter(|guard| {
            let mut asked = levels.iter();
            asked.any(|level| guard.guards(level, target))
        });
        guards.map(|guard| guard.approvers).max().unwrap_or(0)
    }
}

/// Shows it as `read on names prod/root/*: 2 approvers, elevation`.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on names", self.levels)?;
        self.names.iter().try_for_each(|names| write!(f, " {names}"))?;
        let approvers = match self.approvers {
            0 => None,
            1 => Some("1 approver".to_owned()),
            several => Some(format!("{several} approvers")),
        };
        let elevation = self.require_mfa.then(|| "elevation".to_owned());
        let needs: Vec<String> = approvers.into_iter().chain(elevation).collect();
        write!(f, ": {}", needs.join(", "))
    }
}
