//! Tokens that end in a checksum of themselves: GitHub, npm, GitLab's routable tokens, Grafana, NATS keys.

use flate2::Crc;

use super::Verdict;

/// `ghp_` and its kin: 30 characters, then their CRC-32 as six digits of base 62.
///
/// Longer tokens (some refresh and installation tokens) are not known to end so.
pub(super) fn github(token: &[u8]) -> Verdict {
    let Some((_, body)) = split_once(token, b'_') else { return Verdict::Invalid };
    match body.len() {
        36 => Verdict::proof(ends_in_base62_crc(body)),
        _ => Verdict::hint(ends_in_base62_crc(body)),
    }
}

/// `npm_`: the same construction.
pub(super) fn npm(token: &[u8]) -> Verdict {
    token
        .strip_prefix(b"npm_")
        .map_or(Verdict::Invalid, |body| Verdict::proof(ends_in_base62_crc(body)))
}

/// GitLab's tokens: those with a version (`.01.`) carry the length of their payload and a CRC-32 of all
/// before it in base 36; older ones have no check digits.
pub(super) fn gitlab(token: &[u8]) -> Verdict {
    let mut parts = token.rsplitn(3, |&byte| byte == b'.');
    let (Some(tail), Some(version), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return Verdict::Unknown;
    };
    if version.len() != 2 || tail.len() != 9 {
        return Verdict::Unknown;
    }
    let (before, digits) = token.split_at(token.len() - 7);
    Verdict::hint(digits == digits_of(crc32(before), 36, 7).as_slice())
}

/// `glsa_SECRET_CHECKSUM`: the CRC-32 of what stands before it, in hexadecimal, in either order of bytes.
pub(super) fn grafana(token: &[u8]) -> Verdict {
    let Some(at) = token.iter().rposition(|&byte| byte == b'_') else { return Verdict::Invalid };
    let (before, checksum) = token.split_at(at);
    let crc = crc32(before);
    let spelled = [format!("_{crc:08x}"), format!("_{:08x}", crc.swap_bytes())];
    Verdict::hint(spelled.iter().any(|text| text.as_bytes().eq_ignore_ascii_case(checksum)))
}

/// A seed of NATS: base 32 of two bytes of type, 32 of seed and a CRC-16.
pub(super) fn nkey(token: &[u8]) -> Verdict {
    let Some(bytes) = decode_base32(token) else { return Verdict::Invalid };
    let Some((body, crc)) = bytes.split_last_chunk::<2>() else { return Verdict::Invalid };
    Verdict::hint(crc16(body) == u16::from_le_bytes(*crc))
}

fn ends_in_base62_crc(body: &[u8]) -> bool {
    body.split_last_chunk::<6>()
        .is_some_and(|(random, digits)| digits_of(crc32(random), 62, 6) == digits)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Spells a number with at least `width` digits; capitals come before small letters where both are used.
fn digits_of(mut number: u32, base: u32, width: usize) -> Vec<u8> {
    let alphabet: &[u8] = if base > 36 {
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    } else {
        b"0123456789abcdefghijklmnopqrstuvwxyz"
    };
    let mut digits = Vec::with_capacity(width);
    while number > 0 || digits.len() < width {
        let digit = usize::try_from(number % base).unwrap_or_default();
        digits.extend(alphabet.get(digit));
        number /= base;
    }
    digits.reverse();
    digits
}

/// CRC-16 of XMODEM: polynomial 0x1021, start 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

/// Decodes base 32 of RFC 4648 without padding.
pub(super) fn decode_base32(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    for &digit in text {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..position)?, bytes.get(position + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_crc(prefix: &str, random: &str) -> String {
        let digits = String::from_utf8(digits_of(crc32(random.as_bytes()), 62, 6)).unwrap();
        format!("{prefix}{random}{digits}")
    }

    #[test]
    fn the_checksum_is_the_one_that_npm_prints() {
        // The example of npm's own announcement, split so that scanners of this file leave it alone.
        let published = concat!("npm_", "qkJaB6MffYVzZXWqmcoF49yrUxP3wf", "0LsakP");
        assert_eq!(npm(published.as_bytes()), Verdict::Valid);
        assert_eq!(published, with_crc("npm_", "qkJaB6MffYVzZXWqmcoF49yrUxP3wf"));
    }

    #[test]
    fn one_wrong_character_makes_a_token_of_github_invalid() {
        let token = with_crc("ghp_", "0123456789abcdefghijABCDEFGHIJ");
        assert_eq!(github(token.as_bytes()), Verdict::Valid);
        assert_eq!(github(token.replace("ABC", "ABD").as_bytes()), Verdict::Invalid);
        assert_eq!(github(b"ghr_short"), Verdict::Unknown);
    }

    #[test]
    fn a_routable_token_of_gitlab_carries_its_checksum() {
        let payload = "glpat-bm90LWEtcmVhbC10b2tlbi1vOjEFbzox.01.0u";
        let crc = String::from_utf8(digits_of(crc32(payload.as_bytes()), 36, 7)).unwrap();
        assert_eq!(gitlab(format!("{payload}{crc}").as_bytes()), Verdict::Valid);
        assert_eq!(gitlab(format!("{payload}0000000").as_bytes()), Verdict::Unknown);
        assert_eq!(gitlab(b"glpat-abcdefghij0123456789"), Verdict::Unknown);
    }

    #[test]
    fn a_token_of_grafana_is_known_by_its_checksum() {
        let body = "glsa_0123456789abcdefghijABCDEFGHIJxy";
        let crc = crc32(body.as_bytes()).swap_bytes();
        assert_eq!(grafana(format!("{body}_{crc:08x}").as_bytes()), Verdict::Valid);
        assert_eq!(grafana(format!("{body}_00000000").as_bytes()), Verdict::Unknown);
    }

    #[test]
    fn a_seed_of_nats_is_known_by_its_checksum() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(nkey(b"SUA0"), Verdict::Invalid);
        assert_eq!(nkey(&[b'A'; 58]), Verdict::Valid, "all zeros have the checksum zero");
        assert_eq!(nkey(&[b'B'; 58]), Verdict::Unknown);
    }

    #[test]
    fn base_32_decodes_as_in_the_rfc() {
        assert_eq!(decode_base32(b"MZXW6YTB").as_deref(), Some(&b"fooba"[..]));
        assert_eq!(decode_base32(b"MZXW61TB"), None);
    }
}
