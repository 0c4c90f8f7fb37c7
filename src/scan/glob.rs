//! Patterns over paths, as .gitignore has them: one without a slash fits at any depth.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

/// A pattern such as `*.env` or `deploy/**/secrets.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(GlobMatcher);

impl Glob {
    /// Tells whether a path fits, as a whole or by its last parts.
    pub fn matches(&self, path: &Path) -> bool {
        self.0.is_match(path)
    }
}

impl FromStr for Glob {
    type Err = globset::Error;

    fn from_str(text: &str) -> Result<Self, globset::Error> {
        let text = text.strip_prefix("./").unwrap_or(text);
        let anchored = text.strip_prefix('/').unwrap_or(text);
        // A directory stands for what is below it. Paths may have been given absolute or not.
        let below = if anchored.ends_with('/') { "**" } else { "" };
        let text = format!("**/{anchored}{below}");
        Ok(Self(GlobBuilder::new(&text).literal_separator(true).build()?.compile_matcher()))
    }
}

impl TryFrom<String> for Glob {
    type Error = globset::Error;

    fn try_from(text: String) -> Result<Self, globset::Error> {
        text.parse()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_at_any_depth_and_a_star_stays_within_its_part() {
        let cases = [
            ("*.env", "a/b/prod.env", true),
            ("*.env", "prod.env.txt", false),
            ("tests/", "x/tests/a/b.rs", true),
            ("tests/", "x/mytests/b.rs", false),
            ("src/*.rs", "/home/me/src/a.rs", true),
            ("src/*.rs", "src/a/b.rs", false),
            ("src/**/b.rs", "src/a/c/b.rs", true),
        ];
        for (pattern, path, expected) in cases {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.matches(Path::new(path)), expected, "{pattern} {path}");
        }
        assert!("[".parse::<Glob>().is_err());
    }
}
