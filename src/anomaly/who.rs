//! Who acts, told from others over months: user, program, and unit or container.
//!
//! What changes with each start or release is left out: runs of digits (`session-12.scope`,
//! `/srv/app/releases/417/app`) and the ids of containers stand as `#`. Else every deploy would be a stranger.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::audit::Entry;
use crate::model::Uid;

/// A caller as the detectors remember it.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Who {
    pub uid: Uid,
    pub exe: Option<Arc<str>>,
    /// The container, or else the unit.
    pub place: Option<Arc<str>>,
}

impl Who {
    /// Returns who stands behind a line, if it is not the daemon itself.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let exe = entry.exe.as_deref().map(|exe| exe.strip_suffix(" (deleted)").unwrap_or(exe));
        let place = entry.container.as_deref().or(entry.unit.as_deref());
        Some(Self { uid: entry.uid?, exe: exe.map(lasting), place: place.map(lasting) })
    }

    /// Returns a user of whom nothing else is known.
    pub(super) fn user(uid: Uid) -> Self {
        Self { uid, exe: None, place: None }
    }

    /// Returns the last part of the program's path.
    pub(super) fn program(&self) -> Option<&str> {
        self.exe.as_deref().and_then(|exe| exe.rsplit('/').next())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exe {
            Some(exe) => write!(f, "{exe} of uid {}", self.uid)?,
            None => write!(f, "uid {}", self.uid)?,
        }
        let Some(place) = self.place.as_deref() else { return Ok(()) };
        write!(f, " in {}", place.rsplit('/').next().unwrap_or(place))
    }
}

/// Returns a path or id without what changes from one start to the next.
fn lasting(text: &str) -> Arc<str> {
    let is_between = |c: char| !c.is_ascii_alphanumeric();
    let mut kept = String::with_capacity(text.len());
    for part in text.split_inclusive(is_between) {
        let word = part.strip_suffix(is_between).unwrap_or(part);
        push_lasting(&mut kept, word);
        kept.extend(part.get(word.len()..));
    }
    kept.into()
}

fn push_lasting(kept: &mut String, word: &str) {
    let is_digit = |c: char| c.is_ascii_digit();
    if !word.contains(is_digit) {
        return kept.push_str(word);
    }
    if word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit()) {
        return kept.push('#');
    }
    let mut in_number = false;
    for c in word.chars() {
        if !is_digit(c) {
            kept.push(c);
        } else if !in_number {
            kept.push('#');
        }
        in_number = is_digit(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_with_each_start_is_left_out() {
        for (text, kept) in [
            ("/usr/sbin/nginx", "/usr/sbin/nginx"),
            ("/srv/app/releases/417/bin/app-1.22", "/srv/app/releases/#/bin/app-#.#"),
            (
                "user.slice/user-1000.slice/session-12.scope",
                "user.slice/user-#.slice/session-#.scope",
            ),
            ("podman:0123456789abcdef0123", "podman:#"),
            ("podman:deadbeefcafe", "podman:deadbeefcafe"),
        ] {
            assert_eq!(&*lasting(text), kept);
        }
    }
}
