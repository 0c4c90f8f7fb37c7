//! Metadata that users set, one attribute at a time.

use std::str::FromStr;

use super::change::find;
use super::gate::Asked;
use super::rotation::check_idle;
use super::write::note;
use super::writer::Company;
use super::{Broker, BrokerError, Result};
use crate::audit::Action;
use crate::model::{
    Caller, Gid, InjectionError, Level, Metadata, SecretName, Status, Timestamp, Uid, Version,
};

/// An attribute that users may set.
struct Settable {
    name: &'static str,
    level: Level,
    /// Sets it from a text, or clears it. An error says what was expected.
    set: fn(&mut Metadata, Option<&str>) -> std::result::Result<(), String>,
}

/// Every attribute that users may set. Those that decide who may read, or as whose the file is
/// shown, are an admin's: a writer must not be able to widen access by a tag. So is what programs know
/// it by: as `LD_PRELOAD` a value would run in whatever gets it.
const SETTABLE: [Settable; 15] = [
    Settable { name: "decoy", level: Level::Admin, set: |m, v| yes(v).map(|v| m.decoy = v) },
    Settable {
        name: "description",
        level: Level::Write,
        set: |m, v| line(v).map(|v| m.description = v),
    },
    Settable {
        name: "env_name",
        level: Level::Admin,
        set: |m, v| parsed(v).map(|v| m.injection.env_name = v),
    },
    Settable {
        name: "environment",
        level: Level::Admin,
        set: |m, v| word(v).map(|v| m.attributes.environment = v),
    },
    Settable { name: "expires", level: Level::Write, set: |m, v| time(v).map(|v| m.expires = v) },
    Settable {
        name: "group",
        level: Level::Admin,
        set: |m, v| number(v).map(|v| m.group = v.map(Gid)),
    },
    Settable { name: "mode", level: Level::Admin, set: |m, v| mode(v).map(|v| m.mode = v) },
    Settable {
        name: "oneiric_path",
        level: Level::Admin,
        set: |m, v| parsed(v).map(|v| m.injection.oneiric_path = v),
    },
    Settable {
        name: "owner",
        level: Level::Admin,
        set: |m, v| number(v).map(|v| m.owner = v.map(Uid)),
    },
    Settable {
        name: "owner_contact",
        level: Level::Write,
        set: |m, v| line(v).map(|v| m.owner_contact = v),
    },
    Settable {
        name: "rotation_days",
        level: Level::Write,
        set: |m, v| number(v).map(|v| m.rotation_days = v),
    },
    Settable {
        name: "service",
        level: Level::Admin,
        set: |m, v| word(v).map(|v| m.attributes.service = v),
    },
    Settable { name: "status", level: Level::Admin, set: |m, v| status(v).map(|v| m.status = v) },
    Settable {
        name: "tags",
        level: Level::Admin,
        set: |m, v| tags(v).map(|v| m.attributes.tags = v),
    },
    Settable {
        name: "type",
        level: Level::Admin,
        set: |m, v| secret_type(v).map(|v| m.attributes.secret_type = v),
    },
];

/// Longest text of an attribute, in bytes.
const MAX_TEXT: usize = 4096;

/// Looks into texts that everybody may see who may know of a secret: they must not hold one.
pub trait Inspect: Send + Sync {
    /// Objects to a text by saying what is wrong with it and where, without quoting it.
    fn inspect(&self, what: &str, text: &str) -> std::result::Result<(), String>;
}

impl Broker {
    /// Has metadata looked into before it is stored, from now on. Only the first one to come counts.
    pub fn inspect_with(&self, inspector: Box<dyn Inspect>) {
        // It is one daemon's, which calls this once.
        drop(self.inner.inspector.set(inspector));
    }

