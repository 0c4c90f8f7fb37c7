//! `injections.toml`: which secrets are kept where programs look for files, and who is told when they change.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::effect::{Notice, Placement, PlacementKind};
use crate::model::{Pattern, SecretName, TextError};

/// What is kept.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Settings {
    pub(super) files: Vec<Placement>,
    pub(super) consumers: Vec<Consumer>,
}

/// A program that is told of changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Consumer {
    pub(super) name: String,
    secrets: Vec<Pattern>,
    pub(super) notify: Vec<Notice>,
    #[serde(default)]
    min_interval_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    file: Vec<Spanned<Placement>>,
    #[serde(default)]
    consumer: Vec<Spanned<Consumer>>,
}

impl Settings {
    /// Reads the file's text.
    pub(in crate::daemon) fn parse(text: &str) -> Result<Self, TextError> {
        let FileText { file, consumer } = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            TextError::at(text, start, error.message())
        })?;
        let mut paths = BTreeSet::new();
        for table in &file {
            let placement = table.get_ref();
            let twice = !paths.insert(placement.path.clone());
            let objection =
                placement.objection().or_else(|| twice.then_some("another file has this path"));
            objection.map_or(Ok(()), |why| Err(TextError::at(text, table.span().start, why)))?;
        }
        let mut names = BTreeSet::new();
        for table in &consumer {
            let consumer = table.get_ref();
            let twice = !names.insert(consumer.name.clone());
            let objection =
                consumer.objection().or_else(|| twice.then_some("another consumer has this name"));
            objection.map_or(Ok(()), |why| Err(TextError::at(text, table.span().start, why)))?;
        }
        Ok(Self {
            files: file.into_iter().map(Spanned::into_inner).collect(),
            consumers: consumer.into_iter().map(Spanned::into_inner).collect(),
        })
    }

    /// Tells whether anything is said of a secret, or of the directory that it is in.
    pub(super) fn concerns(&self, name: &SecretName) -> bool {
        let is_file = |file: &Placement| {
            let below = name.as_str().strip_prefix(file.secret.as_str());
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        self.files.iter().any(is_file) || self.consumers.iter().any(|consumer| consumer.wants(name))
    }

    /// Returns what is to be at a path.
    pub(super) fn at(&self, path: &Path) -> Option<&Placement> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Tells whether anything is to be bound.
    pub(super) fn has_binds(&self) -> bool {
        self.files.iter().any(|file| file.kind == PlacementKind::Bind)
    }
}

impl Consumer {
    pub(super) fn wants(&self, name: &SecretName) -> bool {
        self.secrets.iter().any(|pattern| pattern.matches(name))
    }

    pub(super) fn min_interval(&self) -> Duration {
        Duration::from_secs(self.min_interval_seconds)
    }

    fn objection(&self) -> Option<&'static str> {
        if self.name.is_empty() || self.secrets.is_empty() || self.notify.is_empty() {
            return Some("a consumer has a name, and secrets, and a way to be told");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_place() {
        let file =
            "[[file]]\nsecret = \"a/b\"\npath = \"/run/x\"\nkind = \"copy\"\nmode = \"0440\"\n";
        let parsed = Settings::parse(file).unwrap();
        assert!(parsed.concerns(&"a/b".parse().unwrap()));
        assert!(parsed.concerns(&"a/b/c".parse().unwrap()), "it may be a directory");
        assert!(!parsed.concerns(&"a/c".parse().unwrap()));
        assert!(!parsed.concerns(&"a/bc".parse().unwrap()));
        let consumer = "[[consumer]]\nname = \"x\"\nsecrets = [\"a/**\"]\n";
        for (text, why) in [
            (format!("{file}{file}"), "line 6, column 1: another file has this path"),
            (
                file.replace("/run/x", "x"),
                "line 1, column 1: the path must be absolute, without `..`, and name a file",
            ),
            (
                file.replace("copy", "link"),
                "line 1, column 1: only a copy has an owner and a mode: links and binds lead to the mount",
            ),
            (
                format!("{consumer}notify = []\n"),
                "line 1, column 1: a consumer has a name, and secrets, and a way to be told",
            ),
        ] {
            assert_eq!(Settings::parse(&text).unwrap_err().to_string(), why);
        }
        assert!(Settings::parse(&file.replace("0440", "9")).is_err());
        assert!(Settings::parse(&file.replace("kind = \"copy\"\n", "")).is_err());
    }
}
