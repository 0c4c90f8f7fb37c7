//! Reads an assignment: a name, what joins it to a value, and the value.

use std::ops::Range;

use super::cursor::{Cursor, Quote};
use crate::scan::class::{is_letter, is_word};
use crate::scan::file_kind::{FileKind, Role};
use crate::scan::name::{Promise, promise};

/// A name with the value that it is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assigned {
    pub name: Range<usize>,
    pub promise: Promise,
    pub value: Range<usize>,
    pub form: Form,
}

/// How the value is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// As it is, in a text, right behind the equals sign: `"...;Password=x;..."`.
    Attached,
    /// As it is, up to where it must end.
    Bare,
    /// As it is, in a text in quotation marks or behind a mark of a comment.
    BareInText,
    Quoted,
}

/// Names are longer only in generated text.
const MAX_NAME: usize = 80;

impl Assigned {
    /// Reads around a fragment of a name.
    pub(super) fn read(text: &[u8], hit: Range<usize>, kind: FileKind) -> Option<Self> {
        let name = name_around(text, hit);
        // An assignment is rare and a name is not: look for what joins first, it is cheap.
        let mut cursor = Cursor::new(text, name.end);
        let start = text.get(..name.start)?;
        let join = Join::read(&mut cursor, start, kind)?;
        let word = text.get(name.clone())?;
        // The result of a test.
        if matches!(word, b"PASS" | b"Pass") && text.get(name.end) == Some(&b':') {
            return None;
        }
        let promise = promise(word)?;
        let (value, form) = value(cursor, join)?;
        let attached = text.get(name.end) == Some(&b'=') && value.start == name.end + 1;
        let form = match (form, is_in_text(start)) {
            (Form::Bare, true) if attached => Form::Attached,
            (Form::Bare, true) => Form::BareInText,
            (form, _) => form,
        };
        (!value.is_empty()).then_some(Self { name, promise, value, form })
    }
}

fn name_around(text: &[u8], hit: Range<usize>) -> Range<usize> {
    let is_name = |byte: u8| is_word(byte) || matches!(byte, b'-' | b'.');
    // A fragment may hold the byte that ends the name: `key=`.
    let fragment = text.get(hit.clone()).unwrap_or_default();
    let hit = hit.start..hit.start + fragment.iter().take_while(|&&byte| is_name(byte)).count();
    let before = text.get(hit.start.saturating_sub(MAX_NAME)..hit.start).unwrap_or_default();
    let after = text.get(hit.end..).unwrap_or_default();
    let left = before.iter().rev().take_while(|&&byte| is_name(byte)).count();
    let right = after.iter().take(MAX_NAME).take_while(|&&byte| is_name(byte)).count();
    hit.start - left..hit.end + right
}

/// What joins a name to its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Join {
    /// `=`, `:` and their kin.
    Assigns,
    /// A blank, where a blank joins: options, `.netrc`.
    Blank,
    /// A comma between two quoted arguments; the value must be quoted.
    Comma,
    /// `>` of an element that ends with `<`.
    Element,
}

impl Join {
    /// Moves behind what joins; `before` is the text up to the name.
    fn read(cursor: &mut Cursor<'_>, before: &[u8], kind: FileKind) -> Option<Self> {
        let quoted = cursor.quote().is_some();
        if quoted || before.last() == Some(&b'[') {
            cursor.eat(b"]");
        }
        let element = before.last() == Some(&b'<');
        if element && cursor.eat(b">") {
            return Some(Self::Element);
        }
        let name_end = cursor.at;
        let blanks = cursor.blanks();
        match cursor.peek()? {
            b'=' => {
                cursor.skip(3, |byte| matches!(byte, b'=' | b'>' | b'~'));
                Some(Self::Assigns)
            }
            b':' => {
                cursor.at += 1;
                if cursor.peek() == Some(b':') {
                    return None;
                }
                cursor.eat(b"=");
                typed(cursor);
                Some(Self::Assigns)
            }
            b'?' if cursor.eat(b"?=") || cursor.eat(b"?:") => Some(Self::Assigns),
            b'|' if cursor.eat(b"||=") => Some(Self::Assigns),
            // `setPassword("...")`: one argument, a literal.
            b'(' if blanks == 0 && !quoted => {
                cursor.at += 1;
                Some(Self::Comma)
            }
            b'>' if quoted => {
                cursor.at += 1;
                Some(Self::Element)
            }
            b',' if quoted => {
                cursor.at += 1;
                if member_value(cursor) {
                    return Some(Self::Assigns);
                }
                is_pair(cursor, before).then_some(Self::Comma)
            }
            b'v' | b'V' if quoted => member_value(cursor).then_some(Self::Assigns),
            b'\n' | b'\r' => {
                cursor.at = name_end;
                let named = last_word_is(before, b"name:") || last_word_is(before, b"key:");
                (named && member_value(cursor)).then_some(Self::Assigns)
            }
            _ if blanks > 0 && !quoted && joins_by_blank(before, cursor, kind) => Some(Self::Blank),
            _ => None,
        }
    }
}

