//! The host's users and groups, as policies name them and audit lines show them.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use nix::unistd::{Group, User};

use crate::model::{Gid, Uid};
use crate::policy::Users;

/// Looks names up in the host's databases (NSS), which may ask a network: for parsing, never for
/// a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostAccounts;

impl Users for HostAccounts {
    fn uid_of(&self, name: &str) -> Option<Uid> {
        User::from_name(name).ok().flatten().map(|user| Uid(user.uid.as_raw()))
    }

    fn gid_of(&self, name: &str) -> Option<Gid> {
        Group::from_name(name).ok().flatten().map(|group| Gid(group.gid.as_raw()))
    }
}

/// Returns the names of local users, for audit lines: they are asked for in the path of a request,
/// where nothing may block.
pub(super) fn local_names() -> HashMap<Uid, Arc<str>> {
    parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
}

/// Parses passwd(5); of two users with one uid the first is meant, as in getpwuid(3).
fn parse(passwd: &str) -> HashMap<Uid, Arc<str>> {
    let mut names = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty());
        let uid = fields.nth(1).and_then(|uid| uid.parse().ok());
        if let (Some(name), Some(uid)) = (name, uid) {
            names.entry(Uid(uid)).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_users_are_known_by_name_and_nonsense_is_left_out() {
        let names = parse("root:x:0:0::/:/bin/sh\ntoor:x:0:0:::\n:x:5:::\nbad\nada:x:1000:1000:::");
        assert_eq!(names.len(), 2);
        assert_eq!(names.get(&Uid(0)).unwrap().as_ref(), "root");
        assert_eq!(names.get(&Uid(1000)).unwrap().as_ref(), "ada");
    }

    #[test]
    fn the_hosts_root_is_found_by_name() {
        assert_eq!(HostAccounts.uid_of("root"), Some(Uid(0)));
        assert_eq!(HostAccounts.uid_of("no-such-user-7f3a"), None);
        assert_eq!(HostAccounts.gid_of("root"), Some(Gid(0)));
    }
}
