//! A place in a text that moves forward over what it knows.

/// Never leaves the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Moves behind `word` if it stands here.
    pub(super) fn eat(&mut self, word: &[u8]) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Moves over bytes while they are of a kind, at most `max` of them; returns how many.
    pub(super) fn skip(&mut self, max: usize, is: impl Fn(u8) -> bool) -> usize {
        let skipped = self.rest().iter().take(max).take_while(|&&byte| is(byte)).count();
        self.at += skipped;
        skipped
    }

    pub(super) fn blanks(&mut self) -> usize {
        self.skip(64, |byte| matches!(byte, b' ' | b'\t'))
    }

    /// Takes a quotation mark, also one behind backslashes, as text within text has it.
    pub(super) fn quote(&mut self) -> Option<Quote> {
        let mut ahead = *self;
        let escapes = ahead.skip(3, |byte| byte == b'\\');
        let mark = ahead.peek().filter(|byte| matches!(byte, b'"' | b'\'' | b'`'))?;
        ahead.at += 1;
        *self = ahead;
        Some(Quote { mark, escapes })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Quote {
    pub mark: u8,
    /// How many backslashes stand before it.
    pub escapes: usize,
}

/// Longer values are no passwords, and keys of that length have a format.
const MAX_VALUE: usize = 512;

impl Quote {
    /// Returns where the value that begins at `start` ends: before the same quotation mark.
    pub(super) fn end(self, text: &[u8], start: usize) -> Option<usize> {
        let value = text.get(start..)?;
        let mut backslashes = 0;
        for (at, &byte) in value.iter().enumerate().take(MAX_VALUE) {
            match byte {
                b'\\' => backslashes += 1,
                b'\n' => return None,
                _ if byte == self.mark && backslashes <= self.escapes => {
                    return Some(start + at - backslashes);
                }
                _ => backslashes = 0,
            }
        }
        None
    }
}
