//! Programs for people.
#![forbid(unsafe_code)]
