//! Scanning: finds secrets that are where they should not be, in files, archives and histories.
//!
//! It needs no store and no mount. [`Engine`] finds candidates in a text, [`walk`] feeds it with files, and
//! [`report`] writes down what was found, without the secrets. What a file holds is plaintext that others put
//! there: it lives in ordinary buffers, and leaves them as [`Redacted`] text alone.
#![forbid(unsafe_code)]

mod archive;
mod assignment;
mod block;
mod candidate;
mod check;
mod class;
mod confidence;
mod decode;
mod engine;
mod entropy;
mod examples;
mod file;
mod file_kind;
mod finding;
mod fragment;
pub mod git;
mod glob;
mod inspect;
mod name;
mod redact;
pub mod report;
mod resolve;
mod rule;
mod runs;
mod severity;
mod shape;
mod stored;
mod suppress;
mod utf16;
mod value;
pub mod walk;
mod words;

pub use candidate::{Encoding, Reason};
pub use engine::Engine;
pub use file::{Wanted, scan_reader};
pub use file_kind::FileKind;
pub use finding::{Commit, Finding, Fingerprint, Place, Scan, State, Suppression, Totals, Unread};
pub use glob::Glob;
pub use inspect::{Inspector, Objection};
pub use redact::Redacted;
pub use rule::{Rule, RuleError, RuleSet};
pub use severity::{Confidence, Severity};
pub use stored::{Origin, Stored};
pub use suppress::Baseline;
