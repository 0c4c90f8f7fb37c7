//! Reads files of variables: dotenv as python-dotenv reads it, and the raw lines of `env` and docker.
//!
//! Each entry keeps the place of its value, so that the value can be replaced and the file stays
//! otherwise as it was. References to other variables are not followed.

use std::ops::Range;

use super::document::ParseError;
use super::push;
use crate::system::{SecretBuffer, SecretBytes};

/// One variable of a file.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub value: SecretBytes,
    /// Where the value stands, with its quotes.
    pub span: Range<usize>,
}

/// Parses a dotenv file; keys without a value are left out.
pub fn parse(text: &str) -> Result<Vec<Entry>, ParseError> {
    let mut reader = Reader { text, at: 0 };
    let mut entries = Vec::new();
    while let Some(entry) = reader.statement()? {
        entries.extend(entry);
    }
    Ok(entries)
}

/// Parses what `env`, `env -0` and docker's files have: `NAME=value`, each to the end of its line (or
/// to a NUL, if there is one anywhere), without quotes.
pub fn parse_raw(text: &str) -> Result<Vec<Entry>, ParseError> {
    let end = if text.contains('\0') { '\0' } else { '\n' };
    let mut entries = Vec::new();
    let mut start = 0;
    for line in text.split(end) {
        let here = start;
        start += line.len() + 1;
        let skipped = if end == '\n' { line.trim_start() } else { line };
        if skipped.is_empty() || (end == '\n' && skipped.starts_with('#')) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(ParseError::at(text, here, "there is no `=`"));
        };
        let at = here + key.len() + 1;
        let value = if end == '\n' { value.strip_suffix('\r').unwrap_or(value) } else { value };
        entries.push(Entry {
            key: key.trim_start().to_owned(),
            value: SecretBytes::copy_from(value.as_bytes())?,
            span: at..at + value.len(),
        });
    }
    Ok(entries)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a line, or as many as its value takes. `None` at the end, `Some(None)` for a comment.
    fn statement(&mut self) -> Result<Option<Option<Entry>>, ParseError> {
        self.skip(char::is_whitespace);
        if self.rest().is_empty() {
            return Ok(None);
        }
        if self.rest().starts_with('#') {
            self.skip(|c| !is_line_end(c));
            return Ok(Some(None));
        }
        let exported = self.rest().strip_prefix("export");
        if exported.is_some_and(|rest| rest.starts_with(is_blank)) {
            self.at += "export".len();
            self.skip(is_blank);
        }
        let key = self.key()?;
        self.skip(is_blank);
        let entry = if self.rest().starts_with('=') {
            self.at += 1;
            self.skip(is_blank);
            let start = self.at;
            let value = self.value()?;
            Some(Entry { key, value, span: start..self.at })
        } else {
            None
        };
        self.skip(is_blank);
        if self.rest().starts_with('#') {
            self.skip(|c| !is_line_end(c));
        }
        if self.rest().is_empty() || self.rest().starts_with(is_line_end) {
            return Ok(Some(entry));
        }
        Err(self.error("something follows the value"))
    }

    fn key(&mut self) -> Result<String, ParseError> {
        if let Some(quoted) = self.rest().strip_prefix('\'') {
            let end = quoted.find('\'').filter(|&end| end > 0);
            let end = end.ok_or_else(|| self.error("a quoted key has no end"))?;
            let key = quoted.get(..end).unwrap_or_default().to_owned();
            self.at += end + 2;
            return Ok(key);
        }
        let start = self.at;
        self.skip(|c| c != '=' && c != '#' && !c.is_whitespace());
        match self.text.get(start..self.at) {
            Some(key) if !key.is_empty() => Ok(key.to_owned()),
            _ => Err(self.error("there is no name before the `=`")),
        }
    }

    fn value(&mut self) -> Result<SecretBytes, ParseError> {
        match self.rest().chars().next() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => self.bare(),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<SecretBytes, ParseError> {
        let mut value = SecretBuffer::new();
        let body = self.rest().get(1..).unwrap_or_default();
        let mut characters = body.char_indices();
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.at += at + 2;
                return Ok(value.into_bytes());
            }
            let next = body.get(at + 1..).and_then(|rest| rest.chars().next());
            if c == '\r' {
                // Python reads text with all line ends alike.
                push(&mut value, b"\n")?;
                if next == Some('\n') {
                    characters.next();
                }
                continue;
            }
            let escaped = next.filter(|_| c == '\\').and_then(|next| unescaped(quote, next));
            if escaped.is_some() {
                characters.next();
            }
            let c = escaped.unwrap_or(c);
            push(&mut value, c.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
        Err(self.error("a quoted value has no end"))
    }

    fn bare(&mut self) -> Result<SecretBytes, ParseError> {
        let line = self.rest();
        let line = line.get(..line.find(is_line_end).unwrap_or(line.len())).unwrap_or_default();
        // A comment begins behind white space, also that behind the `=`; without, its mark is the value's.
        let behind_space = |at: usize| {
            self.text
                .get(..self.at + at)
                .is_some_and(|before| before.ends_with(char::is_whitespace))
        };
        let mut marks = line.match_indices('#').map(|(at, _)| at);
        let comment = marks.find(|&at| behind_space(at));
        let value = line.get(..comment.unwrap_or(line.len())).unwrap_or_default().trim_end();
        self.at += value.len();
        Ok(SecretBytes::copy_from(value.as_bytes())?)
    }

    fn skip(&mut self, fits: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !fits(c)).unwrap_or(rest.len());
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, why: &'static str) -> ParseError {
        ParseError::at(self.text, self.at, why)
    }
}

