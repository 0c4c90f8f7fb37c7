//! Takes values out of a stream of output, also in the forms in which programs print them.
//!
//! What may be the beginning of a value is held back until the next chunk tells; so a value is found
//! whatever the chunks are, and bytes come late at most by the length of the longest one.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};

use super::format::push_sh;
use super::{json, push};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// What stands in the place of a value.
const MASK: &[u8] = b"***";

/// Shorter texts occur by themselves, and masking them would garble everything.
const MIN_BYTES: usize = 4;

/// Lines of a value that are masked by themselves, because programs put something before each.
const MIN_LINE_BYTES: usize = 8;

/// The texts to mask.
pub struct Mask {
    texts: Vec<SecretBytes>,
    /// By the first byte, which of the texts begin so.
    by_first: Vec<Vec<usize>>,
}

impl Mask {
    /// Returns a mask of nothing.
    pub fn new() -> Self {
        Self { texts: Vec::new(), by_first: vec![Vec::new(); 256] }
    }

    /// Adds a value in all its forms. Returns whether it is long enough to be masked.
    pub fn add(&mut self, value: &SecretBytes) -> Result<bool, MemoryError> {
        let bytes = value.expose();
        let trimmed = bytes.trim_ascii();
        if trimmed.len() < MIN_BYTES {
            return Ok(false);
        }
        self.add_text(SecretBytes::copy_from(bytes)?);
        self.add_forms(trimmed)?;
        if trimmed.len() < bytes.len() {
            self.add_forms(bytes)?;
        }
        let lines = trimmed.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        for line in lines.filter(|line| line.len() >= MIN_LINE_BYTES) {
            self.add_text(SecretBytes::copy_from(line)?);
        }
        Ok(true)
    }

    fn add_forms(&mut self, bytes: &[u8]) -> Result<(), MemoryError> {
        self.add_text(SecretBytes::copy_from(bytes)?);
        for shift in 0..3 {
            self.add_text(base64_within::<Base64Unpadded>(bytes, shift)?);
            self.add_text(base64_within::<Base64UrlUnpadded>(bytes, shift)?);
        }
        for upper in [false, true] {
            self.add_text(mapped(bytes, |byte, out| push(out, &digits(byte, upper)))?);
            self.add_text(mapped(bytes, |byte, out| push_percent(byte, upper, out))?);
        }
        let mut quoted = SecretBuffer::new();
        push_sh(&mut quoted, bytes)?;
        self.add_text(inside(&quoted)?);
        if let Ok(text) = std::str::from_utf8(bytes) {
            let mut quoted = SecretBuffer::new();
            json::push_string(&mut quoted, text)?;
            self.add_text(inside(&quoted)?);
        }
        Ok(())
    }

    fn add_text(&mut self, text: SecretBytes) {
        let known = |other: &SecretBytes| other.expose() == text.expose();
        if text.len() < MIN_BYTES || self.texts.iter().any(known) {
            return;
        }
        let first = text.expose().first().copied().map_or(0, usize::from);
        if let Some(row) = self.by_first.get_mut(first) {
            row.push(self.texts.len());
        }
        self.texts.push(text);
    }

    /// Says what begins at the start of `bytes`.
    fn look(&self, bytes: &[u8], more_may_come: bool) -> Seen {
        let first = bytes.first().copied().map_or(0, usize::from);
        let mut longest = 0;
        for &index in self.by_first.get(first).into_iter().flatten() {
            let Some(text) = self.texts.get(index).map(SecretBytes::expose) else { continue };
            if bytes.starts_with(text) {
                longest = longest.max(text.len());
            } else if more_may_come && text.starts_with(bytes) {
                return Seen::Perhaps;
            }
        }
        Seen::Masked(longest)
    }
}

impl Default for Mask {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("texts", &self.texts.len()).finish_non_exhaustive()
    }
}

