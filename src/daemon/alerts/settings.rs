//! `alerts.toml`: who is told of alerts or of every line of the log, and which findings quarantine their caller.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::anomaly::{Finding, Kind};
use crate::audit::export::Format;
use crate::effect::Receiver;
use crate::model::{SecretName, TextError, Uid};

/// What is done about alerts.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Settings {
    pub(super) routes: Vec<Route>,
    pub(super) denials: Vec<Denial>,
}

/// One table `[[receiver]]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) name: String,
    #[serde(default)]
    pub(super) send: Send,
    #[serde(default)]
    pub(super) format: TextFormat,
    /// Of anomalies, in hundredths: the least score.
    #[serde(default, deserialize_with = "hundredths")]
    pub(super) min_score: u8,
    /// Deliveries, of which each may have many messages.
    pub(super) max_per_minute: Option<u32>,
    /// Messages in one delivery.
    batch: Option<u32>,
    pub(super) to: Receiver,
}

/// What a receiver gets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Send {
    /// What an administrator should hear of at once.
    #[default]
    Alerts,
    /// Every line of the audit log.
    Log,
}

/// In whose words.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum TextFormat {
    Cef,
    #[default]
    Json,
    Ocsf,
    /// One sentence for people.
    Text,
}

/// One table `[[deny]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Denial {
    /// Of any kind, if none is named.
    #[serde(default)]
    kinds: Vec<Kind>,
    #[serde(default, deserialize_with = "hundredths")]
    min_score: u8,
    minutes: u32,
    /// Users that are never quarantined by it.
    #[serde(default)]
    except_uids: Vec<Uid>,
    /// Programs whose users are never quarantined by what such a program did: those that open what others name.
    #[serde(default)]
    except_exes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    receiver: Vec<Spanned<Route>>,
    #[serde(default)]
    deny: Vec<Spanned<Denial>>,
}

/// More of them would be a mistake: each is a thread.
const MAX_ROUTES: usize = 16;
/// Longer than a week, and the policy should be changed.
const MAX_MINUTES: u32 = 7 * 24 * 60;
const MAX_BATCH: u32 = 1000;

impl Settings {
    /// Reads the file's text.
    pub(in crate::daemon) fn parse(text: &str) -> Result<Self, TextError> {
        let FileText { receiver, deny } = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            TextError::at(text, start, error.message())
        })?;
        let mut names = BTreeSet::new();
        for (number, table) in receiver.iter().enumerate() {
            let route = table.get_ref();
            let twice = !names.insert(route.name.clone());
            let objection = route
                .objection()
                .or_else(|| twice.then(|| "another receiver has this name".to_owned()))
                .or_else(|| {
                    (number >= MAX_ROUTES).then(|| "there are 16 receivers at most".into())
                });
            objection.map_or(Ok(()), |why| Err(TextError::at(text, table.span().start, &why)))?;
        }
        for table in &deny {
            if !(1..=MAX_MINUTES).contains(&table.get_ref().minutes) {
                let why = "a quarantine lasts from 1 to 10080 minutes";
                return Err(TextError::at(text, table.span().start, why));
            }
            if !table.get_ref().except_exes.iter().all(|exe| exe.starts_with('/')) {
                let why = "except_exes has absolute paths";
                return Err(TextError::at(text, table.span().start, why));
            }
        }
        Ok(Self {
            routes: receiver.into_iter().map(Spanned::into_inner).collect(),
            denials: deny.into_iter().map(Spanned::into_inner).collect(),
        })
    }

    /// Tells whether a secret is the key of some receiver.
    pub(super) fn is_key(&self, name: &SecretName) -> bool {
        let mut receivers = self.routes.iter().map(|route| &route.to);
        receivers.any(|to| matches!(to, Receiver::Webhook(webhook) if webhook.key == *name))
    }

    /// Returns for how long a finding keeps its caller from everything, by the first rule that fits.
    pub(super) fn denial(&self, finding: &Finding) -> Option<Duration> {
        let fits = |denial: &&Denial| {
            (denial.kinds.is_empty() || denial.kinds.contains(&finding.kind))
                && reaches(finding.score, denial.min_score)
        };
        let denial = self.denials.iter().find(fits)?;
        let exe = finding.caller.exe.as_deref();
        let is_excepted = denial.except_uids.contains(&finding.caller.uid)
            || exe.is_some_and(|exe| denial.except_exes.iter().any(|excepted| excepted == exe));
        (!is_excepted).then(|| Duration::from_secs(u64::from(denial.minutes) * 60))
    }
}

impl Route {
    /// Returns how many messages go at once. By default alerts go a few at a time.
    pub(super) fn batch(&self) -> usize {
        let usual = match self.send {
            Send::Alerts => 50,
            Send::Log => 500,
        };
        self.batch.map_or(usual, |batch| usize::try_from(batch).unwrap_or(usual))
    }

