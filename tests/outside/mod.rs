//! What rotations change outside: a target that is a list of what it accepts, and fails as it is told.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by tests of which each uses a part"
)]

use std::collections::HashMap;

use parking_lot::Mutex;
use secretfs::effect::{CarryOut, EffectError, Order, Report, Task, Values};
use secretfs::system::SecretBytes;

/// A kind of step outside.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    Set,
    Verify,
    Finish,
    Undo,
    Notify,
}

impl Kind {
    fn of(task: &Task) -> Self {
        match task {
            Task::Set(_) => Self::Set,
            Task::Verify { .. } => Self::Verify,
            Task::Finish(_) => Self::Finish,
            Task::Undo(_) => Self::Undo,
            Task::Notify(_) => Self::Notify,
            Task::Deliver(_) | Task::Generate(_) | Task::Place(_) | Task::TakeAway(_) => {
                unreachable!("no rotation here orders it")
            }
        }
    }
}

/// How a step outside fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    Refuses,
    /// It takes too long, and nothing is done.
    HangsBefore,
    /// It takes too long, and it is done all the same.
    HangsAfter,
    /// Whoever carries it out dies, before or after.
    DiesBefore,
    DiesAfter,
}

pub const FAULTS: [Fault; 5] =
    [Fault::Refuses, Fault::HangsBefore, Fault::HangsAfter, Fault::DiesBefore, Fault::DiesAfter];

/// Is told what the target accepts.
pub type Watch = Box<dyn FnMut(&[Vec<u8>]) + Send>;

/// What the target accepts.
#[derive(Default)]
pub struct Target {
    pub accepted: Mutex<Vec<Vec<u8>>>,
    /// The next so many steps of a kind fail so.
    pub faults: Mutex<HashMap<Kind, (Fault, u32)>>,
    pub asked: Mutex<Vec<Kind>>,
    /// Called before and after each step.
    pub watch: Mutex<Option<Watch>>,
}

impl Target {
    pub fn fail(&self, kind: Kind, fault: Fault, times: u32) {
        self.faults.lock().insert(kind, (fault, times));
    }

    pub fn accepts(&self, value: &[u8]) -> bool {
        self.accepted.lock().iter().any(|accepted| accepted == value)
    }

    fn look(&self) {
        if let Some(watch) = &mut *self.watch.lock() {
            watch(&self.accepted.lock());
        }
    }

    fn fault(&self, kind: Kind) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (fault, left) = faults.get_mut(&kind)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    fn act(&self, task: &Task, values: &Values) -> Result<(), EffectError> {
        let value = |value: &Option<SecretBytes>| value.as_ref().unwrap().expose().to_vec();
        let mut accepted = self.accepted.lock();
        match task {
            Task::Set(target) if target.holds_two() => {
                *accepted = vec![value(&values.current), value(&values.new)];
            }
            Task::Set(_) | Task::Finish(_) => *accepted = vec![value(&values.new)],
            Task::Undo(_) => *accepted = vec![value(&values.current)],
            Task::Verify { .. } => {
                let new = value(&values.new);
                if !accepted.contains(&new) {
                    return Err(EffectError::Refused("no such credential".into()));
                }
            }
            Task::Deliver(_)
            | Task::Notify(_)
            | Task::Generate(_)
            | Task::Place(_)
            | Task::TakeAway(_) => {}
        }
        Ok(())
    }
}

impl CarryOut for Target {
    fn carry_out(&self, order: &Order, values: &Values) -> Result<Report, EffectError> {
        let kind = Kind::of(&order.task);
        self.asked.lock().push(kind);
        self.look();
        let fault = self.fault(kind);
        let done = match fault {
            None | Some(Fault::HangsAfter | Fault::DiesAfter) => self.act(&order.task, values),
            Some(Fault::Refuses | Fault::HangsBefore | Fault::DiesBefore) => Ok(()),
        };
        self.look();
        match fault {
            None => done.map(|()| Report { note: format!("{kind:?} done"), value: None }),
            Some(Fault::Refuses) => Err(EffectError::Refused("it says no".into())),
            Some(Fault::HangsBefore | Fault::HangsAfter) => Err(EffectError::TimedOut),
            Some(Fault::DiesBefore | Fault::DiesAfter) => {
                Err(EffectError::Gone("it has died".into()))
            }
        }
    }
}
