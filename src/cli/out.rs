//! The only printer.
//!
//! Text that others chose (names, programs' names, descriptions, errors) is escaped before it is
//! shown, so that it cannot steer a terminal or pose as another line. A value goes out byte by byte
//! as it is, but a binary one not to a terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use super::error::{Failure, Kind};

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Style {
    Json,
    /// For another program: no decoration.
    Plain,
    /// For a person at a terminal.
    Terminal,
}

/// How good something is, for who sees colours; what it says stands in words too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    Bad,
    Good,
    Open,
}

impl Tone {
    fn color(self) -> Color {
        match self {
            Self::Bad => Color::Red,
            Self::Good => Color::Green,
            Self::Open => Color::Yellow,
        }
    }
}

/// Prints to standard output, and notes to standard error.
#[derive(Debug)]
pub(crate) struct Out(Style);

type Printed = Result<(), Failure>;

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self(match (json, terminal) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Plain,
        })
    }

    pub(crate) fn is_json(&self) -> bool {
        self.0 == Style::Json
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.0 == Style::Terminal
    }

    /// Prints lines for people; nothing in `--json`.
    pub(crate) fn line(&self, text: impl fmt::Display) -> Printed {
        if self.is_json() {
            return Ok(());
        }
        write(format_args!("{}\n", Shown(&text.to_string())))
    }

    /// Prints one JSON document, in `--json` alone.
    pub(crate) fn json(&self, value: &Value) -> Printed {
        if self.is_json() { write(format_args!("{value}\n")) } else { Ok(()) }
    }

    /// Prints what was done: a line for people, or a document.
    pub(crate) fn done(&self, text: impl fmt::Display, value: &Value) -> Printed {
        self.json(value)?;
        self.line(text)
    }

    /// Prints a JSON answer of the daemon: as it is, or as lines of key and value.
    pub(crate) fn answer(&self, value: &Value) -> Printed {
        self.json(value)?;
        if self.is_json() {
            return Ok(());
        }
        let mut lines = Vec::new();
        flatten("", value, &mut lines);
        let width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        for (key, text) in lines {
            write(format_args!("{:width$}  {}\n", Shown(&key).to_string(), Shown(&text)))?;
        }
        Ok(())
    }

    /// Prints rows: a table on a terminal, tab-separated columns without a header elsewhere. In
    /// `--json` nothing: the command prints a document with real types.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) -> Printed {
        self.toned_table(header, rows, |_| None)
    }

    /// The same, with colours for cells on a terminal.
    pub(crate) fn toned_table(
        &self,
        header: &[&str],
        rows: &[Vec<String>],
        tone: impl Fn(&str) -> Option<Tone>,
    ) -> Printed {
        match self.0 {
            Style::Json => Ok(()),
            Style::Plain => rows.iter().try_for_each(|row| {
                let cells: Vec<String> = row.iter().map(|cell| Shown(cell).to_string()).collect();
                write(format_args!("{}\n", cells.join("\t")))
            }),
            Style::Terminal if rows.is_empty() => Ok(()),
            Style::Terminal => {
                let mut table = Table::new();
                table.load_preset(presets::NOTHING);
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_header(header);
                for row in rows {
                    table.add_row(row.iter().map(|text| {
                        let cell = Cell::new(Shown(text));
                        match tone(text) {
                            None => cell,
                            Some(tone) => cell.fg(tone.color()),
                        }
                    }));
                }
                write(format_args!("{}\n", table.trim_fmt()))
            }
        }
    }

    /// Prints a value as it is; a binary one to a terminal only with `force`.
    pub(crate) fn secret(&self, name: &str, value: &[u8], force: bool) -> Printed {
        if self.0 == Style::Terminal && !force && is_binary(value) {
            return Err(Failure::new(
                Kind::Config,
                name,
                "the value is binary and would garble the terminal",
            )
            .hint("send it to a file or a program, or use --force"));
        }
        self.bytes(value)
    }

    /// Prints bytes that are meant for a program or file.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Printed {
        // Not through the buffer of `io::stdout`, which is never wiped.
        let mut rest = bytes;
        while !rest.is_empty() {
            match nix::unistd::write(io::stdout(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return closed(errno.into()),
            }
        }
        // A person's prompt should not stand behind the value; a program gets the exact bytes.
        if self.0 == Style::Terminal && !bytes.ends_with(b"\n") {
            return write(format_args!("\n"));
        }
        Ok(())
    }

    /// Says something beside the answer, on standard error.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        // Whoever closed standard error does not want to know.
        drop(writeln!(io::stderr(), "{}", Shown(&text.to_string())));
    }

    /// Shows how far something is, on a line of standard error that the next one replaces; nothing
    /// where no person looks.
    pub(crate) fn progress(&self, text: impl fmt::Display) {
        let mut stderr = io::stderr();
        if !self.is_json() && stderr.is_terminal() {
            drop(write!(stderr, "\r\x1b[K{}", Shown(&text.to_string())));
        }
    }

    /// Tells a step of something that takes a while, a line each; nothing where no person looks.
    pub(crate) fn step(&self, text: impl fmt::Display) {
        if !self.is_json() && io::stderr().is_terminal() {
            self.note(text);
        }
    }

    /// Says why the command failed: on standard error, or as a document on standard output.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.is_json() {
            drop(write(format_args!("{}\n", failure.to_json())));
        } else {
            drop(writeln!(io::stderr(), "secretfs: {failure}"));
        }
    }
}

