//! Finds candidates in a text.
//!
//! All rules are in force at once, and no text is read once a rule. Two passes over the whole text decide
//! where anything can be: one for runs of token bytes ([`Runs`]), which skips, and one for a few fragments of
//! words, with vector instructions. Only there keywords are looked for, and only behind a keyword a regular
//! expression runs, over a window. What then matches is judged; that may be slow.

use std::ops::Range;

use regex_automata::Input;

use super::assignment;
use super::block::{kinds, places};
use super::candidate::{Candidate, Encoding, Outcome, Reason, Trace};
use super::check::Verdict;
use super::class::{is_base64, is_token};
use super::confidence::{Evidence, Strength};
use super::decode;
use super::entropy::entropy;
use super::file_kind::FileKind;
use super::fragment::Fragment;
use super::redact::Redacted;
use super::resolve::{Ranked, resolve};
use super::rule::{Allow, Context, Finder, LazyRegex, Rule, RuleError, RuleSet};
use super::runs::{Appearance, Look, MIN_RUN, Runs};
use super::shape::{MAX_SCHEME, Route, Shape};
use super::value::{has_reference, is_placeholder};
use super::words::{Everywhere, Keywords, begins_word, ends_word};

/// How far before a secret its keyword may stand.
const NEAR: usize = 64;
/// How far before a run keywords are looked for: a keyword, and what a regular expression has between.
const BEFORE_RUN: usize = 96;
/// How far from the `://` of a URL keywords are looked for: a scheme and what is near it; user, password and host.
const BEFORE_URL: usize = MAX_SCHEME + NEAR;
const BEHIND_URL: usize = 512;
/// The window of a regular expression that could match without end.
const WINDOW: usize = 2 << 10;
const LONG_WINDOW: usize = 32 << 10;
/// Texts within texts within texts.
const MAX_DEPTH: usize = 3;
/// A text that matches at every place is not worth more.
const MAX_CANDIDATES: usize = 10_000;

/// All rules, ready to search.
#[derive(Debug)]
pub struct Engine {
    pub(super) rules: Vec<Rule>,
    pub(super) allows: Vec<Allow>,
    /// Keywords that begin a run's word.
    prefixes: Keywords,
    /// Keywords of rules that look near runs.
    nearby: Keywords,
    /// Keywords of rules for URLs.
    urls: Keywords,
    everywhere: Everywhere<Use>,
    /// The indices of the rules of [`assignment`], in the order of its ids.
    assignments: [Option<usize>; assignment::Id::ALL.len()],
}

/// What a fragment is looked for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Assignment,
    /// A text with escapes in it.
    Escape,
    /// A keyword of a rule, which begins so many bytes before.
    Keyword {
        rule: usize,
        keyword: usize,
        offset: usize,
    },
}

impl Engine {
    pub fn new(set: RuleSet) -> Result<Self, RuleError> {
        let RuleSet { rules, allows } = set;
        let (mut prefixes, mut nearby, mut urls) = (Vec::new(), Vec::new(), Vec::new());
        let mut everywhere = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let Finder::Regex(regex) = &rule.finder else { continue };
            let short = u16::try_from(index).map_err(|_| RuleError::TooMany)?;
            let as_prefix = rule.boundary
                && rule.context == Context::Format
                && rule.keywords.iter().all(|word| word.len() >= Keywords::GLANCE);
            for (keyword, word) in rule.keywords.iter().enumerate() {
                match regex.shape.route {
                    Route::Run if as_prefix => prefixes.push((word.clone(), short)),
                    Route::Run | Route::Near => nearby.push((word.clone(), short)),
                    Route::Url => urls.push((word.clone(), short)),
                    Route::Loose => {
                        let spelled = regex.spellings.get(keyword).and_then(Option::as_deref);
                        let Fragment { spellings, offset } = Fragment::of(word, spelled);
                        let what = Use::Keyword { rule: index, keyword, offset };
                        everywhere.extend(spellings.into_iter().map(|spelling| (spelling, what)));
                    }
                }
            }
        }
        let place = |id: &assignment::Id| {
            rules
                .iter()
                .position(|rule| *rule.id == *id.as_str() && matches!(rule.finder, Finder::Parser))
        };
        let assignments = assignment::Id::ALL.each_ref().map(place);
        let names = assignment::WORDS.iter().flat_map(|word| Fragment::of(word, None).spellings);
        everywhere.extend(names.map(|spelling| (spelling, Use::Assignment)));
        everywhere.extend([&b"\\u00"[..], b"\\/"].map(|escape| (escape.to_vec(), Use::Escape)));
        Ok(Self {
            prefixes: Keywords::new(prefixes),
            nearby: Keywords::new(nearby),
            urls: Keywords::new(urls),
            everywhere: Everywhere::new(everywhere)?,
            rules,
            allows,
            assignments,
        })
    }

    /// Returns the candidates of a text in order, those that were filtered too.
    pub(super) fn scan(&self, text: &[u8], kind: FileKind) -> Vec<Candidate> {
        resolve(self.matches(text, kind))
    }

    /// Returns what each rule makes of a text, whatever others make of it.
    pub(super) fn matches(&self, text: &[u8], kind: FileKind) -> Vec<Ranked> {
        let mut layer = Layer { engine: self, text, kind, depth: 0, found: Vec::new() };
        layer.scan();
        layer.found
    }

    fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index)
    }

    fn ranked(&self, candidate: Candidate) -> Option<Ranked> {
        let rule = self.rule(candidate.rule)?;
        Some(Ranked { candidate, context: rule.context, severity: rule.severity })
    }
}

