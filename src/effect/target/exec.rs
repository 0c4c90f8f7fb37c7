//! A target that a program of the administrator's changes.

use super::ExecTarget;
use crate::effect::step::{Outcome, Step};

impl ExecTarget {
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        self.command.with_values("set", step)
    }

    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        self.command.with_values("verify", step)
    }

    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        self.command.with_values("finish", step)
    }

    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        self.command.with_values("rollback", step)
    }
}
