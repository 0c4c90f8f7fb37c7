//! The key file: 64 lower-case hexadecimal digits and a newline, mode 0400.
//!
//! Hexadecimal, because such a file survives printing, copying and editors. It is taken only if no
//! other user could have read or replaced it by its own permissions.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::KeySourceError;
use crate::crypto::RootKey;
use crate::system::{MemoryError, SecretBytes, atomic_file, service_user};

const KEY_BYTES: usize = 32;
const DIGITS: usize = 2 * KEY_BYTES;

/// Reads the key; `KeyFileMissing` if there is no file.
pub(super) fn read(path: &Path) -> Result<SecretBytes, KeySourceError> {
    let file = open_regular(path).map_err(|error| match error {
        OpenError::NotFound => KeySourceError::KeyFileMissing { path: path.into() },
        OpenError::NotRegular(reason) => malformed(path, reason),
        OpenError::Other(source) => unreadable(path, source),
    })?;
    let metadata = file
        .metadata()
        .map_err(|source| KeySourceError::Unreadable { path: path.into(), source })?;
    check_access(path, &metadata)?;
    // One byte more than a key and a newline, to see whether there is more.
    let text = read_up_to(&file, DIGITS + 2)
        .map_err(|source| KeySourceError::Unreadable { path: path.into(), source })?;
    decode(text.expose()).map_err(|error| match error {
        DecodeError::Malformed => malformed(path, "it must hold 64 hexadecimal digits"),
        DecodeError::Memory(error) => error.into(),
    })
}

/// Reads the key, after making a new one if there is no file.
pub(super) fn read_or_create(path: &Path) -> Result<SecretBytes, KeySourceError> {
    match read(path) {
        Err(KeySourceError::KeyFileMissing { .. }) => {
            let key = RootKey::generate()?;
            let text = encode(key.expose())?;
            match atomic_file::create_new(path, text.expose(), 0o400) {
                // Somebody else has just made it: theirs is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other
                    .map_err(|source| KeySourceError::Unreadable { path: path.into(), source })?,
            }
            read(path)
        }
        other => other,
    }
}

pub(super) enum OpenError {
    NotFound,
    NotRegular(&'static str),
    Other(io::Error),
}

/// Opens a regular file without following a link at its end; a FIFO does not stop it.
pub(super) fn open_regular(path: &Path) -> Result<File, OpenError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => OpenError::NotFound,
        (_, Some(libc::ELOOP)) => OpenError::NotRegular("it is a symbolic link"),
        _ => OpenError::Other(error),
    })?;
    if file.metadata().map_err(OpenError::Other)?.is_file() {
        Ok(file)
    } else {
        Err(OpenError::NotRegular("it is not a regular file"))
    }
}

/// Reads a file into locked memory, but not more than `max_bytes`.
pub(super) fn read_up_to(mut file: &File, max_bytes: usize) -> io::Result<SecretBytes> {
    SecretBytes::with_len(max_bytes, |room| {
        let mut len = 0;
        while let Some(rest) = room.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(len)
    })
}

/// Says why a file cannot be opened: without capabilities, the kernel refuses first what would be
/// refused here.
fn unreadable(path: &Path, source: io::Error) -> KeySourceError {
    let checked = std::fs::symlink_metadata(path).map(|metadata| check_access(path, &metadata));
    match checked {
        Ok(Err(refused)) => refused,
        Ok(Ok(())) | Err(_) => KeySourceError::Unreadable { path: path.into(), source },
    }
}

fn check_access(path: &Path, metadata: &Metadata) -> Result<(), KeySourceError> {
    let (owner, expected) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    // Root acts for the service, whose user owns the key.
    let is_the_service_s = || expected == 0 && service_user().is_some_and(|user| owner == user.uid);
    if owner != expected && owner != 0 && !is_the_service_s() {
        return Err(KeySourceError::KeyFileOwner { path: path.into(), owner, expected });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeySourceError::KeyFileMode { path: path.into(), mode });
    }
    Ok(())
}

fn malformed(path: &Path, reason: &'static str) -> KeySourceError {
    KeySourceError::KeyFileMalformed { path: path.into(), reason }
}

fn encode(key: &SecretBytes) -> Result<SecretBytes, MemoryError> {
    SecretBytes::with_len(DIGITS + 1, |room| {
        let (pairs, newline) = room.as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(key.expose()) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        newline.fill(b'\n');
        Ok(DIGITS + 1)
    })
}

enum DecodeError {
    Malformed,
    Memory(MemoryError),
}

impl From<MemoryError> for DecodeError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

fn decode(text: &[u8]) -> Result<SecretBytes, DecodeError> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != DIGITS {
        return Err(DecodeError::Malformed);
    }
    SecretBytes::with_len(KEY_BYTES, |room| {
        for (byte, pair) in room.iter_mut().zip(digits.as_chunks().0) {
            let [high, low] = *pair;
            *byte = nibble(high)? << 4 | nibble(low)?;
        }
        Ok(KEY_BYTES)
    })
}

fn digit(nibble: u8) -> u8 {
    b'0' + nibble + u8::from(nibble > 9) * (b'a' - b'0' - 10)
}

fn nibble(digit: u8) -> Result<u8, DecodeError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(DecodeError::Malformed),
    }
}