/// One text: a file's, or one that was hidden in another.
struct Layer<'a> {
    engine: &'a Engine,
    text: &'a [u8],
    kind: FileKind,
    depth: usize,
    found: Vec<Ranked>,
}

impl Layer<'_> {
    fn scan(&mut self) {
        self.scan_runs();
        self.scan_words();
    }

    /// Looks into the runs of token bytes.
    fn scan_runs(&mut self) {
        let engine = self.engine;
        // Up to there keywords have been looked for, and texts been decoded.
        let (mut searched, mut decoded) = (0, 0);
        for run in Runs::new(self.text) {
            let look = self.try_prefixes(&run);
            if look == Look::Random {
                let from = run.start.saturating_sub(BEFORE_RUN).max(searched);
                engine.nearby.each(self.text, from..run.end, |hit, rule| self.try_rule(rule, hit));
                searched = run.end;
            }
            if look != Look::Name && run.start >= decoded && self.depth < MAX_DEPTH {
                decoded = self.decode(&run);
            }
            if self.found.len() > MAX_CANDIDATES {
                return;
            }
        }
    }

    /// Tries the formats that begin with a prefix, at each place in a run where a word can begin. Returns what the run
    /// looks like.
    fn try_prefixes(&mut self, run: &Range<usize>) -> Look {
        let (engine, text) = (self.engine, self.text);
        let after_backslash = run.start > 0 && text.get(run.start - 1) == Some(&b'\\');
        // Behind it there are fewer bytes than each of them has.
        let last = run.end.saturating_sub(MIN_RUN);
        let mut appearance = Appearance::new(run.len());
        // What stands before a run is no token byte, and so no part of a word.
        let (mut word, mut percents) = (0, 0);
        // An escape that begins with a backslash ends within so many bytes.
        let mut escapes = if after_backslash { 0b11_1111 } else { 0 };
        for (at, kinds) in kinds(text, run) {
            appearance.take(&kinds);
            let inside = kinds.words & (kinds.words << 1 | word);
            escapes |= kinds.percents << 3 | percents;
            for offset in places(kinds.words & (!inside | escapes)) {
                let place = at + offset;
                if place > last {
                    break;
                }
                // Within a word, one begins where an escape ends.
                if inside >> offset & 1 == 0 || self.escape_ends(place, run.start) {
                    let rest = text.get(place..).unwrap_or_default();
                    engine.prefixes.at(rest, |len, rule| self.try_rule(rule, place..place + len));
                }
            }
            (word, percents, escapes) = (kinds.words >> 63, kinds.percents >> 61, 0);
        }
        appearance.look()
    }

    /// Tells whether an escape ends right before `at`, within a run that begins at `start`.
    fn escape_ends(&self, at: usize, start: usize) -> bool {
        let after_percent = at >= 3 && self.text.get(at - 3) == Some(&b'%');
        // The backslash is no token byte: it stands right before the run.
        let after_backslash =
            at - start <= 5 && start > 0 && self.text.get(start - 1) == Some(&b'\\');
        (after_percent || after_backslash) && begins_word(self.text, at)
    }

    /// Looks for fragments in the whole text.
    fn scan_words(&mut self) {
        let (engine, text, kind) = (self.engine, self.text, self.kind);
        let (mut last_value, mut unescaped) = (usize::MAX, 0);
        let mut searched = 0;
        for place in assignment::url_places(text) {
            let from = place.start.saturating_sub(BEFORE_URL).max(searched);
            let to = (place.end + BEHIND_URL).min(text.len());
            engine.urls.each(text, from..to, |hit, rule| self.try_rule(rule, hit));
            searched = to;
            let Some(found) = assignment::read_url(text, place) else { continue };
            if found.value.start != last_value {
                last_value = found.value.start;
                self.take_assignment(&found);
            }
        }
        engine.everywhere.each(text, |hit, what| match what {
            Use::Assignment => {
                let Some(found) = assignment::read_name(text, hit, kind) else { return };
                // Two fragments of one name.
                if found.value.start != last_value {
                    last_value = found.value.start;
                    self.take_assignment(&found);
                }
            }
            Use::Escape => {
                if self.depth < MAX_DEPTH && hit.start >= unescaped {
                    unescaped = self.unescape(hit.start);
                }
            }
            Use::Keyword { rule, keyword, offset } => {
                let word = engine.rule(rule).and_then(|rule| rule.keywords.get(keyword));
                let Some((word, start)) = word.zip(hit.start.checked_sub(offset)) else { return };
                let place = start..start + word.len();
                if text.get(place.clone()).is_some_and(|found| found.eq_ignore_ascii_case(word)) {
                    self.try_rule(rule, place);
                }
            }
        });
    }

    fn take_assignment(&mut self, found: &assignment::Found) {
        let place = assignment::Id::ALL.iter().position(|id| *id == found.id);
        let rule = place.and_then(|place| self.engine.assignments.get(place).copied().flatten());
        let Some((rule, secret)) = rule.zip(self.text.get(found.value.clone())) else { return };
        let outcome = match found.opinion {
            Ok(opinion) => {
                let evidence = Evidence {
                    strength: opinion.strength,
                    checked: opinion.checked,
                    entropy: entropy(secret),
                    floor: opinion.floor,
                };
                Outcome::Found(evidence.confidence(self.kind))
            }
            Err(reason) => Outcome::Filtered(reason),
        };
        let public = 0;
        self.push(rule, found.value.clone(), outcome, public);
    }

    fn push(&mut self, rule: usize, span: Range<usize>, outcome: Outcome, public: usize) {
        let Some(secret) = self.text.get(span.clone()) else { return };
        let candidate = Candidate {
            rule,
            redacted: Redacted::secret(secret, public),
            trace: Trace::of(secret),
            span,
            encodings: Vec::new(),
            outcome,
            stored: None,
        };
        self.found.extend(self.engine.ranked(candidate));
    }

    /// Tries a rule whose keyword stands at `hit`.
    fn try_rule(&mut self, index: usize, hit: Range<usize>) {
        let Some(rule) = self.engine.rule(index) else { return };
        let Finder::Regex(regex) = &rule.finder else { return };
        if regex.shape.anchored && rule.boundary && !begins_word(self.text, hit.start) {
            return;
        }
        let window = self.window(rule, regex, &hit);
        let Some(bytes) = self.text.get(window.clone()) else { return };
        // Most keywords stand where no match can be, and that is seen without the regular expression.
        if !has_run(bytes, regex.shape, window.start == hit.start) {
            return;
        }
        let Some(compiled) = regex.compiled() else { return };
        let mut at = 0;
        // A handful is more than one keyword can vouch for.
        for _ in 0..8 {
            let Some(found) = next_match(compiled, regex, bytes, at) else { return };
            at = found.start + 1;
            let secret = window.start + found.start..window.start + found.end;
            if self.fits(rule, &hit, &secret) {
                self.take_match(index, rule, &hit, secret);
                // In the same window another one may follow.
                at = found.end.max(at);
            }
            if regex.shape.anchored {
                return;
            }
        }
    }

    /// Where the regular expression is to look.
    fn window(&self, rule: &Rule, regex: &LazyRegex, hit: &Range<usize>) -> Range<usize> {
        let endless = match (regex.shape.route, regex.shape.anchored) {
            (Route::Near, false) => WINDOW,
            _ => LONG_WINDOW,
        };
        let reach = regex.shape.max_len.unwrap_or(endless).min(LONG_WINDOW);
        let end = |from: usize| (from + reach).min(self.text.len());
        match rule.context {
            Context::Keyword => {
                let far = end(hit.end + NEAR);
                let line = self.text.get(hit.end..far).unwrap_or_default();
                let len = memchr::memchr_iter(b'\n', line)
                    .find(|&end| !joins(line.get(..end + 24).unwrap_or(line)))
                    .unwrap_or(line.len());
                // Multi-line secrets begin on the keyword's line all the same; see `fits`.
                hit.end..if regex.shape.max_len.is_some() { hit.end + len } else { far }
            }
            Context::Assignment | Context::Format if regex.shape.anchored => {
                hit.start..end(hit.start)
            }
            // The keyword may stand in the match, or shortly before or behind it.
            Context::Assignment | Context::Format => {
                hit.start.saturating_sub(reach.min(512) + NEAR)..end(hit.end + NEAR)
            }
        }
    }

    fn fits(&self, rule: &Rule, hit: &Range<usize>, secret: &Range<usize>) -> bool {
        if rule.boundary
            && !(begins_word(self.text, secret.start) && ends_word(self.text, secret.end))
        {
            return false;
        }
        match rule.context {
            Context::Keyword => {
                let between = self.text.get(hit.end..secret.start).unwrap_or_default();
                between.len() <= NEAR && joins(between) && begins_part(self.text, hit)
            }
            Context::Assignment | Context::Format => true,
        }
    }

    fn take_match(&mut self, index: usize, rule: &Rule, hit: &Range<usize>, span: Range<usize>) {
        let Some(secret) = self.text.get(span.clone()) else { return };
        let public = if span.start == hit.start { hit.len() } else { 0 };
        let outcome = match judge(rule, secret, public) {
            Ok(checked) => {
                let strength = match rule.context {
                    Context::Keyword => {
                        Strength::Keyword { distance: span.start.saturating_sub(hit.end) }
                    }
                    Context::Assignment | Context::Format => Strength::Format,
                };
                let floor = rule.entropy.unwrap_or(3.0);
                let evidence = Evidence { strength, checked, entropy: entropy(secret), floor };
                Outcome::Found(evidence.confidence(self.kind))
            }
            Err(reason) => Outcome::Filtered(reason),
        };
        self.push(index, span, outcome, public);
    }

    /// Scans what a run hides. Returns how far the text is decoded.
    fn decode(&mut self, run: &Range<usize>) -> usize {
        let Some(bytes) = self.text.get(run.clone()) else { return run.end };
        // The parts of a JSON web token are base64 of JSON by their nature.
        if bytes.starts_with(b"eyJ") && bytes.iter().filter(|&&byte| byte == b'.').count() >= 2 {
            return run.end;
        }
        let digits = bytes.iter().rev().take_while(|&&byte| is_base64(byte)).count();
        if let Some((end, text)) = decode::lines(self.text, run.end - digits..run.end) {
            self.scan_hidden(&text, Encoding::Base64, &(run.end - digits..end));
            return end;
        }
        for (encoding, text) in decode::hidden(bytes) {
            self.scan_hidden(&text, encoding, run);
        }
        run.end
    }

    /// Scans the text around an escape without its escapes. Returns where it ends.
    fn unescape(&mut self, at: usize) -> usize {
        let start = self.line_start(at, 1024);
        let line = self.text.get(start..at).unwrap_or_default();
        let from =
            memchr::memrchr3(b'"', b'\'', b'`', line).map_or(start, |quote| start + quote + 1);
        let after = self.text.get(at..).unwrap_or_default();
        let after = after.get(..LONG_WINDOW).unwrap_or(after);
        let len = memchr::memchr2(b'"', b'\n', after).unwrap_or(after.len());
        // With the name before it, in case that what is escaped is its value.
        let named = self.line_start(from, 64);
        let hidden = self.text.get(named..at + len).and_then(decode::unescape);
        if let Some(text) = hidden {
            self.scan_hidden(&text, Encoding::Escaped, &(from..at + len));
        }
        at + len
    }

    fn scan_hidden(&mut self, text: &[u8], encoding: Encoding, span: &Range<usize>) {
        let mut layer = Layer {
            engine: self.engine,
            text,
            kind: self.kind,
            depth: self.depth + 1,
            found: Vec::new(),
        };
        layer.scan();
        for mut candidate in resolve(layer.found) {
            candidate.span = span.clone();
            candidate.encodings.insert(0, encoding);
            self.found.extend(self.engine.ranked(candidate));
        }
    }

    /// Returns where the line of `at` begins, or so many bytes before it.
    fn line_start(&self, at: usize, most: usize) -> usize {
        let from = at.saturating_sub(most);
        let before = self.text.get(from..at).unwrap_or_default();
        memchr::memrchr(b'\n', before).map_or(from, |line| from + line + 1)
    }
}

