//! Templates: a text with placeholders for secrets, in three spellings.
//!
//! Values never enter the template engine. It is run with names alone and leaves a random mark where a
//! value is to stand; the marks are replaced afterwards, once each, in locked memory. So whatever is in
//! a value is never taken for a template, and no value lies in the engine's own strings.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use super::document::place;
use super::push;
use crate::model::SecretName;
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

mod filter;

use filter::Filter;

/// Work that a template may take; loops over literals are all that can take much.
const FUEL: u64 = 1_000_000;

/// Largest text that may come out.
const MAX_BYTES: usize = 64 << 20;

/// What `${SECRET_` and `}` stand around.
const DOLLAR: (&str, &str) = ("${SECRET_", "}");

/// Knows which secret a placeholder means.
pub trait Lookup: Send + Sync {
    /// Returns the secrets whose variable this is, as far as the caller may know of them.
    fn named(&self, variable: &str) -> Vec<SecretName>;

    /// Tells whether a secret is there, or may be.
    fn exists(&self, name: &SecretName) -> bool;
}

/// What a template is written in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Language {
    /// `{{ ... }}` and `${SECRET_...}`.
    #[default]
    Jinja,
    /// `${SECRET_...}` alone, for files in which braces mean something else.
    Plain,
}

/// A literal text that stands for a secret.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    pub name: SecretName,
}

/// A template that has been run: text with marks, and what belongs in their places.
#[derive(Debug)]
pub struct Draft {
    text: String,
    nonce: String,
    uses: Vec<Use>,
}

/// One place for a value.
#[derive(Clone, Debug)]
struct Use {
    name: SecretName,
    filters: Vec<Filter>,
}

impl Draft {
    /// Runs a template. Errors name the line and the column of what is wrong in `source`.
    pub fn of(
        source: &str,
        language: Language,
        patterns: &[Pattern],
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, TemplateError> {
        let nonce = nonce()?;
        let notes = Arc::new(Mutex::new(Notes::default()));
        let ground = Ground { lookup, nonce: nonce.clone(), notes };
        let marked = ground.mark(source, patterns)?;
        let text = match language {
            Language::Plain => marked.text,
            Language::Jinja => ground.run(source, &marked)?,
        };
        let uses = std::mem::take(&mut ground.notes().uses);
        Ok(Self { text, nonce, uses })
    }

    /// Returns the secrets whose values are needed.
    pub fn names(&self) -> BTreeSet<SecretName> {
        self.uses.iter().map(|one| one.name.clone()).collect()
    }

    /// Puts the values into their places.
    pub fn fill<'a>(
        &self,
        value_of: &dyn Fn(&SecretName) -> Option<&'a SecretBytes>,
    ) -> Result<SecretBytes, TemplateError> {
        self.fill_within(MAX_BYTES, value_of)
    }

    /// The same with a limit to what may come out.
    pub fn fill_within<'a>(
        &self,
        max_bytes: usize,
        value_of: &dyn Fn(&SecretName) -> Option<&'a SecretBytes>,
    ) -> Result<SecretBytes, TemplateError> {
        // A mark that was cut leaves a part of the nonce behind.
        let head = self.nonce.get(..self.nonce.len() / 2).unwrap_or_default();
        if self.text.matches(head).count() != self.text.matches(&self.nonce).count() {
            return Err(TemplateError::TakenApart);
        }
        let mut out = SecretBuffer::new();
        let mut pieces = self.text.split(&self.nonce);
        push(&mut out, pieces.next().unwrap_or_default().as_bytes())?;
        for piece in pieces {
            // `nonce INDEX ;` is a mark.
            let (index, rest) = piece.split_once(';').ok_or(TemplateError::TakenApart)?;
            let one = index.parse::<usize>().ok().and_then(|index| self.uses.get(index));
            let one = one.ok_or(TemplateError::TakenApart)?;
            let value = value_of(&one.name).ok_or(TemplateError::TakenApart)?;
            one.push(value, &mut out)?;
            push(&mut out, rest.as_bytes())?;
            if out.len() > max_bytes {
                return Err(TemplateError::TooLarge);
            }
        }
        Ok(out.into_bytes())
    }
}

impl Use {
    fn push(&self, value: &SecretBytes, out: &mut SecretBuffer) -> Result<(), TemplateError> {
        let mut filtered: Option<SecretBytes> = None;
        for filter in &self.filters {
            let before = filtered.as_ref().unwrap_or(value);
            let after = filter.apply(before).map_err(|why| TemplateError::Filter {
                name: self.name.clone(),
                filter: filter.name(),
                why,
            })?;
            filtered = Some(after);
        }
        Ok(push(out, filtered.as_ref().unwrap_or(value).expose())?)
    }
}

