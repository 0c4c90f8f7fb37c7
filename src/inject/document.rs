//! A parsed document, of YAML, JSON or TOML alike: what is in it and where it stands.
//!
//! Text is kept in locked memory, because any of it may be a secret; keys are names and are not.

use std::ops::Range;
use std::sync::Arc;

use super::{json, push};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// A value and the bytes of the source that it was read from.
#[derive(Debug)]
pub struct Node {
    pub content: Content,
    pub span: Range<usize>,
}

/// What is called for a text: with the way to it, and where it stands.
pub type Visit<'a> = dyn FnMut(&[String], &SecretBytes, Range<usize>) + 'a;

/// What a value is. Nodes are shared where the source has aliases.
#[derive(Debug)]
pub enum Content {
    Bool(bool),
    Float(f64),
    /// Decimal, of any size.
    Int(String),
    List(Vec<Arc<Node>>),
    Map(Vec<(Key, Arc<Node>)>),
    Null,
    Text(SecretBytes),
    /// A date or a time, as ISO 8601 has it.
    Time(String),
}

/// What a value is found under.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// A number, a truth value or null, as JSON would spell it.
    Other(String),
    Text(String),
}

impl Key {
    /// Returns the key as JSON has it, where every key is text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) | Self::Text(text) => text,
        }
    }
}

impl Content {
    /// Returns the pairs of a map.
    pub fn as_map(&self) -> Option<&[(Key, Arc<Node>)]> {
        if let Self::Map(pairs) = self { Some(pairs) } else { None }
    }

    /// Puts a pair into a map: a later value takes the place of an earlier one.
    pub fn insert(pairs: &mut Vec<(Key, Arc<Node>)>, key: Key, value: Arc<Node>) {
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => pairs.push((key, value)),
        }
    }
}

impl Node {
    /// Returns a node that stands nowhere.
    pub fn made(content: Content) -> Self {
        Self { content, span: 0..0 }
    }

    /// Calls `each` for every text that is not a key, with the way to it, in the document's order.
    pub fn texts(&self, each: &mut Visit<'_>) {
        self.walk(&mut Vec::new(), each);
    }

    fn walk(&self, path: &mut Vec<String>, each: &mut Visit<'_>) {
        match &self.content {
            Content::Text(text) => each(path, text, self.span.clone()),
            Content::Map(pairs) => {
                for (key, node) in pairs {
                    path.push(key.as_str().to_owned());
                    node.walk(path, each);
                    path.pop();
                }
            }
            Content::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    path.push(index.to_string());
                    node.walk(path, each);
                    path.pop();
                }
            }
            Content::Bool(_)
            | Content::Float(_)
            | Content::Int(_)
            | Content::Null
            | Content::Time(_) => {}
        }
    }

    /// Appends the node as one line of JSON.
    pub fn push_json(&self, to: &mut SecretBuffer) -> Result<(), MemoryError> {
        match &self.content {
            Content::Bool(value) => push(to, value.to_string().as_bytes()),
            Content::Float(value) => push_float(to, *value),
            Content::Int(digits) => push(to, digits.as_bytes()),
            Content::List(items) => {
                push(to, b"[")?;
                for (index, item) in items.iter().enumerate() {
                    push(to, if index > 0 { b", " } else { b"" })?;
                    item.push_json(to)?;
                }
                push(to, b"]")
            }
            Content::Map(pairs) => {
                push(to, b"{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    push(to, if index > 0 { b", " } else { b"" })?;
                    json::push_string(to, key.as_str())?;
                    push(to, b": ")?;
                    value.push_json(to)?;
                }
                push(to, b"}")
            }
            Content::Null => push(to, b"null"),
            Content::Text(text) => json::push_value(to, text.expose()),
            Content::Time(text) => json::push_string(to, text),
        }
    }
}

/// JSON has no word for infinity; YAML's is used, as text.
fn push_float(to: &mut SecretBuffer, value: f64) -> Result<(), MemoryError> {
    if value.is_nan() {
        return push(to, b"\".nan\"");
    }
    if value.is_infinite() {
        return push(to, if value > 0.0 { b"\".inf\"" } else { b"\"-.inf\"" });
    }
    push(to, format!("{value:?}").as_bytes())
}

/// Where and why a text is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("line {line}, column {column}: {why}")]
    Syntax { line: usize, column: usize, why: String },
    /// Well-formed, and a value is not what its own form says. Loaders fail with it.
    #[error("line {line}, column {column}: {why}")]
    Unfit { line: usize, column: usize, why: String },
}

impl ParseError {
    /// Names the place of a byte of `text`.
    pub(super) fn at(text: &str, byte: usize, why: impl Into<String>) -> Self {
        let (line, column) = place(text, byte);
        Self::Syntax { line, column, why: why.into() }
    }

    /// Makes an error of the syntax one that is more than that.
    pub(super) fn into_fatal(self) -> Self {
        match self {
            Self::Syntax { line, column, why } => Self::Unfit { line, column, why },
            other @ (Self::Memory(_) | Self::Unfit { .. }) => other,
        }
    }
}

/// Returns the line and the column of a byte, counted from 1 and in characters.
pub fn place(text: &str, byte: usize) -> (usize, usize) {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count();
    (before.matches('\n').count() + 1, column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::{dotenv, yaml};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic_and_places_lie_in_it(
            text in "[a-c\u{e9} \n\t&*!|>'\"{}\\[\\]:,#=~\\\\1-]{0,40}",
        ) {
            for node in [yaml::parse(&text), json::parse(&text)].into_iter().flatten() {
                node.texts(&mut |_, _, span| assert!(text.get(span).is_some(), "{text:?}"));
            }
            for entries in [dotenv::parse(&text), dotenv::parse_raw(&text)].into_iter().flatten() {
                assert!(entries.iter().all(|entry| text.get(entry.span.clone()).is_some()));
            }
        }
    }
}
