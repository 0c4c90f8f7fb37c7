//! Rotation: a new credential is made, accepted where it is used, proven to work, and only then given to
//! readers; consumers are told, and the old one is retired when nobody holds it any more.
//!
//! Each step is on record before it is taken, and safe to repeat: a crash at any point ends, at the next
//! start, in a state in which what the target accepts is what readers get. What reaches out of the
//! process is an effect, carried out by another one.
#![forbid(unsafe_code)]

mod act;
mod adoption;
mod bell;
mod due;
mod elsewhere;
mod make;
mod note;
mod outcome;
mod progress;
mod rotator;
mod run;
mod settings;
mod workers;

pub use adoption::Holder;
pub use due::Due;
pub use outcome::{Outcome, StepDone, StepName};
pub use progress::State;
pub use rotator::{Options, Parts, Rotations, Rotator, ValueFrom};
pub use settings::Settings;
