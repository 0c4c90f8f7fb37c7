//! Hides the exact length of what is sealed: plain || zeros || length (u32, big-endian).
//!
//! Steps of 64 bytes up to 1 KiB, then Padme (Nikitin et al., "Reducing Metadata Leakage from
//! Encrypted Files and Communication with PURBs", 2019), which adds at most 12 %.

use super::CryptoError;

const TRAILER_BYTES: usize = size_of::<u32>();

/// Returns the length that `len` bytes have once they are padded.
pub(super) fn padded_len(len: usize) -> Result<usize, CryptoError> {
    // The trailer holds 32 bits; this also keeps the arithmetic below from overflowing.
    if len > u32::MAX as usize / 2 {
        return Err(CryptoError::TooLong);
    }
    let len = len + TRAILER_BYTES;
    if len <= 1024 {
        return Ok(len.next_multiple_of(64));
    }
    let exponent = len.ilog2();
    let rounded_off = (1_usize << (exponent - (exponent.ilog2() + 1))) - 1;
    Ok((len + rounded_off) & !rounded_off)
}

/// Writes `plain` and its length into `room`, which is zero and of [`padded_len`].
pub(super) fn pad(plain: &[u8], room: &mut [u8]) -> Result<(), CryptoError> {
    let len = u32::try_from(plain.len()).map_err(|_| CryptoError::TooLong)?;
    room.get_mut(..plain.len()).ok_or(CryptoError::TooLong)?.copy_from_slice(plain);
    *room.last_chunk_mut().ok_or(CryptoError::TooLong)? = len.to_be_bytes();
    Ok(())
}

/// Returns how many of the padded bytes are plain; they are the first.
pub(super) fn unpadded_len(padded: &[u8]) -> Result<usize, CryptoError> {
    let trailer = padded.last_chunk().ok_or(CryptoError::Damaged)?;
    let len = usize::try_from(u32::from_be_bytes(*trailer)).map_err(|_| CryptoError::Damaged)?;
    if padded_len(len)? == padded.len() { Ok(len) } else { Err(CryptoError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_undone_at_every_length_and_adds_little() {
        for len in (0..5_000).chain([65_535, 65_536, 65_537, 1_048_576, 3_000_001]) {
            let mut room = vec![0; padded_len(len).unwrap()];
            pad(&vec![9; len], &mut room).unwrap();
            assert_eq!(unpadded_len(&room), Ok(len));
            let most = if len < 1020 { len + 68 } else { (len + 4) * 112 / 100 };
            assert!((len + 4..=most).contains(&room.len()), "{len} becomes {}", room.len());
        }
    }

    #[test]
    fn few_lengths_are_told_apart() {
        let lengths: std::collections::HashSet<_> =
            (0..65_536).map(|len| padded_len(len).unwrap()).collect();
        assert!(lengths.len() < 120, "{}", lengths.len());
    }

    #[test]
    fn a_length_that_does_not_fit_is_damage() {
        let mut room = vec![0; 128];
        for wrong in [0, 60, 125, u32::MAX] {
            *room.last_chunk_mut().unwrap() = wrong.to_be_bytes();
            assert!(unpadded_len(&room).is_err(), "{wrong}");
        }
        assert_eq!(unpadded_len(&[]), Err(CryptoError::Damaged));
    }
}
