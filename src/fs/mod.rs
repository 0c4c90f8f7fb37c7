//! The mounted tree.
#![forbid(unsafe_code)]
