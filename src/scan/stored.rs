//! Finds values of a store, exactly: as they are, in base64, hexadecimal or with percent signs, and within
//! longer text.
//!
//! The values and what they look like encoded stay in locked memory. A text is compared with them only where
//! eight of its bytes give the same keyed hash, so that a scan of much text costs little.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Serialize;

use super::candidate::{Candidate, Encoding, Outcome, Trace};
use super::redact::Redacted;
use super::severity::Confidence;
use crate::model::SecretName;
use crate::system::{MemoryError, SecretBytes};

/// What is hashed. Shorter values stand in any text by chance.
const MIN_LEN: usize = 8;
/// Longer values are known by their beginning.
const MAX_LEN: usize = 4096;

/// The values that are looked for.
pub struct Stored {
    forms: Vec<Form>,
    /// For each hash the indices of the forms that begin so.
    places: HashMap<u64, Vec<usize>>,
    /// A bit for each hash that there is, at a glance.
    glance: Box<[u64; 1 << (GLANCE_BITS - 6)]>,
    key: u64,
}

const GLANCE_BITS: u32 = 16;

/// Which value it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Origin {
    pub secret: SecretName,
    pub version: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, version {}", self.secret, self.version)
    }
}

/// One value as it may stand in a text.
struct Form {
    bytes: SecretBytes,
    origin: Origin,
    encoding: Option<Encoding>,
}

impl Stored {
    /// Returns a set without values; `key` should be random.
    pub fn new(key: u64) -> Self {
        Self {
            forms: Vec::new(),
            places: HashMap::new(),
            glance: Box::new([0; 1 << (GLANCE_BITS - 6)]),
            key: key | 1,
        }
    }

    /// Adds a value. Returns false for one that is too short to be looked for.
    pub fn add(&mut self, origin: &Origin, value: &SecretBytes) -> Result<bool, MemoryError> {
        let value = value.expose().trim_ascii_end();
        let value = value.get(..MAX_LEN).unwrap_or(value);
        if value.len() < MIN_LEN {
            return Ok(false);
        }
        self.push(origin, None, SecretBytes::copy_from(value)?);
        for alphabet in [STANDARD, URL_SAFE] {
            for shift in 0..3 {
                self.push(origin, Some(Encoding::Base64), base64(value, shift, &alphabet)?);
            }
        }
        for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
            let byte = |byte: u8, out: &mut Room| out.hex(byte, digits);
            self.push(origin, Some(Encoding::Hex), mapped(value, 2, byte)?);
        }
        let escaped =
            |byte: u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
        if value.iter().any(|&byte| escaped(byte)) {
            for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
                let byte = |byte: u8, out: &mut Room| {
                    if escaped(byte) {
                        out.push(b'%');
                        out.hex(byte, digits);
                    } else {
                        out.push(byte);
                    }
                };
                self.push(origin, Some(Encoding::Percent), mapped(value, 3, byte)?);
            }
        }
        if value.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t')) {
            self.push(origin, Some(Encoding::Escaped), mapped(value, 2, escape)?);
        }
        Ok(true)
    }

    /// Tells whether there is nothing to look for.
    fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    fn push(&mut self, origin: &Origin, encoding: Option<Encoding>, bytes: SecretBytes) {
        let Some(hash) = self.hash(bytes.expose()) else { return };
        let others = self.forms.iter().rev().take_while(|form| form.origin == *origin);
        if others.into_iter().any(|form| form.bytes.expose() == bytes.expose()) {
            return;
        }
        self.places.entry(hash).or_default().push(self.forms.len());
        if let Some((word, bit)) = glance(hash)
            && let Some(bits) = self.glance.get_mut(word)
        {
            *bits |= bit;
        }
        self.forms.push(Form { bytes, origin: origin.clone(), encoding });
    }

    fn hash(&self, text: &[u8]) -> Option<u64> {
        let window: [u8; MIN_LEN] = text.get(..MIN_LEN)?.try_into().ok()?;
        Some(u64::from_le_bytes(window).wrapping_mul(self.key))
    }

    /// Adds what is found in a text to the candidates, in the place of others there.
    pub(super) fn find(&self, text: &[u8], candidates: &mut Vec<Candidate>) {
        if self.is_empty() {
            return;
        }
        let mut at = 0;
        let mut found: Vec<Candidate> = Vec::new();
        while let Some(hash) = text.get(at..).and_then(|rest| self.hash(rest)) {
            let seen = glance(hash).is_some_and(|(word, bit)| {
                self.glance.get(word).is_some_and(|bits| bits & bit != 0)
            });
            let form =
                if seen { self.form_at(hash, text.get(at..).unwrap_or_default()) } else { None };
            match form {
                Some(form) => {
                    found.push(form.candidate(at..at + form.bytes.len()));
                    at += form.bytes.len();
                }
                None => at += 1,
            }
        }
        if found.is_empty() {
            return;
        }
        let overlaps = |one: &Range<usize>| {
            found.iter().any(|two| one.start < two.span.end && two.span.start < one.end)
        };
        candidates.retain(|candidate| !overlaps(&candidate.span));
        candidates.append(&mut found);
        candidates.sort_by_key(|candidate| candidate.span.start);
    }

    /// Returns the longest form that stands at the beginning of a text.
    fn form_at(&self, hash: u64, text: &[u8]) -> Option<&Form> {
        let forms = self.places.get(&hash)?.iter().filter_map(|&at| self.forms.get(at));
        forms
            .filter(|form| text.starts_with(form.bytes.expose()))
            .max_by_key(|form| form.bytes.len())
    }
}

