//! Effects: what a rotation does outside of the store, in a process that holds neither store nor key.
//!
//! An [`Order`] is one step of one rotation, with the [`Values`] that this step needs. Whoever drives the
//! rotation hands it to a [`CarryOut`] and hears what came of it. Every step can be repeated, also after
//! an answer that never came: setting twice, finishing twice and undoing what was never set all succeed.
//! No answer holds a value, but the one of [`Task::Generate`].
//!
//! Alerts and lines of the log leave the same way, as a [`Delivery`]. Three things are no orders: with a [`Search`]
//! somebody looks at files in the place of who asks for it, with a [`KeyOrder`] asks a service to seal or open a key,
//! and a [`RemoteBackend`] is a service that keeps secrets, which the server itself cannot reach.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::SecretName;
use crate::system::SecretBytes;

mod address;
mod client;
mod command;
mod delivery;
mod key;
mod mask;
mod message;
mod notice;
mod permit;
mod place;
mod remote;
mod run;
mod search;
mod server;
mod ssh_key;
mod step;
mod stream;
mod target;
mod verifier;
mod web;

pub use address::{Address, AddressError};
pub use client::Effector;
pub use command::{Argv, Command};
pub use delivery::{Delivery, Journald, Message, Receiver, Syslog, Transport, Webhook};
pub use key::KeyOrder;
pub use notice::{Notice, Processes, Signal, SignalName, Unit, UnitAction};
pub use permit::Orders;
pub use place::{Copies, FileMode, NoPlace, Placement, PlacementKind, replace_link};
pub use remote::RemoteBackend;
pub use search::{MAX_REPORT_BYTES, Search, Searching, search_as_caller};
pub use server::{AskService, OpenBackend, carry_out_one, serve};
pub use target::{AuthorizedKeys, ExecTarget, Mysql, Postgresql, Redis, Target, Tls, Users};
pub use verifier::{Exec, Http, Nothing, Presented, Verifier};

/// One step of a rotation, to be carried out by somebody else.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Order {
    /// The rotation's id, which programs that are run are told.
    pub rotation: String,
    /// Of a delivery, none.
    pub secret: Option<SecretName>,
    /// After which the step is ended, whatever it is doing.
    pub timeout: Duration,
    pub task: Task,
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Task {
    /// Has a program make the new value.
    Generate(Command),
    /// Has the target accept the new value, beside the current one where it can hold two.
    Set(Target),
    /// Proves that the new value works.
    Verify {
        verifier: Verifier,
        /// Where a login is tried.
        target: Option<Target>,
    },
    /// Has the target accept the new value alone.
    Finish(Target),
    /// Has the target accept the current value alone.
    Undo(Target),
    /// Tells a consumer that there is a new value.
    Notify(Notice),
    /// Puts a secret where a program looks for a file; the new value is for a copy.
    Place(Placement),
    /// Takes that away.
    TakeAway(Placement),
    /// Takes messages to a receiver.
    Deliver(Delivery),
}

/// The values that go with an order. A program's output is masked of all of them, but of messages.
#[derive(Debug, Default)]
pub struct Values {
    pub current: Option<SecretBytes>,
    /// Of a delivery, its messages: see [`Message`].
    pub new: Option<SecretBytes>,
    /// Of the secret that [`Target::admin`] names, or the key of a [`Webhook`].
    pub admin: Option<SecretBytes>,
}

/// What came of an order.
#[derive(Debug)]
pub struct Report {
    /// One line for people, without any value.
    pub note: String,
    /// What [`Task::Generate`] has made.
    pub value: Option<SecretBytes>,
}

/// Carries orders out. Many threads may ask at the same time; an order that hangs holds up no other.
pub trait CarryOut: Send + Sync {
    /// Carries an order out and waits for it, no longer than its time.
    fn carry_out(&self, order: &Order, values: &Values) -> Result<Report, EffectError>;
}

/// Why an order was not carried out. None says more than its words, and no word is a value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum EffectError {
    /// Nobody carries orders out, or whoever did has died: what was done is not known.
    #[error("the effector is gone: {0}")]
    Gone(String),
    /// The order can never be carried out as it is.
    #[error("{0}")]
    Invalid(String),
    /// The other side has said no.
    #[error("refused: {0}")]
    Refused(String),
    /// What was done is not known.
    #[error("it took too long")]
    TimedOut,
    /// The other side was not there.
    #[error("unreachable: {0}")]
    Unreachable(String),
}

impl EffectError {
    /// Tells whether another try is of no use.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Refused(_) => true,
            Self::Gone(_) | Self::TimedOut | Self::Unreachable(_) => false,
        }
    }
}
