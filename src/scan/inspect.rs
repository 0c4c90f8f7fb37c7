//! Looks into a text that is no secret and must not hold one, such as a description or a configuration.

use std::fmt;
use std::sync::OnceLock;

use super::engine::Engine;
use super::file::{Wanted, scan_reader};
use super::rule::{RuleError, RuleSet};
use super::severity::Severity;

/// Finds what is at least of high severity. The rules are made with the first text.
#[derive(Debug, Default)]
pub struct Inspector(OnceLock<Result<Engine, RuleError>>);

/// What stands in a text, and where; not the text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Objection {
    pub rule: Box<str>,
    pub severity: Severity,
    pub line: u64,
    /// In bytes, from 1.
    pub column: u64,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, severity, line, column } = self;
        write!(f, "line {line}, column {column} looks like a secret ({rule}, {severity})")
    }
}

impl Inspector {
    /// Returns the first objection to a text called `name`. Errors: there are no rules, which is a fault of ours.
    pub fn inspect(&self, name: &str, text: &str) -> Result<Option<Objection>, &RuleError> {
        let engine = self.0.get_or_init(|| RuleSet::built_in().and_then(Engine::new));
        let engine = engine.as_ref()?;
        let wanted = Wanted { min_severity: Severity::High, ..Wanted::default() };
        let found = scan_reader(engine, &wanted, name, &mut text.as_bytes());
        Ok(found.open().next().map(|finding| Objection {
            rule: finding.rule.clone(),
            severity: finding.severity,
            line: finding.place.line,
            column: finding.place.column,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(text: &str) -> Option<Objection> {
        Inspector::default().inspect("description", text).unwrap()
    }

    #[test]
    fn what_people_write_about_secrets_is_no_secret() {
        for text in [
            "password of the database, in the vault of the team",
            "token: see https://wiki.example/tokens#rotation",
            "key of build 2f1c9d0e-8b57-4a9e-9d3c-0f6a1b2c3d4e",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "",
        ] {
            assert_eq!(objection(text), None, "{text}");
        }
    }

    #[test]
    fn an_objection_names_rule_and_place_and_not_the_secret() {
        let rules = RuleSet::built_in().unwrap();
        let rule = rules.rules().iter().find(|rule| &*rule.id == "github-pat").unwrap();
        let token = |text: &str| {
            let text = text.split("ghp_").nth(1).unwrap();
            format!("ghp_{}", text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap())
        };
        let secret = token(&rule.positive[0]);
        let found = objection(&format!("old one\nwas {secret}")).unwrap();
        assert_eq!((found.line, found.column), (2, 5));
        assert!(!found.to_string().contains(&secret), "{found}");
    }
}
