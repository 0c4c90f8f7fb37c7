//! The mounted tree.
#![forbid(unsafe_code)]

pub mod control;
