//! Rules: what is looked for, as `fixtures/scan/rules.toml` and the files of users say it.
//!
//! A file may hold `[[rule]]`, of which one with a known id replaces the earlier one, `[[allow]]` for what
//! is known and accepted, and `disable`, a list of ids. A file that is wrong is refused as a whole.

use std::sync::OnceLock;

use regex_automata::meta::{self, Regex};
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};
use serde::Deserialize;

use super::check::{self, Verdict};
use super::finding::Fingerprint;
use super::glob::Glob;
use super::severity::Severity;
use super::shape::{self, Route, Shape};
use crate::model::SecretType;

/// What comes with the program.
const BUILT_IN: &str = include_str!("../../fixtures/scan/rules.toml");

/// All rules and exceptions of one scan.
#[derive(Debug)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) allows: Vec<Allow>,
}

impl RuleSet {
    /// Returns the rules that come with the program.
    pub fn built_in() -> Result<Self, RuleError> {
        let mut rules = Self { rules: super::assignment::rules(), allows: Vec::new() };
        rules.add("the built-in rules", BUILT_IN)?;
        Ok(rules)
    }

    /// Adds the rules of a file; `name` is how errors call it.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), RuleError> {
        let file: RuleFile = toml::from_str(text).map_err(|source| RuleError::Format {
            file: name.to_owned(),
            source: Box::new(source),
        })?;
        for text in file.rule {
            let rule =
                Rule::new(text).map_err(|why| RuleError::Rule { file: name.to_owned(), why })?;
            match self.rules.iter_mut().find(|known| known.id == rule.id) {
                Some(known) => *known = rule,
                None => self.rules.push(rule),
            }
        }
        for id in &file.disable {
            let known = self.rules.len();
            self.rules.retain(|rule| *rule.id != **id);
            if self.rules.len() == known {
                let why = format!("disable: there is no rule {id:?}");
                return Err(RuleError::Rule { file: name.to_owned(), why });
            }
        }
        self.allows.extend(file.allow);
        Ok(())
    }

    /// Keeps the rules for these types alone.
    pub fn keep_types(&mut self, types: &[SecretType]) {
        self.rules.retain(|rule| types.contains(&rule.kind));
    }

    /// Returns the rules, in the order in which they were added.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// One kind of secret.
#[derive(Debug)]
pub struct Rule {
    pub id: Box<str>,
    pub description: Box<str>,
    pub kind: SecretType,
    pub severity: Severity,
    /// In lower case.
    pub(super) keywords: Vec<Box<[u8]>>,
    pub(super) boundary: bool,
    /// The least entropy of the secret in bits a byte.
    pub(super) entropy: Option<f64>,
    pub(super) check: Option<fn(&[u8]) -> Verdict>,
    pub(super) context: Context,
    pub(super) finder: Finder,
    pub(super) positive: Vec<Box<str>>,
    pub(super) negative: Vec<Box<str>>,
}

/// What tells that a match is a secret.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Context {
    /// Its shape alone.
    #[default]
    Format,
    /// A keyword shortly before it on its line.
    Keyword,
    /// The name that it is assigned to: for the rules of [`assignment`](super::assignment) alone.
    #[serde(skip)]
    Assignment,
}

/// How the matches of a rule are found.
#[derive(Debug)]
pub(super) enum Finder {
    Regex(Box<LazyRegex>),
    /// By a parser of its own, see [`assignment`](super::assignment).
    Parser,
}

/// A regular expression that is compiled when a keyword has been seen for the first time.
#[derive(Debug)]
pub(super) struct LazyRegex {
    text: Box<str>,
    pub shape: Shape,
    /// For each keyword that is looked for everywhere how matches spell it, if they do in certain ways.
    pub spellings: Vec<Option<Vec<Vec<u8>>>>,
    /// The index of the group `secret`.
    pub group: Option<usize>,
    compiled: OnceLock<Option<Regex>>,
}

impl LazyRegex {
    /// Returns nothing for one that is too large; [`Rule::new`] has refused others.
    pub(super) fn compiled(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| self.compile().ok()).as_ref()
    }

    fn compile(&self) -> Result<Regex, String> {
        let hir = without_high_counts(parse_regex(&self.text).map_err(|err| err.to_string())?);
        let config = meta::Config::new().utf8_empty(false);
        let (hir, config) = if self.shape.anchored {
            // Where a match begins is known: no automaton is needed that finds it from the end.
            (Hir::concat(vec![Hir::look(Look::Start), hir]), config.hybrid(false))
        } else {
            (hir, config)
        };
        // Each window is short: a large cache of states would cost memory for each rule and thread.
        let config = config.hybrid_cache_capacity(64 << 10).nfa_size_limit(Some(4 << 20));
        meta::Builder::new().configure(config).build_from_hir(&hir).map_err(|err| err.to_string())
    }
}

/// A count from which on a repetition is compiled as one without end.
const HIGH_COUNT: u32 = 1000;

/// Leaves out the limits of long repetitions: an automaton has a state for each time, megabytes for a rule and as
/// much for each thread. The window ends them instead: it is as long as the longest match.
fn without_high_counts(hir: Hir) -> Hir {
    let each = |parts: Vec<Hir>| parts.into_iter().map(without_high_counts).collect();
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Capture(mut capture) => {
            capture.sub = Box::new(without_high_counts(*capture.sub));
            Hir::capture(capture)
        }
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            max: repetition.max.filter(|&max| max < HIGH_COUNT),
            sub: Box::new(without_high_counts(*repetition.sub)),
            ..repetition
        }),
        HirKind::Concat(parts) => Hir::concat(each(parts)),
        HirKind::Alternation(parts) => Hir::alternation(each(parts)),
    }
}

