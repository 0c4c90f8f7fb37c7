//! Asking for a passphrase. It is taken byte for byte; no character is normalised.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use zeroize::Zeroizing;

use super::KeySourceError;
use crate::system::{SecretBytes, read_line};

/// Longest passphrase in bytes.
pub(super) const MAX_BYTES: usize = 4096;

/// Where a passphrase is had from.
pub enum PassphraseFrom {
    /// The first line that can be read there; the rest is left.
    Descriptor(RawFd),
    /// It is known already: written to the control file `unseal`.
    Given(SecretBytes),
    /// The controlling terminal, without echo.
    Terminal,
}

impl PassphraseFrom {
    /// Hands the passphrase to `used`.
    pub(super) fn ask<T>(
        &self,
        used: impl FnOnce(&SecretBytes) -> Result<T, KeySourceError>,
    ) -> Result<T, KeySourceError> {
        match self {
            Self::Descriptor(descriptor) => used(checked(&from_descriptor(*descriptor)?)?),
            Self::Given(passphrase) => used(checked(passphrase)?),
            Self::Terminal => used(checked(&prompt("Passphrase: ")?)?),
        }
    }

    /// As [`ask`](Self::ask), but what is typed must be typed twice.
    pub(super) fn ask_for_new<T>(
        &self,
        used: impl FnOnce(&SecretBytes) -> Result<T, KeySourceError>,
    ) -> Result<T, KeySourceError> {
        let Self::Terminal = self else { return self.ask(used) };
        let passphrase = prompt("New passphrase: ")?;
        checked(&passphrase)?;
        if !passphrase.constant_time_eq(&prompt("The same again: ")?) {
            return Err(KeySourceError::PassphrasesDiffer);
        }
        used(&passphrase)
    }
}

impl fmt::Debug for PassphraseFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(descriptor) => write!(f, "Descriptor({descriptor})"),
            Self::Given(_) => f.write_str("Given(..)"),
            Self::Terminal => f.write_str("Terminal"),
        }
    }
}

fn checked(passphrase: &SecretBytes) -> Result<&SecretBytes, KeySourceError> {
    match passphrase.len() {
        0 => Err(KeySourceError::EmptyPassphrase),
        1..=MAX_BYTES => Ok(passphrase),
        _ => Err(KeySourceError::PassphraseTooLong),
    }
}

fn from_descriptor(descriptor: RawFd) -> Result<SecretBytes, KeySourceError> {
    read_line(descriptor, MAX_BYTES).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            KeySourceError::PassphraseTooLong
        } else {
            KeySourceError::PassphraseUnreadable(error)
        }
    })
}

fn prompt(text: &str) -> Result<SecretBytes, KeySourceError> {
    let typed = rpassword::prompt_password(text).map_err(KeySourceError::NoTerminal)?;
    let typed = Zeroizing::new(typed);
    Ok(SecretBytes::copy_from(typed.as_bytes())?)
}