/// Tells whether a window has as many token bytes in a row as each match. If it begins with the keyword, so does a
/// match of a rule whose matches do.
fn has_run(window: &[u8], shape: Shape, begins: bool) -> bool {
    match shape.route {
        Route::Run if begins => {
            window.get(..shape.run).is_some_and(|start| start.iter().all(|&byte| is_token(byte)))
        }
        Route::Near | Route::Run => Runs::new(window).any(|run| run.len() >= shape.run),
        Route::Loose | Route::Url => true,
    }
}

/// Tells whether what stands between a keyword and a secret lets the one speak of the other: they are on one
/// line, or on the two of `name: X` and `value: Y`, and not in one random text.
fn joins(between: &[u8]) -> bool {
    let separates = between.iter().any(|&byte| !is_base64(byte) && byte != b'.');
    let Some(line) = memchr::memchr(b'\n', between) else { return separates };
    let next = between.get(line + 1..).unwrap_or_default().trim_ascii_start();
    next.strip_prefix(b"\"").unwrap_or(next).starts_with(b"value")
}

/// Tells whether a keyword begins a part of a name: `MY_VENDOR_KEY`, `myVendorKey`, not `xvendorx`.
fn begins_part(text: &[u8], hit: &Range<usize>) -> bool {
    let before = hit.start.checked_sub(1).and_then(|at| text.get(at));
    let first = text.get(hit.start).is_some_and(u8::is_ascii_uppercase);
    before.is_none_or(|before| {
        !before.is_ascii_alphanumeric() || (before.is_ascii_lowercase() && first)
    })
}

