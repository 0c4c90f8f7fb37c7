//! Sets of variables as text, quoted so that the consumer of each format reads back the exact bytes.
//!
//! Each format is what its consumers really read, not what its name promises: `dotenv` is what both
//! python-dotenv and `node --env-file` take alike, `systemd` what EnvironmentFile= keeps. A value that a
//! format cannot hold is an error that says why; nothing is changed or left out.

use std::fmt;

use super::variable::{Variable, VariableError};
use super::{json, push};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// A form of variables that programs read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `--env-file` of docker and podman: the rest of a line, as it is.
    Docker,
    /// python-dotenv and `node --env-file`.
    Dotenv,
    /// One object; bytes that are not UTF-8 as `{"base64": "..."}`.
    Json,
    /// For `eval` or `.` of any POSIX shell.
    Sh,
    /// `EnvironmentFile=`.
    Systemd,
}

impl Format {
    /// Writes variables in their order.
    pub fn write<'a>(
        self,
        variables: impl IntoIterator<Item = (&'a Variable, &'a SecretBytes)>,
    ) -> Result<SecretBytes, FormatError> {
        let mut text = SecretBuffer::new();
        if self == Self::Json {
            push(&mut text, b"{")?;
        }
        let mut first = true;
        for (variable, value) in variables {
            self.write_one(variable, value.expose(), first, &mut text)?;
            first = false;
        }
        if self == Self::Json {
            push(&mut text, if first { b"}\n" } else { b"\n}\n" })?;
        }
        Ok(text.into_bytes())
    }

    fn write_one(
        self,
        variable: &Variable,
        value: &[u8],
        first: bool,
        text: &mut SecretBuffer,
    ) -> Result<(), FormatError> {
        if self == Self::Json {
            push(text, if first { b"\n  \"" } else { b",\n  \"" })?;
            push(text, variable.as_str().as_bytes())?;
            push(text, b"\": ")?;
            return Ok(json::push_value(text, value)?);
        }
        variable.check(value)?;
        let refuse = |why| FormatError::NotHeld { variable: variable.clone(), format: self, why };
        if self == Self::Sh {
            push(text, b"export ")?;
        }
        push(text, variable.as_str().as_bytes())?;
        push(text, b"=")?;
        match self {
            Self::Docker => {
                push(text, docker(variable.as_str().len(), value).map_err(refuse)?)?;
            }
            Self::Dotenv => {
                let quote = dotenv_quote(value).map_err(refuse)?;
                push(text, quote)?;
                push(text, value)?;
                push(text, quote)?;
            }
            Self::Json => {}
            Self::Sh => push_sh(text, value)?,
            Self::Systemd => {
                check_systemd(value).map_err(refuse)?;
                push_systemd(text, value)?;
            }
        }
        Ok(push(text, b"\n")?)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Dotenv => "dotenv",
            Self::Json => "json",
            Self::Sh => "sh",
            Self::Systemd => "systemd",
        })
    }
}

/// Quotes for sh(1): between single quotes only the single quote itself is special.
pub fn push_sh(text: &mut SecretBuffer, value: &[u8]) -> Result<(), MemoryError> {
    push(text, b"'")?;
    for (index, part) in value.split(|&byte| byte == b'\'').enumerate() {
        if index > 0 {
            push(text, b"'\\''")?;
        }
        push(text, part)?;
    }
    push(text, b"'")
}

/// Between double quotes systemd takes a backslash before these four, and a line end as it is.
fn push_systemd(text: &mut SecretBuffer, value: &[u8]) -> Result<(), MemoryError> {
    push(text, b"\"")?;
    for &byte in value {
        if matches!(byte, b'"' | b'\\' | b'`' | b'$') {
            push(text, b"\\")?;
        }
        push(text, &[byte])?;
    }
    push(text, b"\"")
}

/// systemd drops variables with other bytes, and says so in the journal alone.
fn check_systemd(value: &[u8]) -> Result<(), &'static str> {
    let value = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8")?;
    let noncharacter =
        |c: char| matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    if value.bytes().any(|byte| byte < b' ' && !matches!(byte, b'\t' | b'\n') || byte == 0x7f) {
        return Err("the value has a control character that is neither a tab nor a line end");
    }
    if value.chars().any(noncharacter) {
        return Err("the value has a code point that Unicode calls no character");
    }
    Ok(())
}

/// Docker reads lines of UTF-8 with a scanner whose lines are at most 64 KiB.
fn docker(name_bytes: usize, value: &[u8]) -> Result<&[u8], &'static str> {
    const MAX_LINE_BYTES: usize = 64 * 1024 - 2;
    if std::str::from_utf8(value).is_err() {
        return Err("the value is not UTF-8");
    }
    if value.contains(&b'\n') || value.ends_with(b"\r") {
        return Err("the value has a line end, and a value is the rest of its line");
    }
    if name_bytes + 1 + value.len() > MAX_LINE_BYTES {
        return Err("the line would be longer than 64 KiB");
    }
    Ok(value)
}

