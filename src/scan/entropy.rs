//! How evenly the bytes of a value are spread.

/// Returns the Shannon entropy of the bytes, in bits a byte.
pub(super) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for &byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let Ok(len) = u32::try_from(bytes.len()) else { return 8.0 };
    let total = f64::from(len.max(1));
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_over_and_over_has_none_and_sixteen_different_ones_have_four_bits() {
        assert!(entropy(b"aaaaaaaa").abs() < 1e-9);
        assert!(entropy(b"").abs() < 1e-9);
        assert!((entropy(b"0123456789abcdef") - 4.0).abs() < 1e-9);
    }
}
