//! Plaintext on its way in: read straight into locked memory, never through a buffer that stays.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::{Failure, Kind};
use crate::system::{SecretBuffer, SecretBytes};

/// No store takes more; the daemon's own limit may be lower, and is its to tell.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// Reads an open file or pipe to its end.
pub(crate) fn read_all(from: impl AsFd) -> io::Result<SecretBytes> {
    let mut file = File::from(from.as_fd().try_clone_to_owned()?);
    let mut value = SecretBuffer::new();
    let mut chunk = Zeroizing::new([0_u8; 16 * 1024]);
    loop {
        let read = match file.read(chunk.as_mut_slice()) {
            Ok(0) => return Ok(value.into_bytes()),
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        if value.len() + read > MAX_BYTES {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        value.write_at(value.len(), chunk.get(..read).unwrap_or_default())?;
    }
}

/// Reads a file that a user named.
pub(crate) fn read_file(path: &Path) -> Result<SecretBytes, Failure> {
    let shown = path.display().to_string();
    let read = File::open(path).and_then(read_all);
    read.map_err(|err| Failure::new(Kind::Config, shown, err.to_string()))
}

/// Asks on the terminal, without echo.
pub(crate) fn prompt(question: &str) -> Result<SecretBytes, Failure> {
    let failed = |why: String| {
        Failure::new(Kind::Config, "the terminal", why)
            .hint("give the value on standard input or by an option")
    };
    let typed = rpassword::prompt_password(question).map_err(|err| failed(err.to_string()))?;
    let typed = Zeroizing::new(typed);
    SecretBytes::copy_from(typed.as_bytes()).map_err(|err| failed(err.to_string()))
}

/// Asks for a new passphrase twice.
pub(crate) fn new_passphrase() -> Result<SecretBytes, Failure> {
    let first = prompt("New passphrase: ")?;
    let refused = |why: &str| Failure::new(Kind::Config, "the passphrase", why);
    if first.is_empty() {
        return Err(refused("it is empty"));
    }
    let second = prompt("The same again: ")?;
    if first.constant_time_eq(&second) { Ok(first) } else { Err(refused("they differ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_file_is_read_to_its_end_whatever_its_size() {
        for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![7; size]).unwrap();
            file.rewind().unwrap();
            assert_eq!(read_all(&file).unwrap().expose(), vec![7; size]);
        }
    }

    #[test]
    fn more_than_any_store_takes_is_refused_before_it_is_all_in_memory() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(read_all(&file).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }
}