fn write(text: fmt::Arguments<'_>) -> Printed {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).or_else(closed)
}

/// A reader that has had enough, as `head` has, is no failure of the command.
fn closed(error: io::Error) -> Printed {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::new(Kind::Config, "standard output", error.to_string()))
}

/// Text with everything escaped that is not plainly visible: control characters, line ends, and
/// characters that change the direction or the look of what stands around them.
pub(crate) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_visible(c) { write!(f, "{c}") } else { write!(f, "{}", c.escape_default()) }
        })
    }
}

fn is_visible(c: char) -> bool {
    let unseen = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !unseen
}

/// Tells whether bytes are something else than text with lines and tabs.
fn is_binary(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return true };
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let key = |name: &str| {
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(&key(name), value, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&key(&index.to_string()), item, lines);
            }
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(text_of).collect();
            lines.push((prefix.to_owned(), words.join(", ")));
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            lines.push((prefix.to_owned(), text_of(value)));
        }
    }
}

/// Returns a JSON scalar as text, strings without their quotes, null as nothing.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_could_steer_a_terminal_or_hide_is_escaped() {
        let cases = [
            ("plain name/x \u{e9}", "plain name/x \u{e9}"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\0", "\\u{0}"),
        ];
        for (text, expected) in cases {
            assert_eq!(Shown(text).to_string(), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_count_as_binary() {
        for text in ["", "value", "two\nlines\r\n\tx", "\u{e9}"] {
            assert!(!is_binary(text.as_bytes()), "{text:?}");
        }
        for binary in [&b"\0"[..], b"\xff\xfe", b"a\x1b[2J", b"\x07"] {
            assert!(is_binary(binary), "{binary:?}");
        }
    }

    #[test]
    fn a_binary_value_goes_to_a_terminal_only_by_force() {
        let refused = Out(Style::Terminal).secret("key", b"\0\x01", false).unwrap_err();
        assert!(refused.hint.contains("--force"));
        assert!(!refused.to_string().contains('\0'));
    }

    #[test]
    fn an_answer_is_flattened_into_dotted_keys_without_nulls() {
        let mut lines = Vec::new();
        let answer = serde_json::json!({
            "a": { "b": 1, "none": null }, "tags": ["x", "y"], "list": [{ "v": true }],
        });
        flatten("", &answer, &mut lines);
        let lines: Vec<_> = lines.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(lines, [("a.b", "1"), ("list.0.v", "true"), ("tags", "x, y")]);
    }
}
