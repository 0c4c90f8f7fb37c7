//! `anomalies.toml`: what is looked for how strictly, and what is muted.
//!
//! The first `[[rule]]` that fits a doubt decides; one that none fits must reach the common threshold.

use serde::Deserialize;

use super::{Kind, Who};
use crate::model::{Pattern, SecretName, TextError, Uid};

/// So long after the first line nothing is reported, if nothing else is said.
pub const LEARNING_DAYS: u16 = 7;

/// How the detectors are tuned.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// So long after the first line nothing is reported.
    learning_days: u16,
    /// A secret that is younger finds its callers.
    new_secret_days: u16,
    /// So long nothing like a doubt must come before it is reported, with whatever was like it.
    settle_seconds: u16,
    /// From which score on a doubt is a finding.
    threshold: toml::Spanned<f64>,
    /// Programs that read everything, by the last part of their path.
    crawlers: Vec<Box<str>>,
    /// Secrets that nothing should open, beside those that the daemon knows as such.
    decoys: Vec<Pattern>,
    rule: Vec<toml::Spanned<Rule>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rule {
    kinds: Vec<Kind>,
    secrets: Vec<Pattern>,
    uids: Vec<Uid>,
    /// Paths of programs, with `#` for numbers as findings show them.
    exes: Vec<Box<str>>,
    /// Units or containers: the whole, or the last part of the path.
    units: Vec<Box<str>>,
    mute: bool,
    threshold: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let crawlers =
            ["borg", "mlocate", "plocate", "restic", "rsync", "updatedb", "updatedb.plocate"];
        Self {
            learning_days: LEARNING_DAYS,
            new_secret_days: 3,
            settle_seconds: 60,
            threshold: toml::Spanned::new(0..0, 0.5),
            crawlers: crawlers.map(Into::into).to_vec(),
            decoys: Vec::new(),
            rule: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let settings: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            TextError::at(text, start, error.message())
        })?;
        let range = "a threshold is a number from 0 to 1";
        if !(0.0..=1.0).contains(settings.threshold.get_ref()) {
            return Err(TextError::at(text, settings.threshold.span().start, range));
        }
        for rule in &settings.rule {
            let start = rule.span().start;
            let wrong = match (rule.get_ref().mute, rule.get_ref().threshold) {
                (false, None) => Some("a rule needs `mute = true` or a `threshold`"),
                (true, Some(_)) => Some("a rule has `mute` or a `threshold`, not both"),
                (false, Some(threshold)) if !(0.0..=1.0).contains(&threshold) => Some(range),
                (_, _) => None,
            };
            if let Some(wrong) = wrong {
                return Err(TextError::at(text, start, wrong));
            }
        }
        Ok(settings)
    }

    pub(super) fn learning_days(&self) -> i64 {
        self.learning_days.into()
    }

    pub(super) fn new_secret_days(&self) -> i64 {
        self.new_secret_days.into()
    }

    pub(super) fn settle_seconds(&self) -> i64 {
        self.settle_seconds.into()
    }

    pub(super) fn is_crawler(&self, program: &str) -> bool {
        self.crawlers.iter().any(|crawler| **crawler == *program)
    }

    pub(super) fn is_decoy(&self, name: &SecretName) -> bool {
        self.decoys.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns the score that a doubt must reach, or `None` where it is muted.
    pub(super) fn threshold(
        &self,
        kind: Kind,
        secret: Option<&SecretName>,
        who: &Who,
    ) -> Option<f64> {
        let rule =
            self.rule.iter().map(toml::Spanned::get_ref).find(|rule| rule.fits(kind, secret, who));
        match rule {
            None => Some(*self.threshold.get_ref()),
            Some(rule) if rule.mute => None,
            Some(rule) => rule.threshold,
        }
    }
}

impl Rule {
    fn fits(&self, kind: Kind, secret: Option<&SecretName>, who: &Who) -> bool {
        let place = who.place.as_deref();
        let last = place.and_then(|place| place.rsplit('/').next());
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.secrets.is_empty()
                || secret
                    .is_some_and(|name| self.secrets.iter().any(|pattern| pattern.matches(name))))
            && (self.uids.is_empty() || self.uids.contains(&who.uid))
            && (self.exes.is_empty() || self.exes.iter().any(|exe| who.exe.as_deref() == Some(exe)))
            && (self.units.is_empty()
                || self.units.iter().any(|unit| [place, last].contains(&Some(unit))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let settings = Settings::parse(
            r#"
            threshold = 0.6
            [[rule]]
            kinds = ["burst"]
            secrets = ["batch/**"]
            mute = true
            [[rule]]
            units = ["app.service"]
            threshold = 0.9
            "#,
        )
        .unwrap();
        let who = |place: &str| Who { place: Some(place.into()), ..Who::user(Uid(7)) };
        let (batch, prod) = ("batch/a".parse().unwrap(), "prod/a".parse().unwrap());
        let threshold = |kind, secret, place| settings.threshold(kind, Some(secret), &who(place));
        assert_eq!(threshold(Kind::Burst, &batch, "x"), None);
        assert_eq!(threshold(Kind::Burst, &prod, "x"), Some(0.6));
        assert_eq!(threshold(Kind::Walk, &batch, "system.slice/app.service"), Some(0.9));
    }

    #[test]
    fn a_bad_file_is_refused_with_the_place_and_what_was_expected() {
        for (text, line, column, said) in [
            ("learning_day = 7\n", 1, 1, "unknown field `learning_day`"),
            ("threshold = 2.0\n", 1, 13, "from 0 to 1"),
            ("[[rule]]\nkinds = [\"bursts\"]\n", 2, 10, "unknown variant `bursts`"),
            ("\n[[rule]]\nkinds = [\"burst\"]\n", 2, 1, "`mute = true` or a `threshold`"),
            ("[[rule]]\nsecrets = [\"a//b\"]\nmute = true\n", 2, 11, "empty segment"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.message.contains(said), "{text}: {error}");
        }
    }
}