enum Seen {
    /// So many bytes are to be masked; 0 if nothing begins here.
    Masked(usize),
    /// What is there may be the beginning of something.
    Perhaps,
}

/// One stream of output on its way through a mask.
#[derive(Debug)]
pub struct Stream {
    mask: Arc<Mask>,
    held: SecretBuffer,
    /// How many of the held bytes belong to a value that began before them.
    covered: usize,
    masking: bool,
}

impl Stream {
    /// Returns a stream of which nothing has passed yet.
    pub fn new(mask: Arc<Mask>) -> Self {
        Self { mask, held: SecretBuffer::new(), covered: 0, masking: false }
    }

    /// Masks by other texts from now on.
    pub fn remask(&mut self, mask: Arc<Mask>) {
        self.mask = mask;
    }

    /// Takes a chunk and returns what can go out.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<SecretBytes, MemoryError> {
        push(&mut self.held, chunk)?;
        self.pass(true)
    }

    /// Returns what was held back; nothing follows.
    pub fn finish(mut self) -> Result<SecretBytes, MemoryError> {
        self.pass(false)
    }

    fn pass(&mut self, more_may_come: bool) -> Result<SecretBytes, MemoryError> {
        let held = std::mem::take(&mut self.held);
        let bytes = held.expose();
        let mut out = SecretBuffer::new();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.mask.look(rest, more_may_come) {
                Seen::Perhaps => break,
                Seen::Masked(len) => self.covered = self.covered.max(len),
            }
            if self.covered > 0 {
                self.covered -= 1;
                if !self.masking {
                    push(&mut out, MASK)?;
                }
                self.masking = true;
            } else {
                push(&mut out, rest.get(..1).unwrap_or_default())?;
                self.masking = false;
            }
            at += 1;
        }
        push(&mut self.held, bytes.get(at..).unwrap_or_default())?;
        Ok(out.into_bytes())
    }
}

/// Returns those characters of the base64 of `..value..` that no neighbour changes, where the value
/// begins `shift` bytes into a group of three.
fn base64_within<E: Encoding>(value: &[u8], shift: usize) -> Result<SecretBytes, MemoryError> {
    let len = shift + value.len();
    let shifted = SecretBytes::with_len::<MemoryError>(len, |room| {
        if let Some(room) = room.get_mut(shift..) {
            room.copy_from_slice(value);
        }
        Ok(len)
    })?;
    let whole = SecretBytes::with_len::<MemoryError>(len.div_ceil(3) * 4, |room| {
        Ok(E::encode(shifted.expose(), room).map_or(0, str::len))
    })?;
    let start = (8 * shift).div_ceil(6);
    SecretBytes::copy_from(whole.expose().get(start..8 * len / 6).unwrap_or_default())
}

fn mapped(
    bytes: &[u8],
    map: impl Fn(u8, &mut SecretBuffer) -> Result<(), MemoryError>,
) -> Result<SecretBytes, MemoryError> {
    let mut out = SecretBuffer::new();
    bytes.iter().try_for_each(|&byte| map(byte, &mut out))?;
    Ok(out.into_bytes())
}

fn digits(byte: u8, upper: bool) -> [u8; 2] {
    let pair = [json::hex(byte >> 4), json::hex(byte)];
    if upper { pair.map(|digit| digit.to_ascii_uppercase()) } else { pair }
}

fn push_percent(byte: u8, upper: bool, out: &mut SecretBuffer) -> Result<(), MemoryError> {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        return push(out, &[byte]);
    }
    let [high, low] = digits(byte, upper);
    push(out, &[b'%', high, low])
}