/// Returns the next match's secret, as a place in `bytes`.
fn next_match(
    compiled: &regex_automata::meta::Regex,
    regex: &LazyRegex,
    bytes: &[u8],
    at: usize,
) -> Option<Range<usize>> {
    if at > bytes.len() {
        return None;
    }
    let input = Input::new(bytes).range(at..);
    let Some(group) = regex.group else {
        return compiled.search(&input).map(|found| found.range());
    };
    let mut captures = compiled.create_captures();
    compiled.search_captures(&input, &mut captures);
    captures.get_group(group).or_else(|| captures.get_group(0)).map(|found| found.range())
}

/// Decides by what the rule asks for; true if a check digit or a structure was right. The first `public`
/// bytes are the same in all secrets of the kind.
fn judge(rule: &Rule, secret: &[u8], public: usize) -> Result<bool, Reason> {
    let verdict = rule.check.map_or(Verdict::Unknown, |check| check(secret));
    if verdict == Verdict::Invalid {
        return Err(Reason::Check);
    }
    if secret.len() < 200 && is_placeholder(secret.get(public..).unwrap_or_default()) {
        return Err(Reason::Placeholder);
    }
    if has_reference(secret) {
        return Err(Reason::Reference);
    }
    if rule.entropy.is_some_and(|floor| entropy(secret) < floor) {
        return Err(Reason::Entropy);
    }
    Ok(verdict == Verdict::Valid)
}
