//! What may be ordered: that which the administrator has written into `rotation.toml` and `injections.toml`,
//! and nothing else.
//!
//! The server that gives the orders reads what callers write. Whoever breaks into it must not have programs
//! run and files changed by the effector, which has more rights. So targets, commands, requests and notices
//! are looked for in the file itself, which the server cannot change. Where in the file one stands does not
//! matter here.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Value;

use super::step::invalid;
use super::{EffectError, Notice, Task, UnitAction, Verifier};

/// The files that say what may be ordered, and where the secrets are.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    pub rotation: PathBuf,
    pub injections: Option<PathBuf>,
    pub mountpoint: Option<PathBuf>,
    /// The configuration, with the services whose keys may be asked.
    pub keys: Option<PathBuf>,
}

impl Orders {
    /// Makes sure that a task is one of the administrator's.
    pub(super) fn check(&self, task: &Task) -> Result<(), EffectError> {
        let injections = || match &self.injections {
            Some(path) => Permit::load(path)?.check(task),
            None => Err(invalid("the effector has no list of injections")),
        };
        match task {
            Task::Place(_) | Task::TakeAway(_) => injections(),
            Task::Notify(_) if self.injections.as_ref().is_some_and(|path| path.exists()) => {
                Permit::load(&self.rotation)
                    .and_then(|permit| permit.check(task))
                    .or_else(|_| injections())
            }
            Task::Finish(_)
            | Task::Generate(_)
            | Task::Notify(_)
            | Task::Set(_)
            | Task::Undo(_)
            | Task::Verify { .. } => Permit::load(&self.rotation)?.check(task),
        }
    }
}

/// The configuration as it stands in the file.
#[derive(Debug)]
pub(super) struct Permit {
    path: PathBuf,
    content: Value,
}

impl Permit {
    /// Reads the file. Errors: somebody else than root and this process's user can write it.
    pub(super) fn load(path: &Path) -> Result<Self, EffectError> {
        let read = || {
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            let own = nix::unistd::geteuid().as_raw();
            if ![0, own].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
                return Err(io::Error::other("others than root can write it"));
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            toml::from_str(&text).map_err(io::Error::other)
        };
        let content = read().map_err(|error| invalid(&format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.into(), content })
    }

    /// Makes sure that a task is one of the administrator's.
    pub(super) fn check(&self, task: &Task) -> Result<(), EffectError> {
        let stands = match task {
            Task::Generate(command) => self.has(command),
            Task::Set(target) | Task::Finish(target) | Task::Undo(target) => self.has(target),
            Task::Verify { verifier, target } => {
                let verifier = match verifier {
                    Verifier::Login(_) | Verifier::ReadBack(_) | Verifier::SshKey(_) => true,
                    Verifier::Exec(_) | Verifier::Http(_) | Verifier::Tls(_) => self.has(verifier),
                };
                verifier && target.as_ref().is_none_or(|target| self.has(target))
            }
            Task::Notify(Notice::Unit(unit)) if unit.action == UnitAction::TryRestart => {
                self.restarts_holders() || self.has(&Notice::Unit(unit.clone()))
            }
            Task::Notify(notice) => self.has(notice),
            Task::Place(placement) | Task::TakeAway(placement) => self.has(placement),
        };
        if stands {
            return Ok(());
        }
        Err(invalid(&format!("{} does not have what is ordered", self.path.display())))
    }

    /// Tells whether units that hold an old value are to be restarted, whichever they are.
    fn restarts_holders(&self) -> bool {
        let tables = self.content.get("rotation").and_then(Value::as_array);
        let wanted = |table: &Value| table.get("restart_holders").and_then(Value::as_bool);
        tables.is_some_and(|tables| tables.iter().any(|table| wanted(table) == Some(true)))
    }

    fn has<T: DeserializeOwned + PartialEq>(&self, wanted: &T) -> bool {
        holds(&self.content, wanted)
    }
}

