//! `.by/FACET/VALUE/NAME`: symlinks to the secrets, grouped by what is known of them.
//!
//! A name's slashes are shown as colons, which no name can hold, so each link has one meaning.

use crate::broker::Facet;
use crate::model::SecretName;

/// A place below `.by`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum By {
    /// `.by`.
    Facets,
    /// `.by/FACET/VALUE/NAME`.
    Link { facet: Facet, value: Box<str>, name: SecretName },
    /// `.by/FACET/VALUE`.
    Members { facet: Facet, value: Box<str> },
    /// `.by/FACET`.
    Values(Facet),
}

/// The facets and their directories, in the order in which they are listed.
pub(super) const FACETS: [(Facet, &str); 5] = [
    (Facet::Environment, "environment"),
    (Facet::Service, "service"),
    (Facet::Status, "status"),
    (Facet::Tag, "tag"),
    (Facet::Type, "type"),
];

impl By {
    /// Returns what `name` means in this directory.
    pub(super) fn child(&self, name: &str) -> Option<Self> {
        match self {
            Self::Facets => {
                let (facet, _) = FACETS.into_iter().find(|(_, word)| *word == name)?;
                Some(Self::Values(facet))
            }
            Self::Link { .. } => None,
            Self::Members { facet, value } => {
                let name = parse_flat(name)?;
                Some(Self::Link { facet: *facet, value: value.clone(), name })
            }
            Self::Values(facet) => {
                is_entry_name(name).then(|| Self::Members { facet: *facet, value: name.into() })
            }
        }
    }

    /// Returns the path from the root, as it is hashed into an inode number.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Facets => ".by".into(),
            Self::Link { facet, value, name } => {
                format!(".by/{}/{value}/{}", word(*facet), flat(name))
            }
            Self::Members { facet, value } => format!(".by/{}/{value}", word(*facet)),
            Self::Values(facet) => format!(".by/{}", word(*facet)),
        }
    }
}

/// Tells whether a value can be the name of a directory; one that cannot is not listed.
pub(super) fn is_entry_name(value: &str) -> bool {
    !matches!(value, "" | "." | "..") && value.len() <= 255 && !value.contains(['/', '\0'])
}

/// Returns what the link of a secret holds: three directories up, then down to the secret.
pub(super) fn link_target(name: &SecretName) -> String {
    format!("../../../{name}")
}

/// Shows a name as one entry, with colons for slashes.
pub(super) fn flat(name: &SecretName) -> String {
    name.as_str().replace('/', ":")
}

/// Reads a name from one entry.
pub(super) fn parse_flat(entry: &str) -> Option<SecretName> {
    // A slash cannot come from the kernel; were it let through, two entries would mean one name.
    if entry.contains('/') {
        return None;
    }
    entry.replace(':', "/").parse().ok()
}

fn word(facet: Facet) -> &'static str {
    FACETS.into_iter().find(|(known, _)| *known == facet).map_or("", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_by_facet_value_and_flattened_name() {
        let members = By::Facets.child("tag").unwrap().child("web").unwrap();
        let link = members.child("prod:db:password").unwrap();
        assert_eq!(link.path(), ".by/tag/web/prod:db:password");
        let By::Link { name, .. } = link else { panic!("{link:?}") };
        assert_eq!(link_target(&name), "../../../prod/db/password");
    }

    #[test]
    fn names_survive_flattening() {
        let name: SecretName = "prod/db/password".parse().unwrap();
        assert_eq!(parse_flat(&flat(&name)), Some(name));
        assert_eq!(parse_flat("a/b"), None);
        assert_eq!(parse_flat("a::b"), None);
    }

    #[test]
    fn values_that_no_directory_can_have_are_not_entered() {
        for bad in ["", ".", "..", "a/b"] {
            assert_eq!(By::Values(Facet::Tag).child(bad), None, "{bad:?}");
        }
        assert_eq!(By::Facets.child("owner"), None);
    }
}
