//! Files with credentials, read into locked memory each time that they are needed: others write them anew.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::answer::unauthenticated;
use crate::backend::{BackendError, Result};
use crate::system::SecretBytes;

/// The longest one that is read.
const MAX_BYTES: usize = 256 << 10;

/// Reads a file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<SecretBytes>> {
    let unreadable =
        |error: std::io::Error| unauthenticated(&format!("{}: {}", path.display(), error.kind()));
    let mut file = match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened.map_err(unreadable)?,
    };
    let bytes = SecretBytes::with_len(MAX_BYTES, |room| {
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
    if bytes.len() == MAX_BYTES {
        return Err(unauthenticated(&format!("{}: it is too long", path.display())));
    }
    Ok(Some(bytes))
}

/// Reads a file that holds one credential, without the newline at its end.
pub(super) fn read_trimmed(path: &Path) -> Result<SecretBytes> {
    let none = || unauthenticated(&format!("{}: no credential is in it", path.display()));
    let bytes = read(path)?.ok_or_else(none)?;
    let trimmed = bytes.expose().trim_ascii();
    if trimmed.is_empty() {
        return Err(none());
    }
    SecretBytes::copy_from(trimmed).map_err(BackendError::from)
}
