//! One order in the hands of the process that carries it out.

use std::path::Path;

use super::mask::Mask;
use super::permit::Orders;
use super::{EffectError, Order, Placement, PlacementKind, Report, Task, Values};
use crate::credential::{self, ShapeError};
use crate::system::SecretBytes;
use crate::system::binds::enter_mounts;

/// What came of a step: a line for people.
pub(super) type Outcome = Result<String, EffectError>;

/// An order with its values.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) order: &'a Order,
    pub(super) values: &'a Values,
    pub(super) mask: &'a Mask,
    /// What may be ordered, and where the secrets are.
    pub(super) orders: &'a Orders,
}

impl Step<'_> {
    /// Does what the order says.
    pub(super) fn carry_out(&self) -> Result<Report, EffectError> {
        let note = match &self.order.task {
            Task::Generate(command) => return command.generate(self),
            Task::Set(target) => target.set(self),
            Task::Verify { verifier, target } => verifier.verify(target.as_ref(), self),
            Task::Finish(target) => target.finish(self),
            Task::Undo(target) => target.undo(self),
            Task::Notify(notice) => notice.send(self),
            Task::Place(placement) => {
                placement.place(self.mount_for(placement)?, self.values.new.as_ref())
            }
            Task::TakeAway(placement) => placement.take_away(self.mount_for(placement)?),
            Task::Deliver(delivery) => delivery.deliver(self),
        };
        Ok(Report { note: note?, value: None })
    }

    /// Returns the new value, without which most steps mean nothing.
    pub(super) fn new_value(&self) -> Result<&SecretBytes, EffectError> {
        self.values.new.as_ref().ok_or_else(|| invalid("the order has no new value"))
    }

    /// Returns where the secrets are, after this thread has gone where binds are made.
    fn mount_for(&self, placement: &Placement) -> Result<&Path, EffectError> {
        if let (PlacementKind::Bind, Some(namespace)) = (placement.kind, &self.orders.namespace) {
            enter_mounts(namespace).map_err(|error| {
                EffectError::Unreachable(format!("entering {}: {error}", namespace.display()))
            })?;
        }
        let mountpoint = self.orders.mountpoint.as_deref();
        mountpoint.ok_or_else(|| invalid("the effector was not told where the secrets are"))
    }

    /// Returns the secret's name; a delivery is of none.
    pub(super) fn secret(&self) -> &str {
        self.order.secret.as_ref().map_or("", |secret| secret.as_str())
    }

    /// Returns who changes the target, and with what password.
    pub(super) fn admin(
        &self,
        named: Option<&str>,
    ) -> Result<(Option<String>, Option<SecretBytes>), EffectError> {
        let Some(value) = &self.values.admin else { return Ok((named.map(str::to_owned), None)) };
        let password = credential::password(value).map_err(shapeless)?;
        Ok((named.map(str::to_owned).or_else(|| credential::user(value)), Some(password)))
    }
}

pub(super) fn invalid(why: &str) -> EffectError {
    EffectError::Invalid(why.to_owned())
}

pub(super) fn shapeless(error: ShapeError) -> EffectError {
    EffectError::Invalid(error.to_string())
}