/// Everything that a run shares with the engine.
#[derive(Clone)]
struct Ground {
    lookup: Arc<dyn Lookup>,
    nonce: String,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    uses: Vec<Use>,
    /// Variables that are no one secret's, in the order in which they were asked for: by a placeholder, or
    /// by the engine, which shows around an error what else there is.
    missed: Vec<(String, Obstacle)>,
    /// Why the engine was made to end.
    refused: Option<Obstacle>,
}

/// Why something cannot be filled in.
#[derive(Clone)]
struct Obstacle {
    /// The variable, where it is that there is no secret for it.
    unknown: Option<String>,
    why: String,
}

impl Obstacle {
    fn new(why: String) -> Self {
        Self { unknown: None, why }
    }

    fn at(self, source: &str, at: usize) -> TemplateError {
        let (line, column) = place(source, at);
        match self.unknown {
            Some(variable) => TemplateError::Unknown { line, column, variable },
            None => TemplateError::Source { line, column, why: self.why },
        }
    }
}

/// A source in which the placeholders that are not the engine's have become marks.
struct Marked {
    text: String,
    /// Of each mark, its place in the text and the place in the source that it stands for.
    replaced: Vec<(Range<usize>, Range<usize>)>,
}

impl Marked {
    /// Returns the place in the source of a place in the text.
    fn origin(&self, at: usize) -> usize {
        let before = self.replaced.iter().take_while(|(mark, _)| mark.start <= at).last();
        match before {
            None => at,
            Some((mark, source)) if at < mark.end => source.start,
            Some((mark, source)) => source.end + (at - mark.end),
        }
    }
}

impl Ground {
    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a use and returns its mark.
    fn mark_for(&self, one: Use) -> String {
        let mut notes = self.notes();
        notes.uses.push(one);
        format!("{}{};", self.nonce, notes.uses.len() - 1)
    }

    fn mark(&self, source: &str, patterns: &[Pattern]) -> Result<Marked, TemplateError> {
        if patterns.iter().any(|pattern| pattern.text.is_empty()) {
            // It would stand everywhere.
            return Err(TemplateError::NoSuchText(String::new()));
        }
        let mut marked = Marked { text: String::new(), replaced: Vec::new() };
        let mut at = 0;
        let mut seen = vec![false; patterns.len()];
        while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
            let found = patterns.iter().position(|pattern| rest.starts_with(&pattern.text));
            let (len, name) = match found.and_then(|index| Some((index, patterns.get(index)?))) {
                Some((index, pattern)) => {
                    seen.iter_mut().skip(index).take(1).for_each(|seen| *seen = true);
                    (pattern.text.len(), pattern.name.clone())
                }
                None => match self.dollar(source, at)? {
                    Some(found) => found,
                    None => {
                        let len = rest.chars().next().map_or(1, char::len_utf8);
                        marked.text.push_str(rest.get(..len).unwrap_or_default());
                        at += len;
                        continue;
                    }
                },
            };
            let start = marked.text.len();
            let mark = self.mark_for(Use { name, filters: Vec::new() });
            marked.text.push_str(&mark);
            marked.replaced.push((start..marked.text.len(), at..at + len));
            at += len;
        }
        match seen.iter().position(|seen| !seen).and_then(|index| patterns.get(index)) {
            Some(unseen) => Err(TemplateError::NoSuchText(unseen.text.clone())),
            None => Ok(marked),
        }
    }

    /// Returns the length and the secret of the `${SECRET_X}` that stands there.
    fn dollar(
        &self,
        source: &str,
        at: usize,
    ) -> Result<Option<(usize, SecretName)>, TemplateError> {
        let inside = source.get(at..).and_then(|rest| rest.strip_prefix(DOLLAR.0));
        let Some(inside) = inside else { return Ok(None) };
        let fail = |why: String| TemplateError::at(source, at, why);
        let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let end = end.filter(|&end| {
            end > 0 && inside.get(end..).is_some_and(|rest| rest.starts_with(DOLLAR.1))
        });
        let end =
            end.ok_or_else(|| fail("`${SECRET_` is not followed by a name and `}`".into()))?;
        let variable = inside.get(..end).unwrap_or_default();
        match self.find(variable) {
            Ok(name) => Ok(Some((DOLLAR.0.len() + end + DOLLAR.1.len(), name))),
            Err(obstacle) => Err(obstacle.at(source, at)),
        }
    }

    fn find(&self, variable: &str) -> Result<SecretName, Obstacle> {
        let mut found = self.lookup.named(variable).into_iter();
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(name),
            (Some(a), Some(b)) => Err(Obstacle::new(format!("{variable} could be {a} or {b}"))),
            (None, _) => Err(Obstacle { unknown: Some(variable.to_owned()), why: String::new() }),
        }
    }

    fn run(&self, source: &str, marked: &Marked) -> Result<String, TemplateError> {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|err| TemplateError::at(source, 0, words(&err)))?);
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        let ground = self.clone();
        environment.add_function("secret", move |name: String| ground.secret(&name));
        for filter in Filter::ALL {
            let ground = self.clone();
            environment
                .add_filter(filter.name(), move |value: &Value| ground.filter(filter, value));
        }
        let context = Value::from_object(Names(self.clone()));
        let template = environment.template_from_str(&marked.text);
        template.and_then(|template| template.render(context)).map_err(|err| {
            let start = err.range().map_or(0, |range| range.start);
            let obstacle = self.obstacle(&err, marked.text.get(start..).unwrap_or_default());
            obstacle.at(source, marked.origin(start))
        })
    }

    /// Returns why the engine has ended at a place of its text.
    fn obstacle(&self, err: &Error, text: &str) -> Obstacle {
        let mut notes = self.notes();
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let word = text.get(..end.unwrap_or(text.len()));
        let there = notes.missed.iter().find(|(variable, _)| Some(variable.as_str()) == word);
        let last = notes.missed.last().filter(|_| err.kind() == ErrorKind::UndefinedError);
        let missed = there.or(last).map(|(_, obstacle)| obstacle.clone());
        let found = notes.refused.take().or(missed);
        found.unwrap_or_else(|| Obstacle::new(words(err)))
    }

    fn place(&self, one: Use) -> Value {
        let mark = self.mark_for(one.clone());
        Value::from_object(Place { one, mark })
    }

    fn secret(&self, text: &str) -> Result<Value, Error> {
        let name = text.parse::<SecretName>();
        let name = name.map_err(|why| format!("{text:?} is no name of a secret: {why}"));
        let known = name.and_then(|name| match self.lookup.exists(&name) {
            true => Ok(name),
            false => Err(format!("there is no secret {name}")),
        });
        match known {
            Ok(name) => Ok(self.place(Use { name, filters: Vec::new() })),
            Err(why) => Err(self.refuse(Obstacle::new(why))),
        }
    }

    fn filter(&self, filter: Filter, value: &Value) -> Result<Value, Error> {
        let Some(place) = value.downcast_object_ref::<Place>() else {
            let missed = value.is_undefined().then(|| self.notes().missed.last().cloned());
            let missed = missed.flatten().map(|(_, obstacle)| obstacle);
            let why = || Obstacle::new(format!("{} is a filter of secrets alone", filter.name()));
            return Err(self.refuse(missed.unwrap_or_else(why)));
        };
        let mut one = place.one.clone();
        one.filters.push(filter);
        Ok(self.place(one))
    }

    fn refuse(&self, obstacle: Obstacle) -> Error {
        self.notes().refused.get_or_insert(obstacle);
        Error::new(ErrorKind::InvalidOperation, "refused")
    }
}

