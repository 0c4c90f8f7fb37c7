//! Files under `.control`: each write is one command, and its errno is the verdict.
//!
//! To open one grants nothing: the broker behind each authorises and records what is asked. The
//! names stand in one table, `FILES`.

mod backup;
mod command;
mod events;
mod health;
mod host;
mod journal;
mod restore;
mod text;
mod trash;

pub use host::{Health, Held, Host};

pub(super) use backup::{Backup, Patience};
pub(super) use command::{Command, Prompt, parse};
pub(super) use events::{EventReader, Events};
pub(super) use health::{HealthReader, HealthWatch};
pub(super) use restore::{LastRestore, Restore};
pub(super) use text::text;
pub(super) use trash::{Entry as TrashEntry, entries as trash_entries};

use crate::model::GrantId;

/// What is run when a poll has something to tell.
pub(super) type Waker = Box<dyn FnOnce() + Send>;

/// A place in `.control`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Control {
    /// `.control/audit`.
    Audit,
    File(&'static File),
    /// `.control/grants/ID`.
    Grant(GrantId),
    /// `.control/grants`.
    Grants,
    /// `.control` itself.
    Top,
    /// `.control/trash`.
    Trash,
}

/// One control file.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// Permission bits as shown; what is allowed is the broker's to say.
    pub(super) mode: u16,
    /// What reading shows where nothing was written; empty for files that are not commands.
    pub(super) usage: &'static str,
}

/// The directory that holds a control file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Audit,
    Top,
}

/// How a control file behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A file that grows, for admins.
    AuditLog,
    /// Reading it makes a backup.
    Backup,
    /// One write is one command, then the reply is read.
    Command(Prompt),
    /// A file that grows, filtered for its reader.
    Events,
    /// One word; can be polled.
    Health,
    /// Takes a whole backup; the verdict is close(2)'s, or is read here later.
    Restore,
    /// Text made when it is opened.
    Text(Text),
}

/// Which text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Text {
    Anomalies,
    AuditHead,
    AuditTotals,
    Injections,
    Metrics,
    Status,
    Version,
    Whoami,
}

/// Every control file, in the order in which they are listed.
pub(super) static FILES: [File; 25] = [
    file("admin", Kind::Command(Prompt::Admin), 0o600, "DO key=value ... | {\"do\": DO, ...}\n"),
    file("backup", Kind::Backup, 0o400, ""),
    file(
        "elevate",
        Kind::Command(Prompt::Elevate),
        0o600,
        "CODE, or: enrol [SEED CODE], drop, forget UID\n",
    ),
    file("events", Kind::Events, 0o400, ""),
    file("explain", Kind::Command(Prompt::Explain), 0o600, "SECRET | {\"secret\": SECRET}\n"),
    file(
        "grant",
        Kind::Command(Prompt::Grant),
        0o600,
        "PATTERN levels=read for=15m reason=WORD uid=... [gid= unit= container= exe= exe_sha256=] [uses=3] \
         [break_glass=yes] | {\"approve\": GRANT}\n",
    ),
    file("health", Kind::Health, 0o400, ""),
    file("holders", Kind::Command(Prompt::Holders), 0o600, "SECRET | {\"stale\": true}\n"),
    file("injections", Kind::Text(Text::Injections), 0o400, ""),
    file("metrics", Kind::Text(Text::Metrics), 0o400, ""),
    file("reload", Kind::Command(Prompt::Reload), 0o600, "reads policy and configuration again\n"),
    file("restore", Kind::Restore, 0o600, ""),
    file("revoke", Kind::Command(Prompt::Revoke), 0o600, "GRANT | {\"grant\": GRANT}\n"),
    file(
        "rotate",
        Kind::Command(Prompt::Rotate),
        0o600,
        "SECRET [verify=no] [rollback=no] [value=pending] [wait_adopted=SECONDS] [dry_run=yes] [wait=no]\n",
    ),
    file(
        "scan",
        Kind::Command(Prompt::Scan),
        0o600,
        "PATH [min_severity=SEVERITY] [min_confidence=N] [no_ignore=yes] | {\"path\": PATH, ...}\n",
    ),
    file("seal", Kind::Command(Prompt::Seal), 0o600, "forgets the keys until unsealed\n"),
    file("status", Kind::Text(Text::Status), 0o400, ""),
    file(
        "unseal",
        Kind::Command(Prompt::Unseal),
        0o600,
        "PASSPHRASE, or an empty line to ask the key source again\n",
    ),
    file("version", Kind::Text(Text::Version), 0o400, ""),
    file("whoami", Kind::Text(Text::Whoami), 0o400, ""),
    audit_file("head", Kind::Text(Text::AuditHead)),
    audit_file("log", Kind::AuditLog),
    audit_file("anomalies", Kind::Text(Text::Anomalies)),
    audit_file("totals", Kind::Text(Text::AuditTotals)),
    File {
        mode: 0o600,
        usage: "NAME [uid=] [exe=] [unit=] [outcome=] [action=] [since=] [until=] [after=] | {\"uid\": UID, ...}\n",
        ..audit_file("find", Kind::Command(Prompt::Find))
    },
];

