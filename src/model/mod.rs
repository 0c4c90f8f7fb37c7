//! The words of the domain: plain values that every other layer speaks.
//!
//! Nothing here does I/O, and every type is checked when it is made: code that holds one need not
//! ask again whether it is well formed.
#![forbid(unsafe_code)]

mod caller;
mod chain;
mod clock;
mod id;
mod injection;
mod level;
mod metadata;
mod name;
mod pattern;
mod secret_type;
mod text_error;
mod weekly_hours;

pub use caller::{Caller, Container, Exe, FindProcess, Needs, Process, Request};
pub use chain::chain;
pub use clock::{
    BootId, Clock, ManualClock, Timestamp, Uptime, micros, optional_micros, parse_span,
};
pub use id::{
    Epoch, Generation, Gid, GrantId, Inode, SecretId, Seq, Session, StoreId, Uid, Version,
};
pub use injection::{EnvName, Injection, InjectionError, OneiricPath, is_variable_name};
pub use level::{Level, Levels};
pub use metadata::{Attributes, Metadata, Status};
pub use name::{NameError, SecretName};
pub use pattern::{Pattern, PatternError};
pub use secret_type::SecretType;
pub use text_error::TextError;
pub use weekly_hours::{Days, Hours, WeeklyHours, time_zone};
