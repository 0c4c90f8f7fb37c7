//! Oneiric's settings, as its own loader (0.17) really reads them: layers of files under the environment.
//!
//! What is here is held against the real package by `tests/oneiric.rs`: the order of the layers, what
//! the environment is taken for, and what Oneiric does with values that look like something else.

use std::fmt;
use std::str::FromStr;

pub mod environment;
pub mod layers;
mod publish;

pub use environment::{Override, OverrideError, overrides};
pub use layers::{Layer, Merged};
pub use publish::{PublishError, Published, publish, publish_env, publish_json};

use super::variable::{Variable, VariableError};
use environment::coerce;

/// Fields of Oneiric's `secrets` section: a variable of that name would set the field.
const RESERVED: [&str; 6] =
    ["cache_ttl_seconds", "domain", "inline", "key", "provider", "refresh_interval"];

/// The name of a program that has Oneiric's settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Project(Box<str>);

impl Project {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what the names of its variables begin with.
    pub fn prefix(&self) -> String {
        format!("{}_", self.0.to_uppercase())
    }
}

impl FromStr for Project {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.starts_with('.') || !text.chars().all(fits) {
            return Err("a project's name has A-Z a-z 0-9 _ - . and no dot at its start".into());
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The variables that one secret becomes for Oneiric.
#[derive(Debug)]
pub struct Variables {
    pub variables: Vec<Variable>,
    /// Why the INLINE form is not among them.
    pub without_inline: Option<&'static str>,
}

impl Variables {
    /// Returns the variables of a secret whose own variable is `base`.
    pub fn of(project: &Project, base: &Variable, value: &[u8]) -> Result<Self, VariablesError> {
        let lower = base.as_str().to_lowercase();
        let first = lower.split("__").next().unwrap_or_default();
        if RESERVED.contains(&first) {
            return Err(VariablesError::Reserved(base.clone()));
        }
        let prefix = project.prefix();
        let mut variables: Vec<Variable> = vec![
            format!("{prefix}SECRETS__{base}").parse()?,
            format!("ONEIRIC_SECRET_{base}").parse()?,
        ];
        let without_inline = inline_obstacle(&lower, value);
        if without_inline.is_none() {
            variables.push(format!("{prefix}SECRETS__INLINE__{base}").parse()?);
        }
        Ok(Self { variables, without_inline })
    }
}

/// Says why a value cannot be an INLINE variable: Oneiric would take it for something else, and then
/// refuse all of its settings.
fn inline_obstacle(lower: &str, value: &[u8]) -> Option<&'static str> {
    if lower.contains("__") {
        return Some("`__` in its name would make a section of it");
    }
    let Ok(text) = std::str::from_utf8(value) else { return Some("it is not UTF-8") };
    match coerce(text) {
        Override::Bool(_) => Some("Oneiric would take it for true or false"),
        Override::Float(_) | Override::Int(_) => Some("Oneiric would take it for a number"),
        Override::List(_) => Some("Oneiric would take it for a list, because of its comma"),
        Override::Text(_) if environment::may_be_foreign_number(text) => {
            Some("Oneiric would take it for a number")
        }
        Override::Text(_) => None,
    }
}

/// Why a secret cannot be given to Oneiric.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VariablesError {
    #[error("Oneiric has a setting of its own where {0} would stand; give the secret another name")]
    Reserved(Variable),
    #[error(transparent)]
    Variable(#[from] VariableError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str, value: &str) -> Result<(Vec<String>, bool), VariablesError> {
        let project: Project = "mahavishnu".parse().unwrap();
        let variables = Variables::of(&project, &base.parse().unwrap(), value.as_bytes())?;
        let names = variables.variables.iter().map(ToString::to_string).collect();
        Ok((names, variables.without_inline.is_some()))
    }

    #[test]
    fn a_secret_becomes_the_variables_that_oneiric_reads() {
        let expected =
            ["MAHAVISHNU_SECRETS__A", "ONEIRIC_SECRET_A", "MAHAVISHNU_SECRETS__INLINE__A"];
        assert_eq!(of("A", "x").unwrap(), (expected.map(str::to_owned).to_vec(), false));
    }

    #[test]
    fn what_oneiric_would_take_for_something_else_is_no_inline_variable() {
        for value in
            ["12", " 1_0 ", "true", "FALSE", "1e5", "nan", "-Infinity", "a,b", ".5", "\u{663}"]
        {
            let (names, left_out) = of("A", value).unwrap();
            assert!(left_out && names.len() == 2, "{value:?}");
        }
        for value in ["", "x12", "0x10", "yes", "1__0", "1_", "null", "2024-01-01", "e5", "."] {
            assert!(!of("A", value).unwrap().1, "{value:?}");
        }
        assert!(of("A__B", "x").unwrap().1);
    }

    #[test]
    fn what_would_be_a_setting_of_oneiric_s_own_is_refused() {
        for base in [
            "PROVIDER",
            "key",
            "DOMAIN",
            "INLINE",
            "CACHE_TTL_SECONDS",
            "REFRESH_INTERVAL",
            "INLINE__X",
        ] {
            assert!(matches!(of(base, "x"), Err(VariablesError::Reserved(_))), "{base}");
        }
        assert!(of("KEYS", "x").is_ok() && of("INLINE_X", "x").is_ok());
    }
}