const fn file(name: &'static str, kind: Kind, mode: u16, usage: &'static str) -> File {
    File { name, place: Place::Top, kind, mode, usage }
}

const fn audit_file(name: &'static str, kind: Kind) -> File {
    File { name, place: Place::Audit, kind, mode: 0o400, usage: "" }
}

/// Returns what `name` is in a directory of `.control`; the trash is not among them. A grant may be
/// there or not.
pub(super) fn child(directory: Control, name: &str) -> Option<Control> {
    let place = match directory {
        Control::Audit => Place::Audit,
        Control::File(_) | Control::Grant(_) | Control::Trash => return None,
        Control::Grants => return name.parse().ok().map(Control::Grant),
        Control::Top => match name {
            "audit" => return Some(Control::Audit),
            "grants" => return Some(Control::Grants),
            "trash" => return Some(Control::Trash),
            _ => Place::Top,
        },
    };
    FILES.iter().find(|file| file.place == place && file.name == name).map(Control::File)
}

/// Returns the names that are always in a directory of `.control`, with what they are.
pub(super) fn children(directory: Control) -> Vec<(&'static str, Control)> {
    let place = match directory {
        Control::Audit => Place::Audit,
        Control::File(_) | Control::Grant(_) | Control::Grants | Control::Trash => {
            return Vec::new();
        }
        Control::Top => Place::Top,
    };
    let files = FILES.iter().filter(|file| file.place == place);
    let mut names: Vec<_> = files.map(|file| (file.name, Control::File(file))).collect();
    if place == Place::Top {
        names.extend([
            ("audit", Control::Audit),
            ("grants", Control::Grants),
            ("trash", Control::Trash),
        ]);
    }
    names
}

impl Control {
    /// Returns the path from the root.
    pub(super) fn path(self) -> String {
        match self {
            Self::Audit => ".control/audit".into(),
            Self::File(File { name, place: Place::Audit, .. }) => format!(".control/audit/{name}"),
            Self::File(File { name, place: Place::Top, .. }) => format!(".control/{name}"),
            Self::Grant(id) => format!(".control/grants/{id}"),
            Self::Grants => ".control/grants".into(),
            Self::Top => ".control".into(),
            Self::Trash => ".control/trash".into(),
        }
    }

    /// Returns the inode number for a caller. It needs no key, so that `.control` can be entered
    /// while the store is sealed, and differs by uid where the bytes do.
    pub(super) fn inode(self, uid: u32) -> u64 {
        match self {
            Self::Audit => 3,
            Self::File(file) => {
                let index = FILES.iter().position(|known| known == file).unwrap_or_default();
                ((16 + index as u64) << 32) | u64::from(uid)
            }
            Self::Grant(GrantId([a, b, c, d, e, f])) => {
                (1 << 62) | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            }
            Self::Grants => 6,
            Self::Top => 2,
            Self::Trash => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_table_is_found_where_it_is_listed_and_nowhere_else() {
        for directory in [Control::Top, Control::Audit] {
            for (name, expected) in children(directory) {
                assert_eq!(child(directory, name), Some(expected), "{name}");
            }
        }
        assert_eq!(child(Control::Top, "log"), None);
        assert_eq!(child(Control::Audit, "seal"), None);
        assert_eq!(child(Control::Trash, "seal"), None);
    }

    #[test]
    fn no_two_callers_and_no_two_files_share_an_inode() {
        let mut seen = std::collections::HashSet::from([1, 2, 3, 4, 5, 6]);
        for file in &FILES {
            for uid in [0, 1000, u32::MAX] {
                assert!(seen.insert(Control::File(file).inode(uid)), "{} {uid}", file.name);
            }
        }
    }
}