    /// Returns the least time between two deliveries.
    pub(super) fn interval(&self) -> Duration {
        let most = self.max_per_minute.unwrap_or(match self.send {
            Send::Alerts => 60,
            // One a batch, as fast as they are taken.
            Send::Log => return Duration::ZERO,
        });
        Duration::from_secs(60) / most.max(1)
    }

    fn objection(&self) -> Option<String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_word) {
            return Some(
                "a receiver's name is up to 64 letters, digits, `-`, `_` and `.`".to_owned(),
            );
        }
        if self.batch.is_some_and(|batch| !(1..=MAX_BATCH).contains(&batch)) {
            return Some("batch is from 1 to 1000".to_owned());
        }
        if self.max_per_minute == Some(0) {
            return Some("max_per_minute is at least 1".to_owned());
        }
        self.to.objection()
    }
}

impl TextFormat {
    /// Returns it as an export has it; a sentence is none.
    pub(super) fn export(self) -> Option<Format> {
        match self {
            Self::Cef => Some(Format::Cef),
            Self::Json => Some(Format::Json),
            Self::Ocsf => Some(Format::Ocsf),
            Self::Text => None,
        }
    }
}

/// Tells whether a score is at least so many hundredths.
pub(super) fn reaches(score: f64, hundredths: u8) -> bool {
    score * 100.0 >= f64::from(hundredths) - 1e-6
}

fn hundredths<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let score = f64::deserialize(from)?;
    let near = |hundredths: &u8| (f64::from(*hundredths) / 100.0 - score).abs() < 0.005;
    let found = (0..=100).find(near);
    found.ok_or_else(|| serde::de::Error::custom("a score is a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSLOG: &str =
        "[[receiver]]\nname = \"siem\"\nto = { kind = \"syslog\", transport = \"unix\" }\n";

    #[test]
    fn what_is_not_said_is_the_usual_way() {
        let route = Settings::parse(SYSLOG).unwrap().routes.remove(0);
        assert_eq!(
            (route.send, route.format, route.min_score),
            (Send::Alerts, TextFormat::Json, 0)
        );
        assert_eq!((route.batch(), route.interval()), (50, Duration::from_secs(1)));
        let text = format!("{SYSLOG}[[deny]]\nminutes = 5\nmin_score = 0.7\n");
        assert_eq!(Settings::parse(&text).unwrap().denials[0].min_score, 70);
    }

    #[test]
    fn a_mistake_is_refused_with_its_place() {
        for (text, why) in [
            (format!("{SYSLOG}{SYSLOG}"), "line 4, column 1: another receiver has this name"),
            (
                SYSLOG.replace("siem", "a b"),
                "line 1, column 1: a receiver's name is up to 64 letters, digits, `-`, `_` and `.`",
            ),
            (SYSLOG.replace("unix", "tcp"), "line 1, column 1: the address is HOST or HOST:PORT"),
            (
                "[[deny]]\nminutes = 0\n".to_owned(),
                "line 1, column 1: a quarantine lasts from 1 to 10080 minutes",
            ),
            (
                "[[deny]]\nminutes = 5\nexcept_exes = [\"nginx\"]\n".to_owned(),
                "line 1, column 1: except_exes has absolute paths",
            ),
        ] {
            assert_eq!(Settings::parse(&text).unwrap_err().to_string(), why);
        }
        for (text, line) in [
            (format!("{SYSLOG}\nbatches = 3\n"), 5),
            (SYSLOG.replace("unix", "pigeon"), 3),
            ("[[deny]]\nminutes = 5\nmin_score = 2.0\n".to_owned(), 3),
            ("[[deny]]\nminutes = 5\nkinds = [\"bursts\"]\n".to_owned(), 3),
        ] {
            assert_eq!(Settings::parse(&text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_a_finding_says_how_long_its_caller_is_kept_out() {
        let settings = Settings::parse(
            "[[deny]]\nkinds = [\"decoy\"]\nminutes = 60\nexcept_uids = [7]\n\
             except_exes = [\"/usr/sbin/nginx\"]\n\
             [[deny]]\nmin_score = 0.9\nminutes = 5\n",
        )
        .unwrap();
        let finding_of = |kind: &str, score: f64, uid: u32, exe: &str| -> Finding {
            serde_json::from_value(serde_json::json!({
                "time": "2026-11-28T12:00:00Z", "kind": kind, "score": score, "secret": null,
                "caller": { "uid": uid, "exe": exe, "place": null }, "explanation": "", "lines": 1,
                "seqs": [1],
            }))
            .unwrap()
        };
        let finding = |kind: &str, score: f64, uid: u32| finding_of(kind, score, uid, "/bin/cat");
        let minutes = |finding| settings.denial(&finding).map(|span| span.as_secs() / 60);
        assert_eq!(minutes(finding("decoy", 1.0, 8)), Some(60));
        assert_eq!(minutes(finding("decoy", 1.0, 7)), None);
        assert_eq!(minutes(finding_of("decoy", 1.0, 8, "/usr/sbin/nginx")), None);
        assert_eq!(minutes(finding("walk", 0.9, 7)), Some(5));
        assert_eq!(minutes(finding("walk", 0.89, 7)), None);
    }
}
