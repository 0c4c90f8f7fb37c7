//! Each attacker of THREATS, sections 1.1 to 1.4, on what must hold against it.
//!
//! Every test names its row. Rows that a unit test or another suite shows are named at the head of
//! the part that they belong to. `SECRETFS_CAMPAIGN=full` raises the counts.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    let_underscore_drop,
    missing_debug_implementations,
    reason = "a test program"
)]

#[path = "threats/attack.rs"]
mod attack;
#[path = "threats/audit.rs"]
mod audit;
#[path = "threats/callers.rs"]
mod callers;
mod common;
#[path = "threats/journal.rs"]
mod journal;
#[path = "threats/kernel.rs"]
mod kernel;
#[path = "threats/process.rs"]
mod process;
#[path = "threats/store.rs"]
mod store;

/// Uid 1000 may use `app/` but for what is locked in it.
const APP: &str = r#"
[[role]]
name = "app"
allow = [{ names = ["app/**"], levels = ["read", "write", "delete"] }]
deny = [{ names = ["app/locked"], levels = ["read", "write", "delete"] }]

[[binding]]
id = "app"
role = "app"
uid = [1000]
"#;

/// Tells whether campaigns run with their full counts.
fn full() -> bool {
    std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|value| value == "full")
}