impl Form {
    fn candidate(&self, span: Range<usize>) -> Candidate {
        let bytes = self.bytes.expose();
        Candidate {
            rule: usize::MAX,
            redacted: Redacted::secret(bytes, 0),
            // Of the name alone: a hash of a stored value has no business outside.
            trace: Trace::of(self.origin.to_string().as_bytes()),
            span,
            encodings: self.encoding.into_iter().collect(),
            outcome: Outcome::Found(Confidence::new(1.0)),
            stored: Some(self.origin.clone()),
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored(..)")
    }
}

fn glance(hash: u64) -> Option<(usize, u64)> {
    let bits = hash >> (64 - GLANCE_BITS);
    Some((usize::try_from(bits >> 6).ok()?, 1 << (bits & 63)))
}

/// Returns the digits of base64 that depend on the value alone when `shift` bytes (modulo three) stand before it.
fn base64(
    value: &[u8],
    shift: usize,
    alphabet: &base64::engine::GeneralPurpose,
) -> Result<SecretBytes, MemoryError> {
    let shifted = SecretBytes::with_len(value.len() + shift, |room| {
        room.iter_mut().skip(shift).zip(value).for_each(|(to, from)| *to = *from);
        Ok::<_, MemoryError>(value.len() + shift)
    })?;
    let size = (value.len() + shift).div_ceil(3) * 4;
    let encoded = SecretBytes::with_len(size, |room| {
        alphabet.encode_slice(shifted.expose(), room).map_err(|_| MemoryError::NoMemory)
    })?;
    // The first digits hold bits of what stands before, the last ones of what follows.
    let (first, whole) = ((shift * 8).div_ceil(6), (value.len() + shift) * 8 / 6);
    SecretBytes::copy_from(encoded.expose().get(first..whole).unwrap_or_default())
}

/// Room for an encoded value that is never moved.
struct Room<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Room<'_> {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.room.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn hex(&mut self, byte: u8, digits: &[u8; 16]) {
        for half in [byte >> 4, byte & 15] {
            self.push(digits.get(usize::from(half)).copied().unwrap_or(b'0'));
        }
    }
}

/// Maps each byte to at most `most` bytes.
fn mapped(
    value: &[u8],
    most: usize,
    map: impl Fn(u8, &mut Room<'_>),
) -> Result<SecretBytes, MemoryError> {
    SecretBytes::with_len(value.len() * most, |room| {
        let mut out = Room { room, len: 0 };
        value.iter().for_each(|&byte| map(byte, &mut out));
        Ok(out.len)
    })
}

/// Escapes as JSON does.
fn escape(byte: u8, out: &mut Room<'_>) {
    let letter = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'"' | b'\\' => byte,
        _ => return out.push(byte),
    };
    out.push(b'\\');
    out.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"canary/7f3a+\"x\"\nline";

    fn origin() -> Origin {
        Origin { secret: "a/b".parse().unwrap(), version: 2 }
    }

    fn stored() -> Stored {
        let mut stored = Stored::new(0x1234_5678_9abc_def1);
        assert!(stored.add(&origin(), &SecretBytes::copy_from(VALUE).unwrap()).unwrap());
        stored
    }

    fn found(text: &[u8]) -> Vec<(Range<usize>, Vec<Encoding>)> {
        let mut candidates = Vec::new();
        stored().find(text, &mut candidates);
        candidates.into_iter().map(|one| (one.span, one.encodings)).collect()
    }

    #[test]
    fn a_stored_value_is_found_as_it_is_and_within_longer_text() {
        let text = [b"xx", VALUE, b"yy", VALUE].concat();
        let len = VALUE.len();
        assert_eq!(found(&text), [(2..2 + len, vec![]), (4 + len..4 + 2 * len, vec![])]);
        assert_eq!(found(&VALUE[1..]), []);
    }

    #[test]
    fn it_is_found_in_base64_at_each_place_within_other_bytes() {
        for alphabet in [STANDARD, URL_SAFE] {
            for before in 0..7 {
                let text = alphabet.encode([&vec![b'q'; before], VALUE, b"zz"].concat());
                let found = found(text.as_bytes());
                assert_eq!(found.len(), 1, "{before} bytes before");
                assert_eq!(found[0].1, [Encoding::Base64]);
            }
        }
    }

    #[test]
    fn it_is_found_in_hexadecimal_with_percent_signs_and_escaped() {
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found(hex.as_bytes())[0].1, [Encoding::Hex]);
        assert_eq!(found(hex.to_uppercase().as_bytes())[0].1, [Encoding::Hex]);
        let percent = b"canary%2F7f3a%2B%22x%22%0Aline";
        assert_eq!(found(percent)[0].1, [Encoding::Percent]);
        assert_eq!(found(br#"canary/7f3a+\"x\"\nline"#)[0].1, [Encoding::Escaped]);
    }

    #[test]
    fn a_short_value_is_not_looked_for() {
        let mut stored = Stored::new(1);
        assert!(!stored.add(&origin(), &SecretBytes::copy_from(b"short\n").unwrap()).unwrap());
        assert!(stored.is_empty());
    }
}
