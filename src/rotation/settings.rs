//! `rotation.toml`: which secrets are rotated, when, how their values are made, where they are used, how
//! they are proven and who is told.
//!
//! The first table that selects a secret is its plan. A secret that none selects is rotated on demand
//! alone, with what its type suggests.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

use super::outcome::StepName;
use super::rotator::{Options, ValueFrom};
use super::run::PATIENCE;
use crate::effect::{Command, Nothing, Notice, Target, Verifier};
use crate::generate::Generator;
use crate::model::{Attributes, Pattern, SecretName, SecretType, TextError};
use crate::schedule::Timetable;

/// The plans in the order of the file.
#[derive(Debug, Default)]
pub struct Settings {
    plans: Vec<(Selection, Plan)>,
}

/// Which secrets a plan is for. Selectors of different kinds must all fit; within one any does.
#[derive(Debug)]
struct Selection {
    names: Vec<Pattern>,
    types: Vec<SecretType>,
    services: Vec<Box<str>>,
    environments: Vec<Box<str>>,
    tags: Vec<Box<str>>,
}

/// How a secret is rotated.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) schedule: Option<Timetable>,
    maker: Option<Maker>,
    pub(super) target: Option<Target>,
    pub(super) verify: Option<Verifier>,
    pub(super) notify: Vec<Notice>,
    pub(super) wait_adopted: Duration,
    pub(super) restart_holders: bool,
    /// For each step outside.
    pub(super) timeout: Duration,
}

/// What makes new values.
#[derive(Clone, Debug)]
pub(super) enum Maker {
    Generator(Generator),
    Program(Command),
}

impl Settings {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let file: FileText = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            TextError::at(text, start, error.message())
        })?;
        let plans = file.rotation.into_iter().map(|table| {
            let start = table.span().start;
            let table = table.into_inner();
            table.checked().map_err(|message| TextError::at(text, start, &message))
        });
        Ok(Self { plans: plans.collect::<Result<_, _>>()? })
    }

    /// Returns the plan for a secret.
    pub(super) fn plan(&self, name: &SecretName, attributes: &Attributes) -> Option<&Plan> {
        let found = self.plans.iter().find(|(selection, _)| selection.selects(name, attributes));
        found.map(|(_, plan)| plan)
    }

    /// Tells whether any plan has a schedule.
    pub(super) fn has_schedules(&self) -> bool {
        self.plans.iter().any(|(_, plan)| plan.schedule.is_some())
    }
}

impl Selection {
    fn selects(&self, name: &SecretName, attributes: &Attributes) -> bool {
        let any = |list: &[Box<str>], value: &Option<Box<str>>| {
            list.is_empty() || value.as_ref().is_some_and(|value| list.contains(value))
        };
        (self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(name)))
            && (self.types.is_empty() || self.types.contains(&attributes.secret_type))
            && any(&self.services, &attributes.service)
            && any(&self.environments, &attributes.environment)
            && (self.tags.is_empty() || self.tags.iter().any(|tag| attributes.tags.contains(tag)))
    }
}

