//! YAML as PyYAML's `safe_load` understands it, because that is what programs read their settings with.
//!
//! The grammar is a parser's of YAML 1.2; what a plain scalar means is decided here as YAML 1.1 has it:
//! `yes` is true, `0777` octal, `1:30` ninety. The difference between what PyYAML reports as an error of
//! YAML and what it falls over is kept, because loaders treat the two differently.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use zeroize::Zeroize;

use super::document::{Content, Key, Node, ParseError};
use super::{json, push};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

mod scalar;

pub use scalar::iso_time;

/// Deeper documents are refused rather than recursed into.
const MAX_DEPTH: usize = 128;

/// Parses a stream of at most one document; none is null.
pub fn parse(text: &str) -> Result<Arc<Node>, ParseError> {
    if let Some((at, _)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
        return Err(ParseError::at(text, at, "YAML allows this character only as an escape"));
    }
    // The parser lets a document begin with a tab, which no scalar can.
    let mut lines = text.lines().map(|line| line.trim_start_matches(' '));
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    if first.is_some_and(|line| line.starts_with('\t')) {
        return Err(ParseError::at(text, 0, "a tab cannot stand before the first value"));
    }
    Loader::new(text).stream()
}

/// Appends a text as a double-quoted scalar of one line, which no reader takes for anything else.
pub fn push_quoted(to: &mut SecretBuffer, text: &str) -> Result<(), MemoryError> {
    push(to, b"\"")?;
    for c in text.chars() {
        match c {
            '"' => push(to, b"\\\"")?,
            '\\' => push(to, b"\\\\")?,
            '\n' => push(to, b"\\n")?,
            '\r' => push(to, b"\\r")?,
            '\t' => push(to, b"\\t")?,
            '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => push_escape(to, c)?,
            c if is_printable(c) && c != '\u{85}' => {
                push(to, c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
            c => push_escape(to, c)?,
        }
    }
    push(to, b"\"")
}

fn push_escape(to: &mut SecretBuffer, c: char) -> Result<(), MemoryError> {
    let code = u32::from(c);
    let (mark, digits) = if code < 0x100 { (b'x', 2) } else { (b'u', 4) };
    push(to, &[b'\\', mark])?;
    for place in (0..digits).rev() {
        push(to, &[json::hex(u8::try_from(code >> (4 * place) & 15).unwrap_or(0))])?;
    }
    Ok(())
}

/// What PyYAML's reader lets through.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

struct Loader<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Arc<Node>>,
    anchor_names: HashSet<String>,
    depth: usize,
    /// Byte offsets of the characters; empty where every character is a byte.
    offsets: Vec<usize>,
}

impl<'a> Loader<'a> {
    fn new(text: &'a str) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).collect()
        };
        let events = Parser::new_from_str(text);
        Self {
            text,
            events,
            anchors: HashMap::new(),
            anchor_names: HashSet::new(),
            depth: 0,
            offsets,
        }
    }

    fn stream(&mut self) -> Result<Arc<Node>, ParseError> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(found.unwrap_or_else(|| Node::made(Content::Null).into()));
                }
                Event::DocumentStart(_) if found.is_some() => {
                    return Err(self.error(span, "there is more than one document"));
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    found = Some(self.node(first)?);
                }
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentEnd
                | Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {}
            }
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span)) -> Result<Arc<Node>, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(span, "it is nested too deeply"));
        }
        let style = scalar_style(&event);
        self.note_anchor(&event, span)?;
        let (content, anchor) = match event {
            Event::Alias(id) => {
                self.depth -= 1;
                let known = self.anchors.get(&id).cloned();
                return known.ok_or_else(|| self.error(span, "an alias stands in what it names"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text, style, tag.as_deref(), span)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.expect_tag(tag.as_deref(), "seq", span)?;
                (self.sequence()?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.expect_tag(tag.as_deref(), "map", span)?;
                (self.mapping()?, anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(self.error(span, "no value stands here")),
        };
        self.depth -= 1;
        let start = value_start(self.text, self.byte(span.start.index()));
        let end = self.byte(span.end.index());
        // The scanner counts a block from its text on, and quotes up to what follows them.
        let span = match style {
            Some(ScalarStyle::Literal | ScalarStyle::Folded) => block_start(self.text, start)..end,
            Some(ScalarStyle::DoubleQuoted) => start..quoted_end(self.text, start, b'"'),
            Some(ScalarStyle::SingleQuoted) => start..quoted_end(self.text, start, b'\''),
            Some(ScalarStyle::Plain) | None => start..end.max(start),
        };
        let node = Arc::new(Node { content, span });
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        Ok(node)
    }

    /// PyYAML takes each name of an anchor once. The parser gives numbers alone, so the name is read
    /// where it stands: where the value begins, or last before it.
    fn note_anchor(&mut self, event: &Event<'a>, span: Span) -> Result<(), ParseError> {
        let (Event::Scalar(_, _, anchor, _)
        | Event::SequenceStart(anchor, _)
        | Event::MappingStart(anchor, _)) = event
        else {
            return Ok(());
        };
        if *anchor == 0 {
            return Ok(());
        }
        let (before, from) = self.text.split_at(self.byte(span.start.index()));
        let behind = || before.rsplit_once('&').map(|(_, behind)| behind);
        let name = from.strip_prefix('&').or_else(behind).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
        let name = name.split(ends).next().unwrap_or_default();
        if !self.anchor_names.insert(name.to_owned()) {
            return Err(self.error(span, "two anchors have one name"));
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Content, ParseError> {
        let plain = style == ScalarStyle::Plain;
        let resolved = match tag {
            None if plain => scalar::resolve(&text),
            None => scalar::Meaning::Text,
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => scalar::Meaning::Text,
            Some(tag) => scalar::tagged(core_suffix(tag), &text)
                .ok_or_else(|| self.error(span, "no safe loader knows this tag"))?,
        };
        match resolved {
            scalar::Meaning::Is(content) => Ok(content),
            scalar::Meaning::Text => {
                let mut bytes = text.as_bytes();
                // To PyYAML a block that the file's end cuts off has no line end there.
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if block
                    && self.byte(span.end.index()) == self.text.len()
                    && !self.text.ends_with('\n')
                {
                    bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                }
                let value = SecretBytes::copy_from(bytes)?;
                if let Cow::Owned(mut copy) = text {
                    copy.zeroize();
                }
                Ok(Content::Text(value))
            }
            scalar::Meaning::Unfit(why) => {
                let place = self.error(span, why);
                Err(place.into_fatal())
            }
            scalar::Meaning::Unknown(why) => Err(self.error(span, why)),
        }
    }

    fn sequence(&mut self) -> Result<Content, ParseError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                other => items.push(self.node(other)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Content, ParseError> {
        let mut own = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let plain = plain_text(&event);
            let key = if plain == Some("<<") {
                None
            } else if plain == Some("=") {
                Some(Key::Text("=".into()))
            } else {
                let node = self.node((event, span))?;
                Some(self.key(&node, span)?)
            };
            let value = self.next()?;
            let place = value.1;
            let value = self.node(value)?;
            match key {
                Some(key) => Content::insert(&mut own, key, value),
                None => self.merge(&value, place, &mut merged)?,
            }
        }
        // What is written out counts more than what is merged in.
        for (key, value) in own {
            Content::insert(&mut merged, key, value);
        }
        Ok(Content::Map(merged))
    }

    /// Takes over the pairs of one mapping, or of several of which the first counts.
    fn merge(
        &self,
        value: &Node,
        span: Span,
        into: &mut Vec<(Key, Arc<Node>)>,
    ) -> Result<(), ParseError> {
        if let Some(pairs) = value.content.as_map() {
            for (key, value) in pairs {
                if !into.iter().any(|(known, _)| known == key) {
                    into.push((key.clone(), Arc::clone(value)));
                }
            }
            return Ok(());
        }
        match &value.content {
            Content::List(items) if items.iter().all(|item| item.content.as_map().is_some()) => {
                items.iter().try_for_each(|item| self.merge(item, span, into))
            }
            Content::Bool(_)
            | Content::Float(_)
            | Content::Int(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Null
            | Content::Text(_)
            | Content::Time(_) => Err(self.error(span, "only mappings can be merged")),
        }
    }

    fn key(&self, node: &Node, span: Span) -> Result<Key, ParseError> {
        Ok(match &node.content {
            Content::Text(text) => Key::Text(String::from_utf8_lossy(text.expose()).into_owned()),
            Content::Bool(value) => Key::Other(value.to_string()),
            Content::Int(digits) => Key::Other(digits.clone()),
            Content::Float(value) => Key::Other(format!("{value:?}")),
            Content::Null => Key::Other("null".into()),
            Content::Time(text) => Key::Other(text.clone()),
            Content::List(_) | Content::Map(_) => {
                return Err(self.error(span, "a list or mapping cannot be a key"));
            }
        })
    }

    fn expect_tag(&self, tag: Option<&Tag>, only: &str, span: Span) -> Result<(), ParseError> {
        match tag {
            None => Ok(()),
            Some(tag) if core_suffix(tag) == Some(only) || tag.suffix == "!" => Ok(()),
            Some(_) => Err(self.error(span, "no safe loader knows this tag")),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), ParseError> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(err)) => Err(self.syntax(&err)),
            None => Err(ParseError::at(self.text, self.text.len(), "the document has no end")),
        }
    }

    fn syntax(&self, err: &ScanError) -> ParseError {
        // The scanner's words tell of characters and tokens, never of the text.
        ParseError::at(self.text, self.byte(err.marker().index()), err.info())
    }

    fn error(&self, span: Span, why: &'static str) -> ParseError {
        ParseError::at(self.text, self.byte(span.start.index()), why)
    }

    fn byte(&self, index: usize) -> usize {
        if self.offsets.is_empty() {
            return index.min(self.text.len());
        }
        self.offsets.get(index).copied().unwrap_or(self.text.len())
    }
}

/// Returns where a value begins behind its anchor and its tag.
fn value_start(text: &str, mut start: usize) -> usize {
    loop {
        let rest = text.get(start..).unwrap_or_default();
        if !rest.starts_with(['&', '!']) {
            return start;
        }
        let property = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let behind = rest.get(property..).unwrap_or_default();
        start += property + (behind.len() - behind.trim_start().len());
    }
}

/// Returns where the `|` or `>` stands above the text of a block.
fn block_start(text: &str, content: usize) -> usize {
    let above = text.get(..content).unwrap_or_default().trim_end();
    let line = above.rfind('\n').map_or(0, |at| at + 1);
    let header = above.get(line..).unwrap_or_default();
    let begins_block = |at: usize| {
        let rest = header.get(at + 1..).unwrap_or_default();
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
        rest.is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#'))
    };
    let mut marks = header.match_indices(['|', '>']).map(|(at, _)| at);
    marks.find(|&at| begins_block(at)).map_or(content, |at| line + at)
}

/// Returns where a quoted scalar ends, behind its quote. A quote in it is doubled, or behind a backslash.
fn quoted_end(text: &str, start: usize, quote: u8) -> usize {
    let mut bytes = text.as_bytes().iter().enumerate().skip(start + 1).peekable();
    while let Some((at, byte)) = bytes.next() {
        if *byte == b'\\' && quote == b'"' {
            bytes.next();
        } else if *byte == quote {
            let doubled = quote == b'\'' && bytes.peek().is_some_and(|(_, next)| **next == quote);
            if !doubled {
                return at + 1;
            }
            bytes.next();
        }
    }
    text.len()
}

/// Returns how a scalar is written.
fn scalar_style(event: &Event<'_>) -> Option<ScalarStyle> {
    if let Event::Scalar(_, style, _, _) = event { Some(*style) } else { None }
}

/// Returns a scalar that is neither quoted nor tagged.
fn plain_text<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    if let Event::Scalar(text, ScalarStyle::Plain, _, None) = event { Some(text) } else { None }
}

/// Returns the part of a tag behind YAML's own prefix.
fn core_suffix(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        return Some(&tag.suffix);
    }
    // Written in full: `!<tag:yaml.org,2002:str>`.
    tag.suffix.strip_prefix("tag:yaml.org,2002:").filter(|_| tag.handle.is_empty())
}

#[cfg(test)]
mod tests;
