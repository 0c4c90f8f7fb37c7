//! Guards: what must be met besides a rule that allows, on the names and levels that it is put over.
//!
//! A guard allows nothing, and no rule of the policy, no plain grant and no admin passes it.

use std::fmt;
use std::sync::Arc;

use super::rule::Names;
use super::{Binding, Target};
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

    pub(super) fn selects(&self, target: Target<'_>) -> bool {
        match target {
            Target::Secret { name, .. } => self.names.iter().any(|names| names.matches(name)),
            Target::Store => false,
        }
    }

    /// Tells whether it is over every name below the directory (`None`: the root).
    pub(super) fn covers(&self, dir: Option<&SecretName>) -> bool {
        self.names.iter().any(|names| names.covers(dir))
    }

    pub(super) fn is_met_by(&self, binding: &Binding) -> bool {
        self.approvers <= binding.approvals
    }
}

/// Shows it as `read on names prod/root/*: 2 approvers`.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on names", self.levels)?;
        self.names.iter().try_for_each(|names| write!(f, " {names}"))?;
        match self.approvers {
            1 => f.write_str(": 1 approver"),
            several => write!(f, ": {several} approvers"),
        }
    }
}
