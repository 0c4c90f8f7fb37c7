//! What every match of a regular expression has in common, found from its syntax.
//!
//! It decides how a rule is looked for: a regular expression whose every match has a long run of token
//! bytes needs to be tried in such runs alone. What is said here holds for each match; where it cannot be
//! known, the answer is the careful one.

use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::assignment::{MARK, MAX_USERINFO};
use super::class::is_token;
use super::runs::MIN_RUN;

/// Where a rule's matches can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Route {
    /// Begins with a keyword and goes on as a run of token bytes: the keyword stands within the run.
    Run,
    /// Holds a run of token bytes; the keyword may stand before it.
    Near,
    /// Holds a URL's `://` with an at sign behind it.
    Url,
    /// Anywhere.
    Loose,
}

/// The facts about one regular expression.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub route: Route,
    /// Each match begins with one of the keywords.
    pub anchored: bool,
    /// So many token bytes in a row each match has: at its beginning if the route is [`Route::Run`].
    pub run: usize,
    /// The longest match in bytes; none if there is no limit.
    pub max_len: Option<usize>,
}

impl Shape {
    /// Looks at a regular expression and the rule's keywords, which are in lower case.
    pub(super) fn of(hir: &Hir, keywords: &[Box<[u8]>]) -> Self {
        let anchored = begins_with_any(hir, keywords);
        let run = TokenRun::of(hir);
        let in_run = |keyword: &[u8]| keyword.iter().all(|&byte| is_token(byte));
        let (route, run) =
            if anchored && run.prefix >= MIN_RUN && keywords.iter().all(|k| in_run(k)) {
                (Route::Run, run.prefix)
            } else if run.longest >= MIN_RUN {
                (Route::Near, run.longest)
            } else if has_userinfo(hir) {
                (Route::Url, run.longest)
            } else {
                (Route::Loose, run.longest)
            };
        Self { route, anchored, run, max_len: hir.properties().maximum_len() }
    }
}

/// Returns how a keyword is spelled wherever a match can be; nothing if in any way.
pub(super) fn spellings(hir: &Hir, keyword: &[u8], anchored: bool) -> Option<Vec<Vec<u8>>> {
    let len = keyword.len();
    let is_it = |literal: &&[u8]| literal.eq_ignore_ascii_case(keyword);
    if anchored {
        let prefixes = Extractor::new().extract(hir);
        let starts =
            prefixes.literals()?.iter().filter_map(|literal| literal.as_bytes().get(..len));
        return Some(starts.filter(is_it).map(<[u8]>::to_vec).collect());
    }
    let found =
        required_literals(hir).into_iter().find_map(|literal| literal.windows(len).find(is_it));
    found.map(|found| vec![found.to_vec()])
}

/// Returns texts that stand in every match as they are.
fn required_literals(hir: &Hir) -> Vec<&[u8]> {
    match hir.kind() {
        HirKind::Literal(literal) => vec![&literal.0],
        HirKind::Capture(capture) => required_literals(&capture.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(required_literals).collect(),
        HirKind::Repetition(repetition) if repetition.min > 0 => required_literals(&repetition.sub),
        HirKind::Alternation(_)
        | HirKind::Class(_)
        | HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Repetition(_) => Vec::new(),
    }
}

/// The longest scheme of a URL that is looked for by its [`MARK`].
pub(super) const MAX_SCHEME: usize = 32;

/// Tells whether every match is a URL that has an at sign as near behind its `://` as [`MAX_USERINFO`] says.
fn has_userinfo(hir: &Hir) -> bool {
    let HirKind::Concat(parts) = hir.kind() else { return false };
    let literal = |part: &Hir| {
        let HirKind::Literal(literal) = part.kind() else { return None };
        Some(literal.0.clone())
    };
    let len = |parts: &[Hir]| {
        parts.iter().try_fold(0, |sum, part| Some(sum + part.properties().maximum_len()?))
    };
    let is_mark = |part: &Hir| literal(part).is_some_and(|text| text.ends_with(MARK));
    let is_at = |part: &Hir| literal(part).is_some_and(|text| text.starts_with(b"@"));
    let Some((scheme, rest)) =
        parts.iter().position(is_mark).and_then(|mark| parts.split_at_checked(mark + 1))
    else {
        return false;
    };
    let userinfo = rest.iter().position(is_at).and_then(|at| rest.get(..at));
    len(scheme).is_some_and(|len| len <= MAX_SCHEME)
        && userinfo.and_then(len).is_some_and(|len| len <= MAX_USERINFO)
}

fn begins_with_any(hir: &Hir, keywords: &[Box<[u8]>]) -> bool {
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix);
    let prefixes = extractor.extract(hir);
    prefixes.literals().is_some_and(|literals| {
        !literals.is_empty()
            && literals.iter().all(|literal| {
                let literal = literal.as_bytes().to_ascii_lowercase();
                keywords.iter().any(|keyword| literal.starts_with(keyword))
            })
    })
}

/// How many token bytes in a row every match has: at its start, at its end, anywhere.
#[derive(Clone, Copy, Debug, Default)]
struct TokenRun {
    /// All of the match is token bytes; then the three numbers are its shortest length.
    whole: bool,
    prefix: usize,
    suffix: usize,
    longest: usize,
}

impl TokenRun {
    const EMPTY: Self = Self::all(0);