/// Tells whether two quoted texts are name and value, and not two of a list: the first one opens the
/// arguments, or the second one closes the pair.
fn is_pair(cursor: &Cursor<'_>, before: &[u8]) -> bool {
    let opens = before.trim_suffix_quote().trim_ascii_end().last() == Some(&b'(');
    let closes = || {
        let mut ahead = *cursor;
        ahead.blanks();
        let quote = ahead.quote()?;
        ahead.at = quote.end(ahead.text, ahead.at)? + quote.escapes + 1;
        ahead.blanks();
        ahead.peek().filter(|byte| matches!(byte, b']' | b')' | b'}'))
    };
    opens || closes().is_some()
}

/// Moves over the type of `password: &str = "..."` to behind the equals sign, if that is what it is.
fn typed(cursor: &mut Cursor<'_>) {
    let mut ahead = *cursor;
    let is_type = |byte: u8| {
        is_word(byte)
            || matches!(byte, b' ' | b'&' | b'<' | b'>' | b'\'' | b'?' | b'|' | b'.' | b'[' | b']')
    };
    ahead.skip(40, is_type);
    // Padding of base64 stands behind a long word, as no type is.
    let words = cursor.text.get(cursor.at..ahead.at).unwrap_or_default();
    let is_short = words.split(|&byte| !is_word(byte)).all(|word| word.len() < 16);
    if is_short && ahead.eat(b"=") && !matches!(ahead.peek(), Some(b'=' | b'>')) {
        ahead.blanks();
        if ahead.quote().is_some() || literal_prefix(&mut ahead) {
            ahead = *cursor;
            ahead.skip(40, is_type);
            ahead.eat(b"=");
            *cursor = ahead;
        }
    }
}

/// Moves behind `value:` or `value=`, on this line or the next: the other half of `name: DB_PASSWORD`.
fn member_value(cursor: &mut Cursor<'_>) -> bool {
    let mut ahead = *cursor;
    ahead.skip(80, |byte| {
        matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'"' | b'\'' | b'\\')
    });
    if !(ahead.eat(b"value") || ahead.eat(b"Value") || ahead.eat(b"VALUE")) {
        return false;
    }
    let _ = ahead.quote();
    ahead.blanks();
    let joined = ahead.eat(b":") || ahead.eat(b"=");
    if joined {
        *cursor = ahead;
    }
    joined
}

fn joins_by_blank(before: &[u8], cursor: &Cursor<'_>, kind: FileKind) -> bool {
    let name_is_option =
        before.ends_with(b" -") || before.ends_with(b" --") || before.ends_with(b"\"--");
    // The name was taken with its dashes; see what it begins with.
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let line = before.get(line_start..).unwrap_or_default();
    let name = cursor.text.get(before.len()..cursor.at).unwrap_or_default();
    let is_settings = matches!(kind.role, Role::Config | Role::Unknown | Role::Document);
    name_is_option
        || name.starts_with(b"--")
        || is_settings && memchr::memmem::find(line, b"login ").is_some()
        || is_settings && (name.starts_with(b"requirepass") || name.starts_with(b"masterauth"))
        || is_settings && line.trim_ascii() == b"ENV"
        // `proxy_set_header X-API-Key "..."`
        || is_settings
            && matches!(cursor.peek(), Some(b'"' | b'\''))
            && memchr::memmem::find(line, b"eader ").is_some()
        || memchr::memmem::find(line, b"ITH ").is_some() && cursor.rest().starts_with(b"'")
        || name.starts_with(b"PASSWORD ") && cursor.rest().starts_with(b"'")
}

fn last_word_is(before: &[u8], word: &[u8]) -> bool {
    before.trim_ascii_end().trim_suffix_quote().trim_ascii_end().ends_with(word)
}

trait TrimQuote {
    fn trim_suffix_quote(&self) -> &[u8];
}

impl TrimQuote for [u8] {
    fn trim_suffix_quote(&self) -> &[u8] {
        self.strip_suffix(b"\"").or_else(|| self.strip_suffix(b"'")).unwrap_or(self)
    }
}

/// Moves over what may stand before a literal: `b`, `f`, `@`, `String::from(`.
fn literal_prefix(cursor: &mut Cursor<'_>) -> bool {
    const WRAPPERS: [&[u8]; 9] = [
        b"String::from(",
        b"Some(",
        b"SecretString::from(",
        b"SecretString::new(",
        b"Secret::new(",
        b"new String(",
        b"SecretStr(",
        b"ConvertTo-SecureString ",
        b"base64.b64decode(",
    ];
    let mut ahead = *cursor;
    let wrapped = WRAPPERS.iter().any(|wrapper| ahead.eat(wrapper));
    ahead.skip(2, |byte| is_letter(byte) || byte == b'@' || byte == b'&');
    if matches!(ahead.peek(), Some(b'"' | b'\'' | b'`')) && (wrapped || ahead.at > cursor.at) {
        *cursor = ahead;
        return true;
    }
    false
}

