//! A program that an administrator has named in `rotation.toml`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::run::Run;
use super::step::{Outcome, Step};
use super::{EffectError, Report};
use crate::system::SecretBytes;

/// What is run, as whom, and for how long.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub argv: Argv,
    /// Whose rights it has; without one, the effector's.
    pub user: Option<String>,
    /// Shorter than the step's own time.
    pub timeout_seconds: Option<u64>,
}

impl Command {
    /// Returns how long it may take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.map(Duration::from_secs)
    }

    /// Runs it for a new value, which is what it prints without the newline at the end.
    pub(super) fn generate(&self, step: &Step<'_>) -> Result<Report, EffectError> {
        let run = Run { current: step.values.current.as_ref(), ..Run::of(self) };
        let printed = run.for_value(step)?;
        let printed = printed.expose();
        let value = printed.strip_suffix(b"\n").unwrap_or(printed);
        if value.is_empty() {
            return Err(EffectError::Refused("the program printed no value".to_owned()));
        }
        let value = SecretBytes::copy_from(value)
            .map_err(|error| EffectError::Invalid(error.to_string()))?;
        Ok(Report { note: format!("{} made a value", self.argv.program), value: Some(value) })
    }

    /// Runs it to tell a consumer; it is given no value.
    pub(super) fn tell(&self, step: &Step<'_>) -> Outcome {
        Run::of(self).to_the_end(step)
    }

    /// Runs it with the values of an order and the word for what to do.
    pub(super) fn with_values(&self, verb: &'static str, step: &Step<'_>) -> Outcome {
        let values = step.values;
        let run = Run {
            verb: Some(verb),
            current: values.current.as_ref(),
            new: values.new.as_ref(),
            admin: values.admin.as_ref(),
            ..Run::of(self)
        };
        run.to_the_end(step)
    }
}

/// A program by its absolute path, and its arguments.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Argv {
    program: String,
    arguments: Vec<String>,
}

impl Argv {
    /// Returns the program's path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Returns what comes behind it.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl TryFrom<Vec<String>> for Argv {
    type Error = &'static str;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        let mut words = words.into_iter();
        // No path is searched: who could write to a directory on it could run a program as the effector.
        let program = words.next().filter(|program| program.starts_with('/'));
        let program = program.ok_or("argv begins with the absolute path of a program")?;
        let arguments: Vec<String> = words.collect();
        if arguments.iter().chain([&program]).any(|word| word.contains('\0')) {
            return Err("a word of argv has a zero byte");
        }
        Ok(Self { program, arguments })
    }
}

impl From<Argv> for Vec<String> {
    fn from(argv: Argv) -> Self {
        let mut words = vec![argv.program];
        words.extend(argv.arguments);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_its_absolute_path() {
        let parse = |text: &str| toml::from_str::<Command>(text);
        let command = parse("argv = [\"/bin/true\", \"x\"]\nuser = \"daemon\"").unwrap();
        assert_eq!(
            (command.argv.program(), command.argv.arguments()),
            ("/bin/true", &["x".into()][..])
        );
        for bad in [
            "argv = []",
            "argv = [\"true\"]",
            "argv = [\"/a\\u0000\"]",
            "argv = \"/a\"",
            "argv = [\"/a\"]\nshell = 1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