/// Tells whether a table in `value`, at whatever depth, means `wanted`.
fn holds<T: DeserializeOwned + PartialEq>(value: &Value, wanted: &T) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| holds(value, wanted)),
        Value::Table(table) => {
            let is = |table: toml::Table| table.try_into().is_ok_and(|found: T| found == *wanted);
            // A generator's table is a command's with a kind.
            let mut bare = table.clone();
            let kind = bare.remove("kind");
            is(table.clone())
                || (kind.is_some() && is(bare))
                || table.values().any(|value| holds(value, wanted))
        }
        Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Float(_)
        | Value::Integer(_)
        | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::effect::{Command, Target, Unit};

    const FILE: &str = r#"
        [[secret]]
        names = ["db/**"]
        generator = { kind = "exec", argv = ["/usr/bin/make-key", "x"] }
        [secret.target]
        kind = "redis"
        address = "/run/redis.sock"
        user = "app"
        [[secret.notify]]
        kind = "command"
        argv = ["/usr/bin/tell"]
        user = "daemon"
    "#;

    fn permit(text: &str, mode: u32) -> Result<Permit, EffectError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rotation.toml");
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Permit::load(&path)
    }

    #[test]
    fn what_stands_in_the_file_may_be_ordered_and_what_differs_may_not() {
        let permit = permit(FILE, 0o644).unwrap();
        let target = |user: &str| -> Target {
            let text =
                format!("user = \"{user}\"\nkind = \"redis\"\naddress = \"/run/redis.sock\"");
            toml::from_str(&text).unwrap()
        };
        permit.check(&Task::Set(target("app"))).unwrap();
        assert!(permit.check(&Task::Undo(target("default"))).is_err());
        let command = |text: &str| -> Command { toml::from_str(text).unwrap() };
        let made = command("argv = [\"/usr/bin/make-key\", \"x\"]");
        permit.check(&Task::Generate(made)).unwrap();
        let other = command("argv = [\"/usr/bin/make-key\"]");
        assert!(permit.check(&Task::Generate(other)).is_err());
        let tell = "argv = [\"/usr/bin/tell\"]";
        let as_root = Task::Notify(Notice::Command(command(tell)));
        assert!(permit.check(&as_root).is_err());
        let as_daemon = Notice::Command(command(&format!("{tell}\nuser = \"daemon\"")));
        permit.check(&Task::Notify(as_daemon)).unwrap();
        let login = toml::from_str("kind = \"login\"").unwrap();
        permit.check(&Task::Verify { verifier: login, target: Some(target("app")) }).unwrap();
    }

    #[test]
    fn files_are_placed_as_the_list_says_and_not_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("injections.toml");
        let file = "secret = \"a\"\npath = \"/run/a\"\nkind = \"copy\"\n";
        write!(fs::File::create(&path).unwrap(), "[[file]]\n{file}").unwrap();
        let orders = |injections| Orders { injections, ..Orders::default() };
        let placed = |text: &str| Task::Place(toml::from_str(text).unwrap());
        orders(Some(path.clone())).check(&placed(file)).unwrap();
        for (from, to) in [("\"a\"", "\"b\""), ("/run/a", "/run/b"), ("copy", "link")] {
            let other = placed(&file.replace(from, to));
            assert!(orders(Some(path.clone())).check(&other).is_err(), "{to}");
        }
        assert!(orders(None).check(&placed(file)).is_err());
    }

    #[test]
    fn any_unit_is_restarted_only_where_those_are_that_hold_an_old_value() {
        let unit = Unit::new("web.service".into(), UnitAction::TryRestart).unwrap();
        let restart = Task::Notify(Notice::Unit(unit));
        assert!(permit(FILE, 0o644).unwrap().check(&restart).is_err());
        let file = "[[rotation]]\nnames = [\"a\"]\nrestart_holders = true\n";
        let permit = permit(file, 0o644).unwrap();
        permit.check(&restart).unwrap();
        let unit = Unit::new("web.service".into(), UnitAction::Restart).unwrap();
        assert!(permit.check(&Task::Notify(Notice::Unit(unit))).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_permits_nothing() {
        assert!(permit(FILE, 0o664).is_err() && permit(FILE, 0o602).is_err());
        assert!(permit("= 1", 0o600).is_err());
        assert!(Permit::load(Path::new("/nonexistent")).is_err());
    }
}
