//! The operating system: the only module with `unsafe`.

mod memory;

pub use memory::SecretBytes;
