//! What a caller may be allowed to do with a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One right. None implies another, but `Admin` implies them all.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Admin,
    Delete,
    Read,
    Write,
}

impl Level {
    /// Every level, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::Admin];

    /// Returns the word for it in policies, logs and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Delete => "delete",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Delete => 4,
            Self::Admin => 8,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no level: use read, write, delete or admin"))
    }
}

/// A set of levels.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(from = "Vec<Level>", into = "Vec<Level>")]
pub struct Levels(u8);

impl Levels {
    /// No level at all.
    pub const NONE: Self = Self(0);

    /// Returns the levels of `self` and of `other`.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the levels of `self` that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether `level` is named here or implied by `Admin`.
    pub fn allow(self, level: Level) -> bool {
        self.0 & (level.bit() | Level::Admin.bit()) != 0
    }

    /// Tells whether `level` itself is named here.
    pub fn names(self, level: Level) -> bool {
        self.0 & level.bit() != 0
    }

    /// Tells whether no level is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the levels that the set names.
    pub fn iter(self) -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(move |level| self.names(*level))
    }
}

impl From<Vec<Level>> for Levels {
    fn from(levels: Vec<Level>) -> Self {
        levels.into_iter().collect()
    }
}

impl From<Levels> for Vec<Level> {
    fn from(levels: Levels) -> Self {
        levels.iter().collect()
    }
}

/// Shows it as `read, write`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Level::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

impl FromIterator<Level> for Levels {
    fn from_iter<I: IntoIterator<Item = Level>>(levels: I) -> Self {
        levels.into_iter().fold(Self::NONE, |set, level| Self(set.0 | level.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_every_level_and_no_other_level_implies_one() {
        let admin: Levels = [Level::Admin].into_iter().collect();
        assert!(Level::ALL.into_iter().all(|level| admin.allow(level)));
        let write: Levels = [Level::Write].into_iter().collect();
        assert!(!write.allow(Level::Read) && !write.allow(Level::Delete));
    }
}
