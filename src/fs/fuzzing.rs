//! What callers write and name, for the fuzz targets: the two parsers of `fs` that no public call reaches.

use super::control;
use super::node::{Meaning, Node, meaning};
use crate::model::SecretName;

/// Reads a control command as a command file does. `None`: it answers EINVAL.
pub fn parse_command(text: &[u8], target: &str) -> Option<serde_json::Value> {
    control::parse(text, target).ok()
}

/// Returns the secret or directory that a name in a directory (`None` is the root) stands for, itself
/// or through a view. `None`: it stands for something else or for nothing.
pub fn secret_meant(directory: Option<&SecretName>, name: &[u8]) -> Option<SecretName> {
    let parent = directory.map_or(Node::Root, |name| Node::Directory(name.clone()));
    match meaning(&parent, name) {
        Meaning::Member { name, .. } | Meaning::Path(name) => Some(name),
        Meaning::View(view) => view.of,
        Meaning::Bad
        | Meaning::By(_)
        | Meaning::Control(_)
        | Meaning::Rendered(_)
        | Meaning::Scratch(_)
        | Meaning::Trashed(_) => None,
    }
}
