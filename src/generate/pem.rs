//! PEM, written into and read into locked memory.

use pem_rfc7468::LineEnding;

use crate::system::{SecretBuffer, SecretBytes};

use super::GenerateError;

/// Writes one block behind what is there.
pub(super) fn write(
    into: &mut SecretBuffer,
    label: &str,
    contents: &[u8],
) -> Result<(), GenerateError> {
    let len = pem_rfc7468::encoded_len(label, LineEnding::LF, contents)
        .map_err(|_| GenerateError::Key)?;
    let block = SecretBytes::with_len::<GenerateError>(len, |room| {
        pem_rfc7468::encode(label, LineEnding::LF, contents, room)
            .map(str::len)
            .map_err(|_| GenerateError::Key)
    })?;
    into.write_at(into.len(), block.expose())?;
    Ok(())
}

/// Returns the label and the contents of each block; `None` if one is not well-formed.
pub(super) fn blocks(bundle: &SecretBytes) -> Option<Vec<(String, SecretBytes)>> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let bytes = bundle.expose();
    let starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter_map(|(at, window)| (window == BEGIN).then_some(at))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(&start, end)| block(bytes.get(start..end)?)).collect()
}

fn block(pem: &[u8]) -> Option<(String, SecretBytes)> {
    // What stands behind a block is for people.
    let end = pem.windows(9).position(|window| window == b"-----END ")?;
    let line = pem.get(end..)?.iter().position(|&byte| byte == b'\n');
    let pem = line.map_or(pem, |line| pem.get(..=end + line).unwrap_or(pem));
    let mut label = String::new();
    let contents = SecretBytes::with_len::<GenerateError>(pem.len(), |room| {
        let (found, contents) = pem_rfc7468::decode(pem, room).map_err(|_| GenerateError::Key)?;
        found.clone_into(&mut label);
        Ok(contents.len())
    });
    Some((label, contents.ok()?))
}
