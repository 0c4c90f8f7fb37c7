//! JSON, in both directions, without a copy of a value outside locked memory.
//!
//! The parser takes what RFC 8259 has and keeps the place of each value, so that one can be replaced and
//! the rest of the file stays as it was.

use std::sync::Arc;

use super::document::{Content, Key, Node, ParseError};
use super::{base64, push};
use crate::system::{MemoryError, SecretBuffer};

/// Deeper documents are refused rather than recursed into.
const MAX_DEPTH: usize = 128;

/// Appends a JSON string, or `{"base64": "..."}` for bytes that are not UTF-8.
pub fn push_value(to: &mut SecretBuffer, value: &[u8]) -> Result<(), MemoryError> {
    match std::str::from_utf8(value) {
        Ok(text) => push_string(to, text),
        Err(_) => {
            push(to, b"{\"base64\": \"")?;
            push(to, base64::encode(value)?.expose())?;
            push(to, b"\"}")
        }
    }
}

/// Appends a JSON string with its quotes.
pub fn push_string(to: &mut SecretBuffer, text: &str) -> Result<(), MemoryError> {
    push(to, b"\"")?;
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f {
            continue;
        }
        push(to, text.as_bytes().get(plain..index).unwrap_or_default())?;
        match byte {
            b'"' => push(to, b"\\\"")?,
            b'\\' => push(to, b"\\\\")?,
            b'\n' => push(to, b"\\n")?,
            control => push(to, &[b'\\', b'u', b'0', b'0', hex(control >> 4), hex(control)])?,
        }
        plain = index + 1;
    }
    push(to, text.as_bytes().get(plain..).unwrap_or_default())?;
    push(to, b"\"")
}

/// Returns a lower-case hexadecimal digit.
pub(super) fn hex(nibble: u8) -> u8 {
    match nibble & 15 {
        digit @ 0..=9 => b'0' + digit,
        letter => b'a' + letter - 10,
    }
}

/// Parses a document.
pub fn parse(text: &str) -> Result<Arc<Node>, ParseError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_space();
    let node = parser.value()?;
    parser.skip_space();
    if parser.at == text.len() {
        Ok(node.into())
    } else {
        Err(parser.error("something follows the document"))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Node, ParseError> {
        let start = self.at;
        let content = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Content::Text(self.string()?.into_bytes()),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Content::Bool(true))?,
            Some(b'f') => self.word("false", Content::Bool(false))?,
            Some(b'n') => self.word("null", Content::Null)?,
            _ => return Err(self.error("no value stands here")),
        };
        Ok(Node { content, span: start..self.at })
    }

    fn nested(
        &mut self,
        parse: fn(&mut Self) -> Result<Content, ParseError>,
    ) -> Result<Content, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("it is nested too deeply"));
        }
        self.at += 1;
        let content = parse(self);
        self.depth -= 1;
        content
    }

    fn object(&mut self) -> Result<Content, ParseError> {
        let mut pairs = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Content::Map(pairs));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in double quotes is missing"));
            }
            let key = self.string()?;
            let key = String::from_utf8_lossy(key.expose()).into_owned();
            self.skip_space();
            if !self.take(b':') {
                return Err(self.error("a colon is missing"));
            }
            self.skip_space();
            let value = self.value()?;
            Content::insert(&mut pairs, Key::Text(key), value.into());
            self.skip_space();
            if self.take(b'}') {
                return Ok(Content::Map(pairs));
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of an object is missing"));
            }
        }
    }

    fn array(&mut self) -> Result<Content, ParseError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Content::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?.into());
            self.skip_space();
            if self.take(b']') {
                return Ok(Content::List(items));
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of an array is missing"));
            }
        }
    }

    fn string(&mut self) -> Result<SecretBuffer, ParseError> {
        let mut value = SecretBuffer::new();
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ');
            let plain = plain.ok_or_else(|| self.error("a string has no end"))?;
            push(&mut value, rest.get(..plain).unwrap_or_default())?;
            self.at += plain + 1;
            match rest.get(plain) {
                Some(b'"') => return Ok(value),
                Some(b'\\') => self.escape(&mut value)?,
                _ => return Err(self.error("a control character stands in a string")),
            }
        }
    }

    fn escape(&mut self, value: &mut SecretBuffer) -> Result<(), ParseError> {
        let byte = self.peek();
        self.at += 1;
        let plain = match byte {
            Some(same @ (b'"' | b'\\' | b'/')) => same,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let character = self.unicode()?;
                return Ok(push(value, character.encode_utf8(&mut [0; 4]).as_bytes())?);
            }
            _ => return Err(self.error("an escape is none of JSON's")),
        };
        Ok(push(value, &[plain])?)
    }

    fn unicode(&mut self) -> Result<char, ParseError> {
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) && self.take(b'\\') && self.take(b'u') {
            let second = self.four_digits()?;
            0x1_0000 + ((first - 0xd800) << 10) + second.wrapping_sub(0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("half a surrogate pair is no character"))
    }

    fn four_digits(&mut self) -> Result<u32, ParseError> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error("four hexadecimal digits are missing"))?;
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<Content, ParseError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let numeric = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let end = rest.find(|c| !numeric(c)).unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        // The grammar is serde_json's to judge; how large a number may be is not.
        let known = serde_json::from_str::<serde_json::Number>(digits).is_ok();
        let whole = !digits.contains(['.', 'e', 'E']);
        self.at += end;
        if whole && known {
            return Ok(Content::Int(if digits == "-0" { "0".into() } else { digits.to_owned() }));
        }
        match digits.parse::<f64>() {
            Ok(number) if known => Ok(Content::Float(number)),
            _ => Err(self.error("this is no number")),
        }
    }

    fn word(&mut self, word: &str, content: Content) -> Result<Content, ParseError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(content);
        }
        Err(self.error("no value stands here"))
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, why: &'static str) -> ParseError {
        ParseError::at(self.text, self.at, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn round_trip(text: &str) -> Value {
        let mut out = SecretBuffer::new();
        parse(text).unwrap().push_json(&mut out).unwrap();
        serde_json::from_slice(out.expose()).unwrap()
    }

    #[test]
    fn documents_come_back_as_they_were() {
        let document = json!({
            "a": [1, -2, 0, 1.5, true, false, null, {}, []],
            "t": "q\" b\\ n\n t\t \u{0} \u{7f} \u{e9} \u{1f511} \u{2028}",
            "": {"nested": {"deep": "x"}},
        });
        assert_eq!(round_trip(&document.to_string()), document);
        assert_eq!(round_trip(r#" "\ud83d\udd11\u00e9\/" "#), json!("\u{1f511}\u{e9}/"));
    }

    #[test]
    fn the_place_of_a_value_is_where_it_stands() {
        let text = r#"{"a": {"b": "secret" }, "c": "d"}"#;
        let node = parse(text).unwrap();
        let mut spans = Vec::new();
        node.texts(&mut |path, _, span| {
            spans.push((path.join("."), text.get(span).unwrap().to_owned()));
        });
        let expected = [("a.b", "\"secret\""), ("c", "\"d\"")];
        assert_eq!(spans, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        for bad in
            ["", "{", "[1,]", "{\"a\" 1}", "\"\n\"", "\"\\ud800\"", "01", "1 2", "nul", "\"\\x\""]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
        assert!(parse("{\n  x").unwrap_err().to_string().starts_with("line 2, column 3"));
    }
}
