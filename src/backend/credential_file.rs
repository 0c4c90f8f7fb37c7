//! Credentials in files, read into locked memory each time that they are needed: whoever gives them out may
//! write them anew at any time.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::{BackendError, Result};
use crate::system::SecretBytes;

/// The longest file that is read.
const MAX_FILE_BYTES: usize = 256 << 10;

/// Reads a file; `None` if it is not there.
pub(super) fn read_file(path: &Path) -> Result<Option<SecretBytes>> {
    let unreadable = |error: io::Error| of_no_use(path, &error.kind().to_string());
    let mut file = match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened.map_err(unreadable)?,
    };
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
    if bytes.len() == MAX_FILE_BYTES {
        return Err(of_no_use(path, "it is too long"));
    }
    Ok(Some(bytes))
}

/// Reads a file that holds one credential, without the newline at its end.
pub(super) fn read(path: &Path) -> Result<SecretBytes> {
    let bytes = read_file(path)?.ok_or_else(|| of_no_use(path, "it is not there"))?;
    let trimmed = bytes.expose().trim_ascii_end();
    if trimmed.is_empty() {
        return Err(of_no_use(path, "no credential is in it"));
    }
    Ok(SecretBytes::copy_from(trimmed)?)
}

fn of_no_use(path: &Path, why: &str) -> BackendError {
    BackendError::Unauthenticated(format!("{}: {why}", path.display()))
}
