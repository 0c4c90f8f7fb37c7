//! A program that an administrator has named in `rotation.toml`.

use serde::{Deserialize, Serialize};

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