/// What the engine finds names in.
struct Names(Ground);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        // The engine asks here first for its functions too.
        let variable = key.as_str().filter(|variable| *variable != "secret")?;
        match self.0.find(variable) {
            Ok(name) => Some(self.0.place(Use { name, filters: Vec::new() })),
            Err(obstacle) => {
                self.0.notes().missed.push((variable.to_owned(), obstacle));
                None
            }
        }
    }
}

/// A value that is not there: it shows as its mark.
#[derive(Debug)]
struct Place {
    one: Use,
    mark: String,
}

impl Object for Place {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mark)
    }
}

/// Returns what the engine says, without its own idea of the place.
fn words(err: &Error) -> String {
    match err.detail() {
        Some(detail) => format!("{}: {detail}", err.kind()),
        None => err.kind().to_string(),
    }
}

/// Returns a text that no source has: letters alone, so that no language takes it for its own.
fn nonce() -> Result<String, TemplateError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|_| TemplateError::NoRandom)?;
    let mut text = String::from("SECRETFS");
    random
        .iter()
        .try_for_each(|byte| write!(text, "{byte:02x}"))
        .map_err(|_| TemplateError::NoRandom)?;
    text.push('N');
    Ok(text)
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the filter {filter} cannot take {name}: {why}")]
    Filter { name: SecretName, filter: &'static str, why: &'static str },
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the operating system gave no random bytes")]
    NoRandom,
    #[error("{0:?} does not occur")]
    NoSuchText(String),
    #[error("line {line}, column {column}: {why}")]
    Source { line: usize, column: usize, why: String },
    #[error("the template takes a value apart")]
    TakenApart,
    #[error("line {line}, column {column}: there is no secret for {variable}")]
    Unknown { line: usize, column: usize, variable: String },
    #[error("the text would be larger than it may be")]
    TooLarge,
}

impl TemplateError {
    fn at(source: &str, byte: usize, why: String) -> Self {
        let (line, column) = place(source, byte);
        Self::Source { line, column, why }
    }
}

#[cfg(test)]
mod tests;