    /// Sets (or with `None` clears) one piece of metadata, by its attribute's name without the
    /// `user.secretfs.` prefix. `Invalid` for a bad value or an attribute that users cannot set.
    pub fn set_attribute(
        &self,
        caller: &Caller,
        name: &SecretName,
        attribute: &str,
        value: Option<&str>,
    ) -> Result<()> {
        let Some(settable) = SETTABLE.iter().find(|settable| settable.name == attribute) else {
            return Err(BrokerError::Invalid(format!("the attribute {attribute} cannot be set")));
        };
        if self.done(caller, Action::SetAttribute).is_some() {
            return Ok(());
        }
        // Here, where nobody else's change waits for it.
        let objection = self.objection(settable.name, value);
        let (caller, name, value) = (caller.clone(), name.clone(), value.map(str::to_owned));
        let revoked = self.inner.submit(Company::Shared, move |batch| {
            let asked = Asked { action: Action::SetAttribute, name: &name, version: None };
            let gate = &batch.inner.gate;
            let (id, mut record, grant) = find(batch, &caller, settable.level, asked)?;
            if let Err(expected) = (settable.set)(&mut record.metadata, value.as_deref()) {
                let err = BrokerError::Invalid(format!("{}: {expected}", settable.name));
                return Err(gate.failed(&caller, asked, err));
            }
            if let Some(objection) = objection {
                let err = BrokerError::Invalid(format!("{}: {objection}", settable.name));
                return Err(gate.failed(&caller, asked, err));
            }
            if record.metadata.status == Status::Active && settable.name == "status" {
                // What is being rotated cannot be made active by hand; to revoke it is no question of when.
                check_idle(batch, id, &name).map_err(|err| gate.failed(&caller, asked, err))?;
            }
            let revoked = record.metadata.status == Status::Revoked;
            let version = record.history.current().map_or(Version::FIRST, |entry| entry.version);
            note(batch, &caller, Action::SetAttribute, &name, version, &grant);
            batch.put_secret(id, record)?;
            Ok(revoked.then_some(id))
        })?;
        if let Some(id) = revoked {
            self.inner.revoke_hooks.lock().iter().for_each(|run| run(id));
        }
        Ok(())
    }

    fn objection(&self, attribute: &str, value: Option<&str>) -> Option<String> {
        let text = value.filter(|value| value.len() <= MAX_TEXT)?;
        self.inner.inspector.get()?.inspect(attribute, text).err()
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn line(value: Option<&str>) -> Parsed<Option<Box<str>>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(format!("expected one line of at most {MAX_TEXT} bytes"));
    }
    Ok(Some(value.into()))
}

fn yes(value: Option<&str>) -> Parsed<bool> {
    match value.unwrap_or("no") {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("expected yes or no".into()),
    }
}

fn word(value: Option<&str>) -> Parsed<Option<Box<str>>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() > 255 || value.starts_with('.') || !value.chars().all(allowed) {
        return Err("expected a word of A-Z a-z 0-9 . _ -".into());
    }
    Ok(Some(value.into()))
}

fn tags(value: Option<&str>) -> Parsed<Vec<Box<str>>> {
    let words = value.unwrap_or_default().split(',').map(str::trim);
    let mut tags: Vec<Box<str>> =
        words.filter_map(|tag| word(Some(tag)).transpose()).collect::<Parsed<_>>()?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

fn parsed<T: FromStr<Err = InjectionError>>(value: Option<&str>) -> Parsed<Option<T>> {
    let value = value.filter(|value| !value.is_empty());
    value.map(str::parse).transpose().map_err(|err: InjectionError| err.to_string())
}

fn number(value: Option<&str>) -> Parsed<Option<u32>> {
    let value = value.filter(|value| !value.is_empty());
    value.map(str::parse).transpose().map_err(|_| "expected a number".into())
}

fn mode(value: Option<&str>) -> Parsed<Option<u16>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    match u16::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o777 => Ok(Some(mode)),
        _ => Err("expected permission bits in octal, at most 777".into()),
    }
}

fn time(value: Option<&str>) -> Parsed<Option<Timestamp>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    // A day alone means its beginning in UTC.
    let time = value.parse().or_else(|_| format!("{value}T00:00:00Z").parse());
    time.map(Some).map_err(|_| "expected a time such as 2027-01-31 or 2027-01-31T12:00:00Z".into())
}

fn status(value: Option<&str>) -> Parsed<Status> {
    match value.unwrap_or("active") {
        "active" => Ok(Status::Active),
        "revoked" => Ok(Status::Revoked),
        _ => Err("expected active or revoked; the other statuses are not set by hand".into()),
    }
}

fn secret_type(value: Option<&str>) -> Parsed<crate::model::SecretType> {
    value.unwrap_or_default().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_unique_and_odd_characters_refused() {
        let expected: Vec<Box<str>> = vec!["a".into(), "b".into()];
        assert_eq!(tags(Some("b, a,,b")), Ok(expected));
        assert!(tags(Some("a/b")).is_err());
    }

    #[test]
    fn a_day_is_a_time_and_nonsense_is_none() {
        assert_eq!(time(Some("2027-01-31")).unwrap().unwrap().to_string(), "2027-01-31T00:00:00Z");
        assert!(time(Some("tomorrow")).is_err());
        assert_eq!(time(Some("")), Ok(None));
    }

    #[test]
    fn a_mode_is_octal_and_has_no_special_bits() {
        assert_eq!(mode(Some("640")), Ok(Some(0o640)));
        assert!(mode(Some("4755")).is_err());
        assert!(mode(Some("9")).is_err());
    }
}
