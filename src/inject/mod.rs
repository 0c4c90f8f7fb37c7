//! How values reach programs that know nothing of secretfs: as variables, in files and in templates.
//!
//! Everything here is pure: text and values in, text out. Reading secrets, files and the environment is
//! the caller's. Values stay in locked memory; what a form cannot hold is an error that names the
//! variable and never shows the value.
#![forbid(unsafe_code)]

pub mod base64;
pub mod document;
pub mod dotenv;
pub mod format;
pub mod json;
pub mod mask;
pub mod oneiric;
pub mod suspect;
pub mod template;
pub mod variable;
pub mod yaml;

pub use format::{Format, FormatError};
pub use mask::Mask;
pub use template::{Lookup, TemplateError};
pub use variable::{Variable, VariableError, env_name, relative, variable_of};

use crate::system::{MemoryError, SecretBuffer};

/// Appends bytes.
pub(crate) fn push(to: &mut SecretBuffer, bytes: &[u8]) -> Result<(), MemoryError> {
    to.write_at(to.len(), bytes)
}