fn unescaped(quote: char, escaped: char) -> Option<char> {
    Some(match escaped {
        '\\' | '\'' => escaped,
        _ if quote == '\'' => return None,
        '"' => '"',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        _ => return None,
    })
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() && !is_line_end(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(entries: Result<Vec<Entry>, ParseError>, text: &str) -> Vec<(String, String, String)> {
        let show = |entry: Entry| {
            let value = String::from_utf8(entry.value.expose().to_vec()).unwrap();
            (entry.key, value, text.get(entry.span).unwrap().to_owned())
        };
        entries.unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn a_dotenv_file_is_read_as_python_dotenv_reads_it() {
        let text = "# c\nA=plain # note\nexport B = 'it\\'s\nx' # n\n'C'=\"a\\nb\\q\"\nD\nE=\nF=a#b'c\r\nG=#\nI= # c\nH='a\r\nb\rc'\n";
        let expected = [
            ("A", "plain", "plain"),
            ("B", "it's\nx", "'it\\'s\nx'"),
            ("C", "a\nb\\q", "\"a\\nb\\q\""),
            ("E", "", ""),
            ("F", "a#b'c", "a#b'c"),
            ("G", "#", "#"),
            ("I", "", ""),
            ("H", "a\nb\nc", "'a\r\nb\rc'"),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(shown(parse(text), text), expected);
    }

    #[test]
    fn what_is_no_statement_is_an_error_at_its_line() {
        for bad in ["A='x", "A='x' y", "=x", "A=1\n'="] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("A=1\nB='x' y").unwrap_err().to_string().starts_with("line 2, column 7"));
    }

    #[test]
    fn raw_lines_are_taken_as_they_are_and_so_is_what_ends_in_nul() {
        let text = "# c\nA='q' # x\n  B==\r\n\n";
        let expected = [("A", "'q' # x"), ("B", "=")];
        let found = shown(parse_raw(text), text);
        let found: Vec<_> = found.iter().map(|(a, b, _)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, expected);
        let text = "A=1\n2\0#B=x\0";
        let found = shown(parse_raw(text), text);
        let found: Vec<_> = found.iter().map(|(a, b, _)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, [("A", "1\n2"), ("#B", "x")]);
        assert!(parse_raw("A").is_err());
    }
}
