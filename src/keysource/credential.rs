//! A credential that systemd has decrypted for the unit (systemd.exec(5), CREDENTIALS).

use std::path::{Component, Path};

use super::KeySourceError;
use super::key_file::{OpenError, open_regular, read_up_to};
use crate::system::SecretBytes;

/// Nothing stretches a credential, so it must be a key and not a passphrase.
const MIN_BYTES: usize = 32;
const MAX_BYTES: usize = 4096;

/// Reads a credential, byte for byte as it is. Who may read it is systemd's affair: it uses an
/// access control list, which shows as a group bit.
pub(super) fn read(name: &str, directory: &Path) -> Result<SecretBytes, KeySourceError> {
    let unusable = |reason| KeySourceError::CredentialUnusable { name: name.to_owned(), reason };
    let mut components = Path::new(name).components();
    let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
        return Err(unusable("its name is not that of a file"));
    };
    let path = directory.join(name);
    let unreadable = |source| KeySourceError::Unreadable { path: path.clone(), source };
    let file = open_regular(&path).map_err(|error| match error {
        OpenError::NotFound => KeySourceError::CredentialMissing { path: path.clone() },
        OpenError::NotRegular(reason) => unusable(reason),
        OpenError::Other(source) => unreadable(source),
    })?;
    let key = read_up_to(&file, MAX_BYTES + 1).map_err(unreadable)?;
    match key.len() {
        0..MIN_BYTES => Err(unusable("it is shorter than 32 bytes")),
        MIN_BYTES..=MAX_BYTES => Ok(key),
        _ => Err(unusable("it is longer than 4096 bytes")),
    }
}