    const fn all(len: usize) -> Self {
        Self { whole: true, prefix: len, suffix: len, longest: len }
    }

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::EMPTY,
            HirKind::Literal(literal) => literal
                .0
                .iter()
                .map(|&byte| if is_token(byte) { Self::all(1) } else { Self::default() })
                .fold(Self::EMPTY, Self::then),
            HirKind::Class(class) if is_token_class(class) => Self::all(1),
            HirKind::Class(_) => Self::default(),
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) => {
                let min = usize::try_from(repetition.min).unwrap_or(usize::MAX);
                Self::of(&repetition.sub).times(min)
            }
            HirKind::Concat(parts) => parts.iter().map(Self::of).fold(Self::EMPTY, Self::then),
            HirKind::Alternation(parts) => {
                parts.iter().map(Self::of).reduce(Self::or).unwrap_or_default()
            }
        }
    }

    fn then(self, next: Self) -> Self {
        let joined = self.suffix.saturating_add(next.prefix);
        Self {
            whole: self.whole && next.whole,
            prefix: if self.whole { joined } else { self.prefix },
            suffix: if next.whole { joined } else { next.suffix },
            longest: self.longest.max(next.longest).max(joined),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            whole: self.whole && other.whole,
            prefix: self.prefix.min(other.prefix),
            suffix: self.suffix.min(other.suffix),
            longest: self.longest.min(other.longest),
        }
    }

    fn times(self, min: usize) -> Self {
        match (self.whole, min) {
            (true, _) => Self::all(self.prefix.saturating_mul(min)),
            // May be left out, and if not, breaks a run.
            (false, 0) => Self::default(),
            (false, 1) => self,
            (false, _) => {
                let between = self.suffix.saturating_add(self.prefix);
                Self { longest: self.longest.max(between), ..self }
            }
        }
    }
}

fn is_token_class(class: &Class) -> bool {
    match class {
        Class::Bytes(class) => {
            class.iter().all(|range| (range.start()..=range.end()).all(is_token))
        }
        // Compiled without Unicode, a class of characters is ASCII or none of ours.
        Class::Unicode(class) => class.iter().all(|range| {
            (range.start()..=range.end()).all(|c| u8::try_from(c).is_ok_and(is_token))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::rule::parse_regex;

    fn shape(regex: &str, keywords: &[&str]) -> Shape {
        let keywords: Vec<Box<[u8]>> = keywords.iter().map(|k| k.as_bytes().into()).collect();
        Shape::of(&parse_regex(regex).unwrap(), &keywords)
    }

    #[test]
    fn a_prefix_format_is_looked_for_in_runs_alone() {
        let found = shape("ghp_[A-Za-z0-9]{36}", &["ghp_"]);
        assert_eq!((found.route, found.anchored, found.max_len), (Route::Run, true, Some(40)));
        assert_eq!(shape("(?:sk|rk)_live_[a-z]{24,}", &["sk_live_", "rk_live_"]).route, Route::Run);
        assert_eq!(shape("gh[pousr]_[a-z]{36}", &["ghp_", "gho_"]).route, Route::Near);
    }

    #[test]
    fn an_unprefixed_format_needs_its_keyword_near_a_run() {
        assert_eq!(shape("[a-f0-9]{32}", &["vendor"]).route, Route::Near);
        assert_eq!(shape(r"\d{8,10}:AA[\w-]{33}", &[":aa"]).route, Route::Near);
        assert_eq!(shape(r"vendor.{0,20}[a-f0-9]{32}", &["vendor"]).route, Route::Near);
    }

    #[test]
    fn a_url_with_a_password_is_looked_for_by_its_marks() {
        for regex in ["dbs?://[^:]{0,80}:[^@ ]{2,160}@[a-z]+", "(?:a|b)[a-z]{0,9}://[^@]{9}@x"] {
            assert_eq!(shape(regex, &["x"]).route, Route::Url, "{regex}");
        }
        for regex in [
            "db://[^@ ]{2,300}@x",
            "db://[^@ ]+@x",
            "db://x",
            "db:[^@ ]{2,9}@x",
            "[a-z]+://[^@ ]{9}@x",
        ] {
            assert_eq!(shape(regex, &["x"]).route, Route::Loose, "{regex}");
        }
    }

    #[test]
    fn a_keyword_that_each_match_spells_in_one_way_is_looked_for_in_that_way() {
        let cases: [(&str, &str, bool, Option<&[&str]>); 6] = [
            ("curl x", "curl", true, Some(&["curl"])),
            ("(?:Ab|AB)c", "ab", true, Some(&["Ab", "AB"])),
            ("[a-z]:Secret", "secret", false, Some(&["Secret"])),
            ("(?i:secret)", "secret", false, None),
            ("(?:secret)?x", "secret", false, None),
            ("secret|x", "secret", false, None),
        ];
        for (regex, keyword, anchored, expected) in cases {
            let found = spellings(&parse_regex(regex).unwrap(), keyword.as_bytes(), anchored);
            let expected = expected
                .map(|words| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{regex}");
        }
    }

    #[test]
    fn what_may_match_without_a_run_is_looked_for_everywhere() {
        for regex in
            ["x[a-z]{10}", "-----BEGIN [A-Z ]+-----", "key=(?:[a-z]{20}|[^a]{3})", "a(?: b{20})?"]
        {
            assert_eq!(shape(regex, &["x"]).route, Route::Loose, "{regex}");
        }
    }

    #[test]
    fn optional_punctuation_breaks_a_run_and_an_optional_token_does_not() {
        assert_eq!(shape("[a-z]{8}:?[a-z]{8}", &["x"]).route, Route::Loose);
        assert_eq!(shape("[a-z]{8}-?[a-z]{8}", &["x"]).route, Route::Near);
    }
}