/// Returns what stands between the quotes.
fn inside(quoted: &SecretBuffer) -> Result<SecretBytes, MemoryError> {
    let bytes = quoted.expose();
    SecretBytes::copy_from(bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::base64;
    use proptest::prelude::*;

    fn mask(values: &[&[u8]]) -> Arc<Mask> {
        let mut mask = Mask::new();
        for value in values {
            assert!(mask.add(&SecretBytes::copy_from(value).unwrap()).unwrap());
        }
        Arc::new(mask)
    }

    fn encoded(bytes: &[u8]) -> String {
        String::from_utf8(base64::encode(bytes).unwrap().expose().to_vec()).unwrap()
    }

    fn masked(mask: &Arc<Mask>, output: &[u8], chunk: usize) -> Vec<u8> {
        let mut stream = Stream::new(Arc::clone(mask));
        let mut out = Vec::new();
        for chunk in output.chunks(chunk) {
            out.extend_from_slice(stream.feed(chunk).unwrap().expose());
        }
        out.extend_from_slice(stream.finish().unwrap().expose());
        out
    }

    #[test]
    fn a_value_is_masked_whatever_the_chunks_are() {
        let mask = mask(&[b"canary-7f3a"]);
        let output = b"a canary-7f3a b canary-7f3acanary-7f3a canary-7f3 c";
        for chunk in 1..=output.len() {
            assert_eq!(masked(&mask, output, chunk), b"a *** b *** canary-7f3 c", "{chunk}");
        }
    }

    #[test]
    fn a_value_that_begins_another_or_overlaps_itself_leaves_nothing() {
        let mask = mask(&[b"abcd", b"abcdefgh", b"xyxyxy"]);
        for chunk in 1..=30 {
            assert_eq!(masked(&mask, b"abcdefgh abcdefg xyxyxyxy.", chunk), b"*** ***efg ***.");
        }
    }

    #[test]
    fn the_forms_in_which_programs_print_values_are_masked_too() {
        let value = b"p@ss w\"or'd/1";
        let mask = mask(&[value]);
        for before in ["", "u:", "usr", "user:"] {
            let text = [before.as_bytes(), value, b"-tail"].concat();
            let whole = encoded(&text);
            let out = String::from_utf8(masked(&mask, whole.as_bytes(), 7)).unwrap();
            assert!(out.contains("***") && out.len() < whole.len(), "{out}");
            // What is left of the value is less than a group at either end.
            let left = encoded(value);
            assert!(!out.contains(left.get(4..8).unwrap()), "{out}");
        }
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [
            hex.to_uppercase(),
            hex,
            "p%40ss%20w%22or%27d%2F1".to_owned(),
            "p%40ss%20w%22or%27d%2f1".to_owned(),
            "p@ss w\\\"or'd/1".to_owned(),
            "p@ss w\"or'\\''d/1".to_owned(),
        ];
        for form in forms {
            assert_eq!(masked(&mask, form.as_bytes(), 3), b"***", "{form}");
        }
    }

    #[test]
    fn lines_of_a_value_and_a_value_without_its_last_line_end_are_masked() {
        let mask = mask(&[b"first-line-x\nsecond-line\n"]);
        assert_eq!(masked(&mask, b"> first-line-x\n> second-line\n", 5), b"> ***\n> ***\n");
        assert_eq!(masked(&mask, b"[first-line-x\nsecond-line]", 5), b"[***]");
    }

    #[test]
    fn what_is_too_short_is_said_and_let_through() {
        let mut mask = Mask::new();
        assert!(!mask.add(&SecretBytes::copy_from(b"abc\n").unwrap()).unwrap());
        assert_eq!(masked(&Arc::new(mask), b"abc", 1), b"abc");
    }

    proptest! {
        #[test]
        fn no_value_is_left_in_any_output(
            output in "[ab]{0,60}", value in "[ab]{4,6}", chunk in 1_usize..9,
        ) {
            let mask = mask(&[value.as_bytes()]);
            let out = String::from_utf8(masked(&mask, output.as_bytes(), chunk)).unwrap();
            prop_assert!(!out.contains(&value));
            if !output.contains(&value) {
                prop_assert_eq!(out, output);
            }
        }
    }
}
