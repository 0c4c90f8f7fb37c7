//! What a secret is called where programs look for it, where that is not its own name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The names that programs know a secret by.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Injection {
    /// Its environment variable, in the place of the one made of its name.
    pub env_name: Option<EnvName>,
    /// Where Oneiric's settings have it, besides `secrets.inline`.
    pub oneiric_path: Option<OneiricPath>,
}

/// A name that every shell takes for a variable: `A-Z a-z 0-9 _`, not led by a digit.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct EnvName(Box<str>);

/// A setting such as `auth.secret`: words of `A-Z a-z 0-9 _ -` between dots, outside of Oneiric's own `secrets`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OneiricPath(Box<str>);

/// Tells whether a text is what every shell takes for the name of a variable.
pub fn is_variable_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(allowed)
}

/// Longest name in bytes.
const MAX_BYTES: usize = 255;

/// Longest way to a setting, in words.
const MAX_WORDS: usize = 16;

impl EnvName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvName {
    type Err = InjectionError;

    fn from_str(text: &str) -> Result<Self, InjectionError> {
        let fits = is_variable_name(text) && text.len() <= MAX_BYTES;
        fits.then(|| Self(text.into())).ok_or(InjectionError::EnvName)
    }
}

impl OneiricPath {
    /// Returns the path, with its dots.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OneiricPath {
    type Err = InjectionError;

    fn from_str(text: &str) -> Result<Self, InjectionError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let words: Vec<&str> = text.split('.').collect();
        let fits = words.iter().all(|word| !word.is_empty() && word.chars().all(allowed));
        if !fits || text.len() > MAX_BYTES || words.len() > MAX_WORDS {
            return Err(InjectionError::OneiricPath);
        }
        if words.first() == Some(&"secrets") {
            return Err(InjectionError::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for OneiricPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is none of these names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InjectionError {
    #[error(
        "expected the name of a variable: A-Z a-z 0-9 _, not led by a digit, at most 255 bytes"
    )]
    EnvName,
    #[error("expected a setting such as auth.secret: words of A-Z a-z 0-9 _ - between dots")]
    OneiricPath,
    #[error("`secrets` is Oneiric's own; it has every secret under `secrets.inline` anyway")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_what_a_shell_takes() {
        for good in ["A", "_a9", "DB_PASSWORD"] {
            assert_eq!(good.parse::<EnvName>().unwrap().as_str(), good);
        }
        for bad in ["", "9A", "A-B", "A B", "A=B", "A\0", "\u{e9}", &"A".repeat(256)] {
            assert_eq!(bad.parse::<EnvName>(), Err(InjectionError::EnvName), "{bad:?}");
        }
    }

    #[test]
    fn a_setting_is_words_between_dots_and_none_of_oneiric_s_own() {
        for good in ["auth.secret", "api_key", "a.b-c.D"] {
            assert_eq!(good.parse::<OneiricPath>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\n", &"a.".repeat(17)] {
            assert_eq!(bad.parse::<OneiricPath>(), Err(InjectionError::OneiricPath), "{bad:?}");
        }
        for own in ["secrets", "secrets.inline.x", "secrets.provider"] {
            assert_eq!(own.parse::<OneiricPath>(), Err(InjectionError::Reserved), "{own}");
        }
    }
}
