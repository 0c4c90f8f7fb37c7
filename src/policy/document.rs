//! Reads the TOML of a policy value by value, so that every error has the place of what is wrong.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::model::Timestamp;

use super::PolicyError;

type Result<T> = std::result::Result<T, PolicyError>;

/// Returns an error at a byte offset of the text.
pub(super) fn error_at(text: &str, offset: usize, message: impl fmt::Display) -> PolicyError {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PolicyError {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message: message.to_string(),
    }
}

/// Parses the text as TOML.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>> {
    DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        error_at(text, offset, error.message())
    })
}

/// A table with the keys that may stand in it.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    text: &'a str,
    start: usize,
    what: &'static str,
    entries: &'a DeTable<'a>,
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    text: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// Opens the whole document. Errors: a key that is not among `keys`.
    pub(super) fn root(
        text: &'a str,
        document: &'a Spanned<DeTable<'a>>,
        keys: &[&str],
    ) -> Result<Self> {
        let table = Self { text, start: 0, what: "a policy", entries: document.get_ref() };
        table.check_keys(keys)?;
        Ok(table)
    }

    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        let text = self.text;
        self.entries.get(key).map(|value| Value { text, value })
    }

    pub(super) fn required(&self, key: &str) -> Result<Value<'a>> {
        self.value(key).ok_or_else(|| self.error(format!("{} needs `{key}`", self.what)))
    }

    /// Returns the entries of a list, or the one value that stands in its place; none if the key
    /// is missing. Errors: an empty list.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Value<'a>>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.one_or_more();
        if list.is_empty() {
            return Err(value.error(format!("`{key}` is empty: leave it out or name something")));
        }
        Ok(list)
    }

    /// Parses the entries of a list.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl Fn(Value<'a>) -> Result<T>,
    ) -> Result<Box<[T]>> {
        self.list(key)?.into_iter().map(parse).collect()
    }

    /// Returns the tables of `[[key]]`, each with those keys only.
    pub(super) fn tables(&self, key: &str, what: &'static str, keys: &[&str]) -> Result<Vec<Self>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        value.array(what)?.into_iter().map(|entry| entry.table(what, keys)).collect()
    }

    pub(super) fn line(&self) -> usize {
        self.error("").line
    }

    /// Returns an error at the place where the table begins.
    pub(super) fn error(&self, message: impl fmt::Display) -> PolicyError {
        error_at(self.text, self.start, message)
    }

    fn check_keys(&self, known: &[&str]) -> Result<()> {
        let is_known = |key: &&Spanned<DeString<'_>>| !known.contains(&&**key.get_ref());
        let Some(unknown) = self.entries.keys().find(is_known) else { return Ok(()) };
        let Range { start, .. } = unknown.span();
        let message = format!(
            "unknown key `{}` in {}: use {}",
            unknown.get_ref().escape_debug(),
            self.what,
            known.join(", ")
        );
        Err(error_at(self.text, start, message))
    }
}

impl<'a> Value<'a> {
    /// Returns an error at the place of the value.
    pub(super) fn error(&self, message: impl fmt::Display) -> PolicyError {
        error_at(self.text, self.value.span().start, message)
    }

    pub(super) fn string(self) -> Result<&'a str> {
        let value = self.value.get_ref();
        value.as_str().ok_or_else(|| self.unexpected("a string", value))
    }

    /// Parses a string; the error of `T` becomes the message.
    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(self) -> Result<T> {
        self.string()?.parse().map_err(|error| self.error(error))
    }

    /// Reads a string; the error that `read` returns becomes the message.
    pub(super) fn read<T>(
        self,
        read: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        read(self.string()?).map_err(|why| self.error(why))
    }

    /// Returns an integer from `min` to `u32::MAX`.
    pub(super) fn number(self, min: u32) -> Result<u32> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return Err(self.unexpected("an integer", self.value.get_ref()));
        };
        let digits = number.as_str();
        u32::from_str_radix(digits, number.radix()).ok().filter(|&n| n >= min).ok_or_else(|| {
            self.error(format!("{digits} is out of range: use {min} to {}", u32::MAX))
        })
    }

    pub(super) fn flag(self) -> Result<bool> {
        let value = self.value.get_ref();
        value.as_bool().ok_or_else(|| self.unexpected("true or false", value))
    }

    pub(super) fn is_integer(self) -> bool {
        self.value.get_ref().is_integer()
    }

    pub(super) fn timestamp(self) -> Result<Timestamp> {
        let DeValue::Datetime(datetime) = self.value.get_ref() else {
            return Err(self.unexpected("a date and time", self.value.get_ref()));
        };
        datetime.to_string().parse().map_err(|_| {
            self.error("a date and time with an offset is needed, as in 2026-12-31T00:00:00Z")
        })
    }

    /// Parses a duration of more than nothing, such as `30s` or `1h 30m`.
    pub(super) fn duration(self) -> Result<jiff::SignedDuration> {
        let text = self.string()?;
        let duration = text.parse::<jiff::SignedDuration>().ok();
        duration.filter(jiff::SignedDuration::is_positive).ok_or_else(|| {
            self.error(format!("{text:?} is no duration: write it as \"30s\" or \"5m\""))
        })
    }

    pub(super) fn array(self, of: &str) -> Result<Vec<Self>> {
        let value = self.value.get_ref();
        if !value.is_array() {
            return Err(self.unexpected(&format!("a list, each entry {of}"), value));
        }
        Ok(self.one_or_more())
    }

    pub(super) fn table(self, what: &'static str, keys: &[&str]) -> Result<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            return Err(self.unexpected(&format!("{what} (a table)"), self.value.get_ref()));
        };
        let start = self.value.span().start;
        let table = Table { text: self.text, start, what, entries };
        table.check_keys(keys)?;
        Ok(table)
    }

    pub(super) fn one_or_more(self) -> Vec<Self> {
        let text = self.text;
        match self.value.get_ref().as_array() {
            Some(entries) => entries.iter().map(|value| Self { text, value }).collect(),
            None => vec![self],
        }
    }

    fn unexpected(&self, expected: &str, found: &DeValue<'_>) -> PolicyError {
        self.error(format!("expected {expected}, found a value of type {}", found.type_str()))
    }
}