/// Returns the quote, or none, between which both consumers take every byte as it is.
fn dotenv_quote(value: &[u8]) -> Result<&'static [u8], &'static str> {
    let value = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8")?;
    if value.contains('\r') {
        return Err("node drops carriage returns");
    }
    if value.contains("${") {
        return Err("python-dotenv would take `${` for a variable, whatever the quotes");
    }
    // python-dotenv takes a backslash before a backslash or the quote for an escape.
    if !value.contains('\'') && !value.contains("\\\\") && !value.ends_with('\\') {
        return Ok(b"'");
    }
    // Between double quotes it takes more escapes, and node takes `\n`.
    if !value.contains(['"', '\\']) {
        return Ok(b"\"");
    }
    let at_an_edge = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\'' | '"' | '`');
    let plain = !value.contains(['\n', '#'])
        && !value.starts_with(at_an_edge)
        && !value.ends_with(at_an_edge);
    if plain {
        Ok(b"")
    } else {
        Err("it has quotes and backslashes that its consumers read differently")
    }
}

/// Why variables cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("{format} cannot hold {variable}: {why}")]
    NotHeld { variable: Variable, format: Format, why: &'static str },
    #[error(transparent)]
    Variable(#[from] VariableError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::dotenv;
    use proptest::prelude::*;

    fn written(format: Format, value: &[u8]) -> Result<String, FormatError> {
        let variable: Variable = "A".parse().unwrap();
        let value = SecretBytes::copy_from(value).unwrap();
        let text = format.write([(&variable, &value)])?;
        Ok(String::from_utf8_lossy(text.expose()).into_owned())
    }

    #[test]
    fn each_format_quotes_as_its_consumers_read() {
        let value = b"it's $HOME \\ \"x\"";
        assert_eq!(written(Format::Sh, value).unwrap(), "export A='it'\\''s $HOME \\ \"x\"'\n");
        assert_eq!(written(Format::Systemd, value).unwrap(), "A=\"it's \\$HOME \\\\ \\\"x\\\"\"\n");
        assert_eq!(written(Format::Docker, value).unwrap(), "A=it's $HOME \\ \"x\"\n");
        assert_eq!(written(Format::Dotenv, b"a#b").unwrap(), "A='a#b'\n");
        assert_eq!(written(Format::Dotenv, b"it's").unwrap(), "A=\"it's\"\n");
        assert_eq!(written(Format::Dotenv, b"a'b\"c").unwrap(), "A=a'b\"c\n");
        assert_eq!(
            written(Format::Json, b"\xff").unwrap(),
            "{\n  \"A\": {\"base64\": \"/w==\"}\n}\n"
        );
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_and_the_value_not_shown() {
        let cases: [(Format, &[u8]); 12] = [
            (Format::Sh, b"canary\0"),
            (Format::Docker, b"canary\nx"),
            (Format::Docker, b"canary\r"),
            (Format::Docker, b"canary\xff"),
            (Format::Systemd, b"canary\x01"),
            (Format::Systemd, b"canary\r\n"),
            (Format::Systemd, b"canary\xff"),
            (Format::Systemd, "canary\u{fffe}".as_bytes()),
            (Format::Dotenv, b"canary${x}"),
            (Format::Dotenv, b"canary\r"),
            (Format::Dotenv, b"canary'\"#"),
            (Format::Dotenv, b"canary\xff"),
        ];
        for (format, value) in cases {
            let error = written(format, value).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let long = vec![b'x'; 70_000];
        assert!(written(Format::Docker, &long).is_err());
        assert!(written(Format::Sh, &long).is_ok());
        let longer = vec![b'x'; 1 << 20];
        assert!(written(Format::Sh, &longer).is_err());
        assert!(written(Format::Json, &longer).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_by_what_import_reads(
            value in "[a-c\u{e9}\u{2028}'\"`\\\\${}#= \t\r\n\u{1}]{0,12}",
        ) {
            let back = |format: Format, text: &str| -> Vec<u8> {
                let copy = |entries: Vec<dotenv::Entry>| entries[0].value.expose().to_vec();
                match format {
                    Format::Docker => copy(dotenv::parse_raw(text).unwrap()),
                    Format::Dotenv => copy(dotenv::parse(text).unwrap()),
                    Format::Json | Format::Sh | Format::Systemd => {
                        let mut found = Vec::new();
                        json::parse(text).unwrap().texts(&mut |_, text, _| found = text.expose().to_vec());
                        found
                    }
                }
            };
            for format in [Format::Docker, Format::Dotenv, Format::Json] {
                if let Ok(text) = written(format, value.as_bytes()) {
                    prop_assert_eq!(back(format, &text), value.as_bytes(), "{} {}", format, text);
                }
            }
        }
    }
}