impl Plan {
    /// Returns what makes a value for a secret of this type, or says why there is nothing.
    pub(super) fn maker(&self, secret_type: SecretType) -> Result<Cow<'_, Maker>, String> {
        if let Some(maker) = &self.maker {
            return Ok(Cow::Borrowed(maker));
        }
        let default =
            Generator::default_for(secret_type).map(|made| Cow::Owned(Maker::Generator(made)));
        default.ok_or_else(|| {
            format!(
                "a secret of type {} is rotated only if rotation.toml has a `generate` for it, or if \
                 the new value is given",
                secret_type.as_str()
            )
        })
    }

    /// Returns how a staged value is proven to work.
    pub(super) fn verifier(&self) -> Verifier {
        match (&self.verify, &self.target) {
            (Some(verifier), _) => verifier.clone(),
            (None, Some(_)) => Verifier::Login(Nothing {}),
            (None, None) => Verifier::ReadBack(Nothing {}),
        }
    }

    /// Says what a rotation would do, a line for each step.
    pub(super) fn describe(
        &self,
        secret_type: SecretType,
        options: &Options,
    ) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        let mut line =
            |step: StepName, what: &str| lines.push(format!("{}: {what}", step.as_str()));
        match options.value {
            ValueFrom::Pending => line(StepName::Generate, "nothing, the staged value is taken"),
            ValueFrom::Generated => match &*self.maker(secret_type)? {
                Maker::Generator(generator) => line(StepName::Generate, kind(generator)),
                Maker::Program(command) => line(StepName::Generate, command.argv.program()),
            },
        }
        if let Some(target) = &self.target {
            line(StepName::Stage, "the new value, which no reader sees");
            line(StepName::Set, &format!("the new value at {}", target.kind()));
        }
        let verifier = self.verifier();
        match (options.verify, &self.target, &self.verify) {
            (false, ..) => line(StepName::Verify, "nothing, as asked"),
            (true, None, None) => line(StepName::Verify, "nothing, for nothing says how"),
            (true, ..) => line(StepName::Verify, verifier.kind()),
        }
        line(StepName::Switch, "readers to the new value");
        for notice in &self.notify {
            line(StepName::Notify, notice.kind());
        }
        let wait = options.wait_adopted.unwrap_or(self.wait_adopted);
        if wait > Duration::ZERO {
            line(
                StepName::Adopt,
                &format!("wait up to {} s for who holds the old value", wait.as_secs()),
            );
        }
        if self.restart_holders {
            line(StepName::Adopt, "restart the units of those that still hold it");
        }
        if let Some(target) = &self.target {
            line(StepName::Retire, &format!("the old value at {}", target.kind()));
        }
        Ok(lines)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            schedule: None,
            maker: None,
            target: None,
            verify: None,
            notify: Vec::new(),
            wait_adopted: Duration::ZERO,
            restart_holders: false,
            timeout: PATIENCE,
        }
    }
}

impl Maker {
    /// Tells whether it starts from the current value.
    pub(super) fn needs_current(&self) -> bool {
        match self {
            Self::Generator(generator) => {
                matches!(generator, Generator::Json(_) | Generator::Password(_) | Generator::Url(_))
            }
            Self::Program(_) => true,
        }
    }
}

/// Returns the word for a generator in configuration and results.
pub(super) fn kind(generator: &Generator) -> &'static str {
    match generator {
        Generator::ApiKey { .. } => "api_key",
        Generator::Hmac { .. } => "hmac",
        Generator::Json(_) => "json",
        Generator::Password(_) => "password",
        Generator::Prefixed { .. } => "prefixed",
        Generator::Raw { .. } => "raw",
        Generator::Ssh(_) => "ssh",
        Generator::Tls(_) => "tls",
        Generator::Url(_) => "url",
        Generator::Uuid {} => "uuid",
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    rotation: Vec<toml::Spanned<TableText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableText {
    #[serde(default)]
    names: Vec<Pattern>,
    #[serde(default)]
    types: Vec<SecretType>,
    #[serde(default)]
    services: Vec<Box<str>>,
    #[serde(default)]
    environments: Vec<Box<str>>,
    #[serde(default)]
    tags: Vec<Box<str>>,
    schedule: Option<Timetable>,
    generate: Option<MakerText>,
    target: Option<Target>,
    verify: Option<Verifier>,
    #[serde(default)]
    notify: Vec<Notice>,
    wait_adopted_seconds: Option<u32>,
    #[serde(default)]
    restart_holders: bool,
    timeout_seconds: Option<u32>,
}

/// `kind = "exec"` is a program; every other kind is a generator.
#[derive(Deserialize)]
#[serde(try_from = "toml::Table")]
struct MakerText(Maker);

impl TryFrom<toml::Table> for MakerText {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let is_program = table.get("kind").and_then(toml::Value::as_str) == Some("exec");
        let maker = if is_program {
            table.remove("kind");
            table.try_into().map(Maker::Program)
        } else {
            table.try_into().map(Maker::Generator)
        };
        maker.map(Self).map_err(|error| error.message().to_owned())
    }
}

