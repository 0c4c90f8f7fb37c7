//! One line of a role: which secrets, which levels.
//!
//! Selectors of different kinds must all fit; within one kind any of the list does.

use std::fmt;

use crate::model::{Attributes, Level, Levels, Pattern, SecretName, SecretType};

use super::Target;

/// A selection of secrets and the levels that are allowed or denied on them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) names: Box<[Names]>,
    pub(super) attributes: Selection,
    pub(super) levels: Levels,
}

/// A pattern over names, and what it says about whole directories.
#[derive(Debug)]
pub(super) struct Names {
    pattern: Pattern,
    whole: Whole,
    /// The pattern up to its first wildcard: most names are told apart by it, at a tenth of the
    /// cost of matching.
    literal: Box<str>,
    after_literal: AfterLiteral,
}

#[derive(Debug)]
enum AfterLiteral {
    Nothing,
    /// `**` alone: whatever follows the literal fits.
    Anything,
    Wildcards,
}

/// Which directories a pattern takes with everything below them.
#[derive(Debug)]
enum Whole {
    Every,
    /// Those that match, and those below.
    Matching(Pattern),
    None,
}

/// Attributes that a rule asks for; an empty list asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) tags: Box<[Box<str>]>,
    pub(super) services: Box<[Box<str>]>,
    pub(super) environments: Box<[Box<str>]>,
    pub(super) types: Box<[SecretType]>,
}

impl Rule {
    /// Tells whether it reaches the target as an allow: the store only with `admin`.
    pub(super) fn allows(&self, target: Target<'_>) -> bool {
        match target {
            Target::Secret { name, attributes } => self.selects(name, attributes),
            Target::Store => self.levels.names(Level::Admin) && self.is_over_everything(),
        }
    }

    /// Tells whether it reaches the target as a deny.
    pub(super) fn denies(&self, target: Target<'_>) -> bool {
        match target {
            Target::Secret { name, attributes } => self.selects(name, attributes),
            Target::Store => self.is_over_everything(),
        }
    }

    /// Tells whether some name below the directory could match by its name alone.
    pub(super) fn may_match_below(&self, dir: Option<&SecretName>) -> bool {
        let below = |n: &Names| dir.is_none_or(|dir| n.may_match_below(dir));
        !self.is_by_attributes() && self.names.iter().any(below)
    }

    /// Tells whether every name below the directory (`None`: the root) matches.
    pub(super) fn covers(&self, dir: Option<&SecretName>) -> bool {
        !self.is_by_attributes() && self.names.iter().any(|n| n.covers(dir))
    }

    pub(super) fn is_by_attributes(&self) -> bool {
        !self.attributes.is_empty()
    }

    fn is_over_everything(&self) -> bool {
        !self.is_by_attributes() && self.names.iter().any(|n| matches!(n.whole, Whole::Every))
    }

    fn selects(&self, name: &SecretName, attributes: Option<&Attributes>) -> bool {
        let by_name = self.names.is_empty() || self.names.iter().any(|n| n.matches(name));
        by_name
            && (self.attributes.is_empty() || attributes.is_some_and(|a| self.attributes.fit(a)))
    }
}

impl Names {
    pub(super) fn new(pattern: Pattern) -> Self {
        let whole = match pattern.as_str().strip_suffix("**") {
            Some("") => Whole::Every,
            Some(prefix) => {
                let prefix = prefix.trim_end_matches('/').parse();
                prefix.map_or(Whole::None, Whole::Matching)
            }
            None => Whole::None,
        };
        let text = pattern.as_str();
        let end = text.find(['*', '?']).unwrap_or(text.len());
        let (literal, rest) = text.split_at(end);
        let after_literal = match rest {
            "" => AfterLiteral::Nothing,
            "**" => AfterLiteral::Anything,
            _ => AfterLiteral::Wildcards,
        };
        Self { literal: literal.into(), after_literal, whole, pattern }
    }

    pub(super) fn matches(&self, name: &SecretName) -> bool {
        let Some(rest) = name.as_str().strip_prefix(&*self.literal) else { return false };
        match self.after_literal {
            AfterLiteral::Nothing => rest.is_empty(),
            AfterLiteral::Anything => true,
            AfterLiteral::Wildcards => self.pattern.matches(name),
        }
    }

    fn may_match_below(&self, dir: &SecretName) -> bool {
        let (dir_bytes, literal) = (dir.as_str().as_bytes(), self.literal.as_bytes());
        let shared = dir_bytes.len().min(literal.len());
        dir_bytes.get(..shared) == literal.get(..shared) && self.pattern.may_match_below(dir)
    }

    /// Tells whether every name below the directory (`None`: the root) matches.
    pub(super) fn covers(&self, dir: Option<&SecretName>) -> bool {
        match (&self.whole, dir) {
            (Whole::Every, _) => true,
            // `a/**` takes all that is below `a`, and below whatever it matches itself.
            (Whole::Matching(prefix), Some(dir)) => {
                prefix.matches(dir) || self.pattern.matches(dir)
            }
            (Whole::Matching(_), None) | (Whole::None, _) => false,
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(f)
    }
}

impl Selection {
    fn is_empty(&self) -> bool {
        self.tags.is_empty()
            && self.services.is_empty()
            && self.environments.is_empty()
            && self.types.is_empty()
    }

    fn fit(&self, attributes: &Attributes) -> bool {
        let one_of = |wanted: &[Box<str>], value: &Option<Box<str>>| {
            wanted.is_empty() || value.as_ref().is_some_and(|value| wanted.contains(value))
        };
        (self.tags.is_empty() || self.tags.iter().any(|tag| attributes.tags.contains(tag)))
            && one_of(&self.services, &attributes.service)
            && one_of(&self.environments, &attributes.environment)
            && (self.types.is_empty() || self.types.contains(&attributes.secret_type))
    }
}

/// Shows it as `read, write on names prod/*, tags shared`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<&str> = self.levels.iter().map(Level::as_str).collect();
        let names = self.names.iter().map(|names| names.pattern.as_str()).collect();
        let types = self.attributes.types.iter().map(|kind| kind.as_str()).collect();
        let texts = |list: &'_ [Box<str>]| list.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        write!(f, "{} on", levels.join(", "))?;
        let mut separator = " ";
        let mut part = |what: &str, list: Vec<&str>| {
            if list.is_empty() {
                return Ok(());
            }
            let written = write!(f, "{separator}{what} {}", list.join(" "));
            separator = ", ";
            written
        };
        part("names", names)?;
        for (what, list) in [
            ("tags", texts(&self.attributes.tags)),
            ("services", texts(&self.attributes.services)),
            ("environments", texts(&self.attributes.environments)),
        ] {
            part(what, list.iter().map(String::as_str).collect())?;
        }
        part("types", types)
    }
}