fn value(mut cursor: Cursor<'_>, join: Join) -> Option<(Range<usize>, Form)> {
    let text = cursor.text;
    cursor.blanks();
    if join == Join::Element {
        let start = cursor.at;
        let len = memchr::memchr2(b'<', b'\n', cursor.rest().get(..256).unwrap_or(cursor.rest()))?;
        return (text.get(start + len) == Some(&b'<'))
            .then_some((start..start + len, Form::Quoted));
    }
    if literal_prefix(&mut cursor)
        || cursor.peek().is_some_and(|byte| matches!(byte, b'"' | b'\'' | b'`' | b'\\'))
    {
        let quote = cursor.quote()?;
        let end = quoted_end(text, cursor, quote)?;
        return Some((cursor.at..end, Form::Quoted));
    }
    if join == Join::Comma {
        return None;
    }
    let is_value = |byte: u8| {
        !byte.is_ascii_whitespace()
            && !matches!(byte, b'"' | b'\'' | b'`' | b';' | b'<' | b'>' | b'\\' | b'|')
    };
    let start = cursor.at;
    cursor.skip(256, is_value);
    let mut end = cursor.at;
    // What ends a sentence, an argument or a member is not of the value.
    while end > start
        && matches!(text.get(end - 1), Some(b',' | b')' | b']' | b'}'))
        && !balanced(text.get(start..end)?)
    {
        end -= 1;
    }
    // One more parameter of a query follows.
    let query = text.get(start..end)?;
    if let Some(at) = memchr::memchr(b'&', query)
        .filter(|&at| memchr::memchr(b'=', query.get(at..).unwrap_or_default()).is_some())
    {
        end = start + at;
    }
    Some((start..end, Form::Bare))
}

fn quoted_end(text: &[u8], cursor: Cursor<'_>, quote: Quote) -> Option<usize> {
    quote.end(text, cursor.at)
}

/// Tells whether each bracket that closes was opened in the value too.
fn balanced(value: &[u8]) -> bool {
    let count = |mark: u8| value.iter().filter(|&&byte| byte == mark).count();
    value.last() != Some(&b',')
        && count(b'(') == count(b')')
        && count(b'[') == count(b']')
        && count(b'{') == count(b'}')
}

/// Tells whether a place is within a text in quotation marks that its line has opened, or in a comment.
fn is_in_text(before: &[u8]) -> bool {
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let line = before.get(line_start..).unwrap_or_default();
    let marks = line.iter().filter(|&&byte| byte == b'"').count();
    let singles = line.iter().filter(|&&byte| byte == b'\'').count();
    let start = line.trim_ascii_start();
    marks % 2 == 1
        || singles % 2 == 1
        || start.starts_with(b"#")
        || start.starts_with(b"//")
        || start.starts_with(b"*")
        || start.starts_with(b"--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Form)> {
        let at = text.to_ascii_lowercase().find("pass")?;
        let found = Assigned::read(text.as_bytes(), at..at + 4, FileKind::default())?;
        Some((text[found.value].to_owned(), found.form))
    }

    #[test]
    fn a_value_is_read_in_all_the_ways_in_which_it_is_written() {
        let quoted = [
            r#"password = "v4lue""#,
            r#""password": "v4lue","#,
            r#"{\"password\": \"v4lue\"}"#,
            "password: 'v4lue'",
            "config['password'] = 'v4lue'",
            "const password: &str = \"v4lue\";",
            "String password = \"v4lue\";",
            "password := `v4lue`",
            "'password' => 'v4lue',",
            "<password>v4lue</password>",
            "<add key=\"password\" value=\"v4lue\"/>",
            "<entry key=\"password\">v4lue</entry>",
            "{\"name\": \"DB_PASSWORD\", \"value\": \"v4lue\"}",
            "- name: DB_PASSWORD\n  value: \"v4lue\"",
            "set(\"password\", \"v4lue\")",
            "password = b'v4lue'",
            "password = String::from(\"v4lue\")",
            "ALTER USER x WITH PASSWORD 'v4lue'",
            "if password == \"v4lue\":",
        ];
        for text in quoted {
            assert_eq!(read(text), Some(("v4lue".into(), Form::Quoted)), "{text}");
        }
        let bare = [
            "DB_PASSWORD=v4lue",
            "password: v4lue\n",
            "db.password = v4lue",
            "tool --password v4lue x",
            "tool --password=v4lue",
            "login me password v4lue",
            "requirepass v4lue",
            "?password=v4lue&x=1",
            "ENV PASSWORD v4lue",
        ];
        for text in bare {
            assert_eq!(read(text), Some(("v4lue".into(), Form::Bare)), "{text}");
        }
        assert_eq!(
            read("s = \"Server=x;Password=v4lue;\""),
            Some(("v4lue".into(), Form::Attached))
        );
    }

    #[test]
    fn what_assigns_nothing_is_left_alone() {
        for text in [
            "password",
            "the password is long",
            "password::new()",
            "fn pass(x: u8)",
            "password()",
            "password_hash = \"x1\"",
            "bypass = \"v4lue\"",
            "password = \"\"",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