/// How long an old value stays valid for those that hold it, where it can and nothing else is said.
const ADOPTION: Duration = Duration::from_secs(60);

/// The longest that a step may take.
const LONGEST_TIMEOUT: u32 = 3600;

impl TableText {
    fn checked(self) -> Result<(Selection, Plan), String> {
        let Self { names, types, services, environments, tags, .. } = self;
        let selection = Selection { names, types, services, environments, tags };
        if selection.is_empty() {
            return Err("a rotation must say which secrets: use names, types, services, environments or tags".into());
        }
        let timeout =
            self.timeout_seconds.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.into()));
        if timeout.is_zero() || timeout > Duration::from_secs(LONGEST_TIMEOUT.into()) {
            return Err(format!("timeout_seconds is 1 to {LONGEST_TIMEOUT}"));
        }
        if matches!(self.verify, Some(Verifier::Login(_))) && self.target.is_none() {
            return Err("verify by login needs a target to log in to".into());
        }
        let holds_two = self.target.as_ref().is_some_and(Target::holds_two);
        let unless_said = if holds_two { ADOPTION } else { Duration::ZERO };
        let plan = Plan {
            schedule: self.schedule,
            maker: self.generate.map(|text| text.0),
            target: self.target,
            verify: self.verify,
            notify: self.notify,
            wait_adopted: self
                .wait_adopted_seconds
                .map_or(unless_said, |seconds| Duration::from_secs(seconds.into())),
            restart_holders: self.restart_holders,
            timeout,
        };
        Ok((selection, plan))
    }
}

impl Selection {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.types.is_empty()
            && self.services.is_empty()
            && self.environments.is_empty()
            && self.tags.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(secret_type: SecretType) -> Attributes {
        Attributes { secret_type, tags: vec!["auto".into()], ..Attributes::default() }
    }

    #[test]
    fn the_first_table_that_selects_a_secret_is_its_plan() {
        let settings = Settings::parse(
            r#"
            [[rotation]]
            names = ["prod/*"]
            tags = ["auto"]
            generate = { kind = "password", length = 40 }
            [[rotation]]
            types = ["api_key"]
            wait_adopted_seconds = 5
            "#,
        )
        .unwrap();
        let plan = |name: &str, of| settings.plan(&name.parse().unwrap(), &attributes(of));
        assert!(plan("prod/a", SecretType::ApiKey).unwrap().maker.is_some());
        let second = plan("dev/a", SecretType::ApiKey).unwrap();
        assert_eq!(second.wait_adopted, Duration::from_secs(5));
        assert!(plan("dev/a", SecretType::SshKey).is_none());
    }

    #[test]
    fn a_bad_file_is_refused_with_the_place_and_what_was_expected() {
        for (text, line, said) in [
            ("[[rotation]]\nname = []\n", 2, "unknown field `name`"),
            ("[[rotation]]\nnames = [\"a//b\"]\n", 2, "empty segment"),
            ("[[rotation]]\nrestart_holders = true\n", 1, "which secrets"),
            ("[[rotation]]\nnames = [\"a\"]\ntimeout_seconds = 0\n", 1, "1 to 3600"),
            ("[[rotation]]\nnames = [\"a\"]\nverify = { kind = \"login\" }\n", 1, "needs a target"),
            ("[[rotation]]\nnames = [\"a\"]\ngenerate = { kind = \"magic\" }\n", 3, "magic"),
            ("[[rotation]]\nnames = [\"a\"]\ntarget = { kind = \"postgresql\" }\n", 3, "address"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_used_by_chance_is_not_made_by_chance() {
        for of in [SecretType::SshKey, SecretType::TlsCertificate, SecretType::EncryptionKey] {
            assert!(Plan::default().maker(of).unwrap_err().contains("generate"));
        }
        assert!(Plan::default().maker(SecretType::ApiKey).is_ok());
    }
}
