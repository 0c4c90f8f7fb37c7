//! Files under `.control`.

mod host;

pub use host::{Health, Host};