/// A rule as a file says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    id: Box<str>,
    description: Box<str>,
    #[serde(rename = "type")]
    kind: SecretType,
    severity: Severity,
    keywords: Vec<Box<str>>,
    regex: Box<str>,
    #[serde(default = "yes")]
    boundary: bool,
    entropy: Option<f64>,
    check: Option<Box<str>>,
    #[serde(default)]
    context: Context,
    #[serde(default)]
    positive: Vec<Box<str>>,
    #[serde(default)]
    negative: Vec<Box<str>>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rule: Vec<RuleText>,
    #[serde(default)]
    allow: Vec<Allow>,
    #[serde(default)]
    disable: Vec<Box<str>>,
}

/// Findings that are known and accepted; all that is said must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub rule: Option<Box<str>>,
    pub path: Option<Glob>,
    pub fingerprint: Option<Fingerprint>,
    /// Why, for whoever reads the report.
    pub reason: Box<str>,
}

impl Rule {
    fn new(text: RuleText) -> Result<Self, String> {
        let fault = |why: &dyn std::fmt::Display| format!("rule {:?}: {why}", text.id);
        let keywords: Vec<Box<[u8]>> = text
            .keywords
            .iter()
            .map(|keyword| keyword.to_ascii_lowercase().into_bytes().into_boxed_slice())
            .collect();
        if keywords.is_empty() || keywords.iter().any(|keyword| keyword.len() < 2) {
            return Err(fault(&"it needs keywords of two bytes or more"));
        }
        let hir = parse_regex(&text.regex).map_err(|err| fault(&err))?;
        if hir.properties().minimum_len().is_none_or(|len| len == 0) {
            return Err(fault(&"its regular expression matches nothing, or nothing at all"));
        }
        let check = match &text.check {
            Some(name) => Some(
                check::check(name).ok_or_else(|| fault(&format!("there is no check {name:?}")))?,
            ),
            None => None,
        };
        let shape = Shape::of(&hir, &keywords);
        // Where a keyword stands before the match it may be spelled in any way.
        let within = shape.route == Route::Loose && text.context == Context::Format;
        let spellings = |keyword: &[u8]| {
            within.then(|| shape::spellings(&hir, keyword, shape.anchored)).flatten()
        };
        let regex = LazyRegex {
            shape,
            spellings: keywords.iter().map(|keyword| spellings(keyword)).collect(),
            group: secret_group(&hir),
            text: text.regex.clone(),
            compiled: OnceLock::new(),
        };
        Ok(Self {
            keywords,
            boundary: text.boundary,
            entropy: text.entropy,
            check,
            context: text.context,
            finder: Finder::Regex(Box::new(regex)),
            positive: text.positive,
            negative: text.negative,
            id: text.id,
            description: text.description,
            kind: text.kind,
            severity: text.severity,
        })
    }

    /// Compiles the regular expression now and says what is wrong with it.
    pub(super) fn verify(&self) -> Result<(), String> {
        match &self.finder {
            Finder::Regex(regex) => regex.compile().map(drop),
            Finder::Parser => Ok(()),
        }
    }
}

/// Parses as the engine compiles: over bytes, without Unicode.
pub(super) fn parse_regex(text: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text)
        .map_err(Box::new)
}

/// Returns the index of the capture group `secret`.
fn secret_group(hir: &Hir) -> Option<usize> {
    use regex_syntax::hir::HirKind;
    match hir.kind() {
        HirKind::Capture(capture) if capture.name.as_deref() == Some("secret") => {
            usize::try_from(capture.index).ok()
        }
        HirKind::Capture(capture) => secret_group(&capture.sub),
        HirKind::Repetition(repetition) => secret_group(&repetition.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().find_map(secret_group),
        HirKind::Class(_) | HirKind::Empty | HirKind::Literal(_) | HirKind::Look(_) => None,
    }
}

/// Why rules are refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("{file} is no file of rules")]
    Format { file: String, source: Box<toml::de::Error> },
    #[error("{file}: {why}")]
    Rule { file: String, why: String },
    #[error("the rules' keywords are too many to be searched for")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_takes_much_memory_whatever_its_counts() {
        for rule in RuleSet::built_in().unwrap().rules() {
            let Finder::Regex(regex) = &rule.finder else { continue };
            let compiled = regex.compiled().unwrap();
            let bytes = compiled.memory_usage() + compiled.create_cache().memory_usage();
            assert!(bytes < 512 << 10, "{} takes {bytes} bytes", rule.id);
        }
    }

    #[test]
    fn a_high_count_is_left_out_and_a_low_one_is_kept() {
        let without = |text| without_high_counts(parse_regex(text).unwrap());
        assert_eq!(without("x(?:[a-z]{2,8000}?y){3}"), parse_regex("x(?:[a-z]{2,}?y){3}").unwrap());
        assert_eq!(without("[a-z]{2,999}"), parse_regex("[a-z]{2,999}").unwrap());
    }
}
