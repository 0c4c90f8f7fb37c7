//! The tests of the store: what both implementations promise, and what redb's file survives.

mod conformance;
mod crash;
mod damage;
mod disk;
mod file;
