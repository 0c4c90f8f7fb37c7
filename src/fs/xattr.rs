//! The extended attributes: one table says what can be read, what can be set and what it shows.

use super::error::{FsError, Result};
use crate::broker::Description;
use crate::inject::variable_of;
use crate::model::{Level, SecretName, Timestamp};

const PREFIX: &str = "user.secretfs.";

/// Longest value that is passed on to be set, in bytes.
pub(super) const MAX_VALUE: usize = 4096;

/// Which live processes hold which version: no fact of the secret's own, so it is not in the table.
pub(super) const HOLDERS: &str = "user.secretfs.holders";

/// One attribute.
#[derive(Debug)]
pub(super) struct Attribute {
    /// Without the prefix.
    pub(super) name: &'static str,
    pub(super) settable: bool,
    /// Returns the value, or `None` where the secret has none.
    text: Text,
}

/// Every attribute, in the order in which they are listed.
static ATTRIBUTES: [Attribute; 24] = [
    shown("created", |_, d, _| Some(d.metadata.created.to_string())),
    shown("created_by", |_, d, _| Some(d.metadata.created_by.to_string())),
    shown("days_remaining", |_, d, now| {
        let seconds = d.metadata.expires?.as_second() - now.as_second();
        Some(seconds.div_euclid(24 * 3600).to_string())
    }),
    // To whoever may change it alone: a decoy that can be told from a secret is none.
    set("decoy", |_, d, _| {
        (d.metadata.decoy && d.secret.levels.allow(Level::Admin)).then(|| "yes".to_owned())
    }),
    set("description", |_, d, _| d.metadata.description.as_deref().map(str::to_owned)),
    set("env_name", |name, d, _| {
        Some(variable_of(d.metadata.injection.env_name.as_ref(), name.as_str()))
    }),
    set("environment", |_, d, _| d.metadata.attributes.environment.as_deref().map(str::to_owned)),
    set("expires", |_, d, _| d.metadata.expires.map(|time| time.to_string())),
    shown("fingerprint", |_, d, _| Some(d.fingerprint.clone())),
    set("group", |_, d, _| d.metadata.group.map(|gid| gid.to_string())),
    shown("id", |_, d, _| Some(d.secret.id.to_string())),
    shown("last_rotated", |_, d, _| d.metadata.last_rotated.map(|time| time.to_string())),
    set("mode", |_, d, _| d.metadata.mode.map(|mode| format!("{mode:04o}"))),
    shown("modified", |_, d, _| Some(d.metadata.modified.to_string())),
    set("oneiric_path", |_, d, _| {
        d.metadata.injection.oneiric_path.as_ref().map(ToString::to_string)
    }),
    set("owner", |_, d, _| d.metadata.owner.map(|uid| uid.to_string())),
    set("owner_contact", |_, d, _| d.metadata.owner_contact.as_deref().map(str::to_owned)),
    set("rotation_days", |_, d, _| d.metadata.rotation_days.map(|days| days.to_string())),
    set("service", |_, d, _| d.metadata.attributes.service.as_deref().map(str::to_owned)),
    shown("stale_seconds", |_, d, _| d.stale.map(|stale| stale.as_secs().to_string())),
    set("status", |_, d, _| Some(d.secret.status.as_str().to_owned())),
    set("tags", |_, d, _| {
        let tags = &d.metadata.attributes.tags;
        (!tags.is_empty()).then(|| tags.join(","))
    }),
    set("type", |_, d, _| Some(d.secret.secret_type.to_string())),
    shown("version", |_, d, _| Some(d.secret.version.to_string())),
];

/// From the secret's name, its description and the time.
type Text = fn(&SecretName, &Description, Timestamp) -> Option<String>;

const fn set(name: &'static str, text: Text) -> Attribute {
    Attribute { name, settable: true, text }
}

const fn shown(name: &'static str, text: Text) -> Attribute {
    Attribute { name, settable: false, text }
}

impl Attribute {
    /// Finds an attribute by its full name. Errors: `NoAttribute` for an unknown one, `Unsupported`
    /// for one of another namespace than `user.`.
    pub(super) fn find(full_name: &[u8]) -> Result<&'static Self> {
        let full_name = std::str::from_utf8(full_name).map_err(|_| FsError::NoAttribute)?;
        if !full_name.starts_with("user.") {
            return Err(FsError::Unsupported);
        }
        let name = full_name.strip_prefix(PREFIX).ok_or(FsError::NoAttribute)?;
        ATTRIBUTES.iter().find(|known| known.name == name).ok_or(FsError::NoAttribute)
    }

    /// Returns its value for a secret.
    pub(super) fn value(
        &self,
        name: &SecretName,
        of: &Description,
        now: Timestamp,
    ) -> Option<String> {
        (self.text)(name, of, now)
    }
}

/// Returns the full names of the attributes that a secret has, each with its NUL.
pub(super) fn names(name: &SecretName, of: &Description, now: Timestamp) -> Vec<u8> {
    let present = ATTRIBUTES.iter().filter(|known| known.value(name, of, now).is_some());
    present.flat_map(|attribute| format!("{PREFIX}{}\0", attribute.name).into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_in_its_namespace_alone() {
        assert_eq!(Attribute::find(b"user.secretfs.type").unwrap().name, "type");
        assert!(matches!(Attribute::find(b"user.secretfs.nothing"), Err(FsError::NoAttribute)));
        assert!(matches!(Attribute::find(b"user.mime_type"), Err(FsError::NoAttribute)));
        for other in ["security.capability", "system.posix_acl_access", "trusted.x", "type"] {
            assert!(matches!(Attribute::find(other.as_bytes()), Err(FsError::Unsupported)));
        }
    }

    #[test]
    fn what_the_store_alone_knows_cannot_be_set() {
        for name in ["id", "version", "created", "modified", "created_by", "fingerprint"] {
            let full = format!("{PREFIX}{name}");
            assert!(!Attribute::find(full.as_bytes()).unwrap().settable, "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_so_that_no_name_stands_in_it_twice() {
        assert!(ATTRIBUTES.is_sorted_by(|a, b| a.name < b.name));
    }
}
