//! Credentials in files, which whoever gives them out may write anew at any time.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{BackendError, Result};
use crate::system::SecretBytes;

/// The longest file with a credential.
const MAX_FILE_BYTES: usize = 64 << 10;

/// Reads a file with a credential, without the newline at its end.
pub(super) fn read(path: &Path) -> Result<SecretBytes> {
    let of_no_use = |why: &str| BackendError::Unauthenticated(format!("{}: {why}", path.display()));
    let unreadable = |error: std::io::Error| of_no_use(&error.kind().to_string());
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = SecretBytes::with_len(MAX_FILE_BYTES, |room| {
        let mut len = 0;
        while let Some(rest) = room.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match file.read(rest)? {
                0 => break,
                read => len += read,
            }
        }
        Ok(len)
    });
    let bytes = bytes.map_err(unreadable)?;
    let trimmed = bytes.expose().trim_ascii_end();
    if trimmed.is_empty() || trimmed.len() == MAX_FILE_BYTES {
        return Err(of_no_use("no credential is in it"));
    }
    Ok(SecretBytes::copy_from(trimmed)?)
}
