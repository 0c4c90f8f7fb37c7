//! Takes values out of what programs and servers say, before anybody hears it.

use super::{EffectError, Values};
use crate::credential;
use crate::system::{SecretBuffer, SecretBytes};

/// What stands in the place of a value.
const MASKED: &str = "[value]";
/// Longest line that is passed on, in characters.
const MAX_LINE: usize = 300;
/// A line of a longer value, such as a key, is a value too if it has so many bytes.
const MIN_LINE_BYTES: usize = 16;
/// A value with more of them is no key.
const MAX_LINES: usize = 256;

/// The values of an order, and their parts.
#[derive(Debug)]
pub(super) struct Mask(Vec<SecretBytes>);

impl Mask {
    /// Masks these values, their passwords and their lines.
    pub(super) fn of(values: &Values) -> Self {
        Self::of_each(&[&values.current, &values.new, &values.admin])
    }

    /// Masks the key of a delivery.
    pub(super) fn of_key(values: &Values) -> Self {
        Self::of_each(&[&values.admin])
    }

    fn of_each(values: &[&Option<SecretBytes>]) -> Self {
        let mut parts = Vec::new();
        for value in values.iter().copied().flatten() {
            parts.extend(SecretBytes::copy_from(value.expose().trim_ascii()));
            parts.extend(credential::password(value));
            let lines = value.expose().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let long = lines.filter(|line| line.len() >= MIN_LINE_BYTES).take(MAX_LINES);
            parts.extend(long.filter_map(|line| SecretBytes::copy_from(line).ok()));
        }
        parts.retain(|part| !part.is_empty());
        // The longest first, so that a part does not hide that it belongs to a whole.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        Self(parts)
    }

    /// Returns a text of which the last line with anything in it is left, or the first where `cut` says that
    /// the end is missing: half a value could stand there.
    pub(super) fn line(&self, said: &SecretBuffer, cut: bool) -> String {
        let masked = self.apply(said.expose());
        let mut lines = masked.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = if cut { lines.next() } else { lines.next_back() };
        clip(line.unwrap_or_default())
    }

    /// Returns an error without any value in its words.
    pub(super) fn error(&self, error: EffectError) -> EffectError {
        let clean = |text: String| self.text(&text);
        match error {
            EffectError::Gone(why) => EffectError::Gone(clean(why)),
            EffectError::Invalid(why) => EffectError::Invalid(clean(why)),
            EffectError::Refused(why) => EffectError::Refused(clean(why)),
            EffectError::TimedOut => EffectError::TimedOut,
            EffectError::Unreachable(why) => EffectError::Unreachable(clean(why)),
        }
    }

    /// Returns one line without any value.
    pub(super) fn text(&self, text: &str) -> String {
        clip(&self.apply(text.as_bytes()))
    }

    fn apply(&self, said: &[u8]) -> String {
        let mut made = String::new();
        let (mut rest, mut plain) = (said, 0);
        while let Some(tail) = rest.get(plain..).filter(|tail| !tail.is_empty()) {
            match self.0.iter().find(|part| tail.starts_with(part.expose())) {
                Some(part) => {
                    made.push_str(&String::from_utf8_lossy(rest.get(..plain).unwrap_or_default()));
                    made.push_str(MASKED);
                    rest = tail.get(part.len()..).unwrap_or_default();
                    plain = 0;
                }
                None => plain += 1,
            }
        }
        made.push_str(&String::from_utf8_lossy(rest));
        made
    }
}

/// Makes one line of a text that somebody else has written.
fn clip(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_LINE).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(new: &str) -> Mask {
        let new = Some(SecretBytes::copy_from(new.as_bytes()).unwrap());
        Mask::of(&Values { new, ..Values::default() })
    }

    fn said(text: &str) -> SecretBuffer {
        let mut buffer = SecretBuffer::new();
        buffer.write_at(0, text.as_bytes()).unwrap();
        buffer
    }

    #[test]
    fn values_passwords_and_lines_of_keys_are_taken_out() {
        let url = mask("postgresql://app:canary%2D7f3a@db/app\n");
        assert_eq!(url.text("is canary-7f3a, canary-7f3b"), "is [value], canary-7f3b");
        assert_eq!(url.text("postgresql://app:canary%2D7f3a@db/app"), "[value]");
        let key = mask("-----BEGIN-----\ncanary-7f3a-canary-7f3a\n-----END-----\n");
        assert_eq!(key.text("got canary-7f3a-canary-7f3a"), "got [value]");
        assert_eq!(mask("canary-7f3a").text("canary-7f3acanary-7f3a"), "[value][value]");
    }

    #[test]
    fn the_last_line_is_left_or_the_first_where_half_a_value_may_end_the_text() {
        let mask = mask("canary-7f3a");
        assert_eq!(mask.line(&said("one\n\x1b[1mcanary-7f3a\n\n"), false), " [1m[value]");
        assert_eq!(mask.line(&said("one\ncanary-7f"), true), "one");
        assert_eq!(mask.line(&said(&"x".repeat(1000)), false).len(), MAX_LINE);
        assert_eq!(mask.line(&said(""), false), "");
    }

    #[test]
    fn nothing_to_mask_leaves_a_text_as_it_is() {
        let mask = Mask::of(&Values::default());
        assert_eq!(mask.text("plain\ntext"), "plain text");
    }
}
