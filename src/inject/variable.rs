//! Names of environment variables, and which one a secret is injected as.
//!
//! The mapping is capitals, and `_` for `-`, `.` and `/`. It loses something, so two secrets may come
//! out as one variable: that is an error and never a choice.

use std::fmt;
use std::str::FromStr;

use crate::model::{EnvName, SecretName, is_variable_name};

/// The most that `NAME=value` and its NUL may take: MAX_ARG_STRLEN of the kernel.
pub const MAX_VARIABLE_BYTES: usize = 128 * 1024;

/// A name that every shell takes for a variable: `A-Z a-z 0-9 _`, not led by a digit.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Variable(Box<str>);

impl Variable {
    /// Returns the variable for a secret, with something put before its name.
    pub fn of_secret(prefix: &str, relative_name: &str) -> Result<Self, VariableError> {
        let name: String = prefix.chars().chain(relative_name.chars().map(mapped)).collect();
        let lead = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
        format!("{lead}{name}").parse()
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Fails if a value cannot be in the environment under this name.
    pub fn check(&self, value: &[u8]) -> Result<(), VariableError> {
        if value.contains(&0) {
            return Err(VariableError::Nul(self.clone()));
        }
        if self.0.len() + 1 + value.len() + 1 > MAX_VARIABLE_BYTES {
            return Err(VariableError::TooLong(self.clone(), value.len()));
        }
        Ok(())
    }
}

impl FromStr for Variable {
    type Err = VariableError;

    fn from_str(text: &str) -> Result<Self, VariableError> {
        let fits = is_variable_name(text);
        fits.then(|| Self(text.into())).ok_or_else(|| VariableError::Name(text.to_owned()))
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns a name into that of an environment variable: capitals, and `_` for `-`, `.` and `/`.
pub fn env_name(name: &str) -> String {
    // A shell takes no variable that starts with a digit.
    let lead = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    lead.into_iter().chain(name.chars().map(mapped)).collect()
}

/// Returns the variable of a secret: the one that it was given, or else the one made of its name.
pub fn variable_of(own: Option<&EnvName>, relative_name: &str) -> String {
    own.map_or_else(|| env_name(relative_name), ToString::to_string)
}

/// Returns a name as it is below a directory.
pub fn relative<'a>(name: &'a SecretName, directory: Option<&SecretName>) -> &'a str {
    let below = directory.and_then(|directory| name.as_str().strip_prefix(directory.as_str()));
    below.map_or(name.as_str(), |rest| rest.trim_start_matches('/'))
}

fn mapped(c: char) -> char {
    match c {
        '-' | '.' | '/' => '_',
        c => c.to_ascii_uppercase(),
    }
}

/// One secret and the variable it becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    pub variable: Variable,
    pub name: SecretName,
}

/// Sorts assignments and drops repetitions. Errors: one variable for two secrets.
pub fn settle(mut all: Vec<Assignment>) -> Result<Vec<Assignment>, VariableError> {
    all.sort_by(|a, b| (&a.variable, &a.name).cmp(&(&b.variable, &b.name)));
    all.dedup();
    let twice = all.windows(2).find_map(|pair| match pair {
        [a, b] if a.variable == b.variable => Some((a, b)),
        _ => None,
    });
    match twice {
        Some((a, b)) => Err(VariableError::Collision {
            variable: a.variable.clone(),
            first: a.name.clone(),
            second: b.name.clone(),
        }),
        None => Ok(all),
    }
}

/// Why something cannot be a variable.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VariableError {
    #[error("{first} and {second} would both be {variable}")]
    Collision { variable: Variable, first: SecretName, second: SecretName },
    #[error("{0:?} is no name of a variable (A-Z a-z 0-9 _, not led by a digit)")]
    Name(String),
    #[error("the value of {0} has a NUL byte, which no environment variable holds")]
    Nul(Variable),
    #[error("the value of {0} has {1} bytes; an environment variable holds at most 128 KiB")]
    TooLong(Variable, usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_names_are_what_a_shell_takes() {
        assert_eq!(env_name("prod/db-1.Password"), "PROD_DB_1_PASSWORD");
        assert_eq!(env_name("2fa"), "_2FA");
        assert_eq!(Variable::of_secret("app_", "2fa/x").unwrap().as_str(), "app_2FA_X");
        assert_eq!(Variable::of_secret("", "2fa").unwrap().as_str(), "_2FA");
    }

    #[test]
    fn names_that_a_shell_would_not_take_are_refused() {
        for bad in ["", "1A", "A-B", "A B", "A=B", "\u{e9}", "A\0"] {
            assert!(bad.parse::<Variable>().is_err(), "{bad:?}");
        }
        assert!(Variable::of_secret("a-", "x").is_err());
    }

    #[test]
    fn two_secrets_for_one_variable_are_an_error_and_the_same_one_twice_is_not() {
        let assign = |variable: &str, name: &str| Assignment {
            variable: variable.parse().unwrap(),
            name: name.parse().unwrap(),
        };
        let fine = vec![assign("B", "b"), assign("A", "a"), assign("A", "a")];
        assert_eq!(settle(fine).unwrap(), [assign("A", "a"), assign("B", "b")]);
        let both = settle(vec![assign("A_B", "a.b"), assign("A_B", "a-b")]);
        assert_eq!(both.unwrap_err().to_string(), "a-b and a.b would both be A_B");
    }

    #[test]
    fn a_value_that_execve_would_not_take_is_refused() {
        let variable: Variable = "NAME".parse().unwrap();
        assert!(variable.check(&vec![b'x'; MAX_VARIABLE_BYTES - 6]).is_ok());
        assert!(variable.check(&vec![b'x'; MAX_VARIABLE_BYTES - 5]).is_err());
        assert!(variable.check(b"a\0b").is_err());
    }
}
