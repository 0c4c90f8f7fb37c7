//! Every operation of every user on every path, beside an oracle that knows the policy another way
//! (THREATS A1).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use common::{Person, Tried, World, list, number, read};
use nix::fcntl::OFlag;

/// The policy of the campaign, and apart from it what it means: levels by uid and group over names.
mod oracle {
    use std::collections::BTreeSet;

    /// Who: a uid or a group. What: a directory, the beginning of the last segment, levels, yes or no.
    pub(crate) struct Rule {
        pub who: Who,
        pub directory: &'static str,
        pub beginning: &'static str,
        pub levels: &'static [&'static str],
        pub allows: bool,
    }

    #[derive(Clone, Copy)]
    pub(crate) enum Who {
        Uid(u32),
        Gid(u32),
    }

    const fn allow(
        who: Who,
        directory: &'static str,
        beginning: &'static str,
        levels: &'static [&'static str],
    ) -> Rule {
        Rule { who, directory, beginning, levels, allows: true }
    }

    const fn deny(
        who: Who,
        directory: &'static str,
        beginning: &'static str,
        levels: &'static [&'static str],
    ) -> Rule {
        Rule { who, directory, beginning, levels, allows: false }
    }

    pub(crate) const RULES: [Rule; 14] = [
        allow(Who::Uid(61_000), "d0", "", &["read"]),
        allow(Who::Uid(61_001), "d1", "", &["write"]),
        allow(Who::Uid(61_002), "d2", "n1", &["read", "write"]),
        allow(Who::Uid(61_003), "d3", "", &["delete"]),
        allow(Who::Uid(61_004), "d4", "", &["admin"]),
        allow(Who::Uid(61_005), "d0", "n", &["read", "write", "delete"]),
        deny(Who::Uid(61_005), "d0", "n1", &["read", "write"]),
        allow(Who::Gid(62_000), "d5", "", &["read"]),
        allow(Who::Gid(62_001), "d6", "n2", &["read", "delete"]),
        deny(Who::Gid(62_000), "d4", "n3", &["read"]),
        allow(Who::Gid(62_002), "d7", "", &["admin"]),
        deny(Who::Uid(61_012), "d7", "", &["write", "delete"]),
        allow(Who::Uid(61_013), "d8", "n4", &["write", "delete"]),
        allow(Who::Gid(62_001), "d8", "n4", &["read"]),
    ];

    /// The groups of the person with that uid: every third is in each of the three.
    pub(crate) fn groups(uid: u32) -> Vec<u32> {
        vec![62_000 + uid % 3]
    }

    pub(crate) fn levels(uid: u32, name: &str) -> BTreeSet<&'static str> {
        let (directory, leaf) = name.split_once('/').unwrap();
        let fits = |rule: &&Rule| {
            let by = match rule.who {
                Who::Uid(bound) => bound == uid,
                Who::Gid(gid) => groups(uid).contains(&gid),
            };
            by && rule.directory == directory && leaf.starts_with(rule.beginning)
        };
        let mut allowed = BTreeSet::new();
        for rule in RULES.iter().filter(fits).filter(|rule| rule.allows) {
            allowed.extend(rule.levels);
            if rule.levels.contains(&"admin") {
                allowed.extend(["read", "write", "delete"]);
            }
        }
        for rule in RULES.iter().filter(fits).filter(|rule| !rule.allows) {
            for level in rule.levels {
                allowed.remove(level);
            }
        }
        allowed
    }

    pub(crate) fn policy() -> String {
        let mut text = String::new();
        for (index, rule) in RULES.iter().enumerate() {
            let (binds, id) = match rule.who {
                Who::Uid(id) => ("uid", id),
                Who::Gid(id) => ("gid", id),
            };
            let word = if rule.allows { "allow" } else { "deny" };
            text += &format!(
                "[[role]]\nname = \"r{index}\"\n{word} = [{{ names = [\"{}/{}*\"], levels = {:?} }}]\n\
                 [[binding]]\nrole = \"r{index}\"\n{binds} = [{id}]\n",
                rule.directory, rule.beginning, rule.levels
            );
        }
        text
    }
}

/// What may come of one operation on one name.
fn expected(uid: u32, name: &str, exists: bool, needs: Option<&str>) -> Tried<()> {
    let levels = oracle::levels(uid, name);
    match (levels.is_empty(), exists) {
        (true, _) => Err(libc::EACCES),
        (false, false) => Err(libc::ENOENT),
        (false, true) if needs.is_none_or(|level| levels.contains(level)) => Ok(()),
        (false, true) => Err(libc::EACCES),
    }
}

type Probe = (&'static str, Option<&'static str>, fn(&Path) -> Tried<()>);

/// Operations that change nothing, each with the level that it needs.
const PROBES: [Probe; 8] = [
    ("open to read", Some("read"), |path| read(path).map(drop)),
    ("open to write", Some("write"), |path| tried(OpenOptions::new().write(true).open(path))),
    ("open to read and write", Some("both"), |path| {
        tried(OpenOptions::new().read(true).write(true).open(path))
    }),
    ("stat", None, |path| tried(fs::metadata(path))),
    ("getxattr", None, |path| tried(xattr::get(path, "user.secretfs.version"))),
    ("reopen", Some("read"), |path| {
        let flags = OFlag::O_PATH.bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = opened.map_err(|err| number(&err))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        tried(File::open(format!("/proc/self/fd/{fd}")))
    }),
    ("unlink", Some("delete"), |path| tried(fs::remove_file(path))),
    ("rename", Some("delete"), |path| tried(fs::rename(path, path.with_file_name("nowhere")))),
];

fn tried<T>(result: std::io::Result<T>) -> Tried<()> {
    result.map(drop).map_err(|err| number(&err))
}

#[test]
fn every_operation_of_every_user_on_every_path_is_as_an_independent_oracle_says() {
    const USERS: u32 = 20;
    let Some(world) = World::with_policy(&oracle::policy()) else { return };
    let names: Vec<String> =
        (0..10).flat_map(|d| (0..20).map(move |n| format!("d{d}/n{}{}", n % 5, n / 5))).collect();
    let exists = |name: &str| !name.ends_with(['1', '3']);
    let existing: Vec<_> = names.iter().filter(|name| exists(name)).collect();
    for name in &existing {
        world.put(name, "v");
    }
    let mut differences = Vec::new();
    for uid in 61_000..61_000 + USERS {
        let person = Person::new(uid).in_groups(&oracle::groups(uid));
        differences.extend(person.run(|| {
            let mut differences = Vec::new();
            for name in &names {
                for (what, needs, probe) in PROBES {
                    let expected = if needs == Some("both") {
                        let [a, b] =
                            ["read", "write"].map(|l| expected(uid, name, exists(name), Some(l)));
                        a.and(b)
                    } else {
                        expected(uid, name, exists(name), needs)
                    };
                    // Those that would change something are tried where they must be refused.
                    if expected.is_ok() && needs == Some("delete") {
                        continue;
                    }
                    let found = probe(&world.path(name));
                    if found != expected {
                        differences
                            .push(format!("{uid} {what} {name}: {found:?}, not {expected:?}"));
                    }
                }
            }
            differences
        }));
        differences.extend(listing_differs(&world, &person, &existing));
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n")
    );
    assert!(existing.iter().all(|name| world.version(name) == 1));
}

fn listing_differs(world: &World, person: &Person, existing: &[&String]) -> Vec<String> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in existing.iter().filter(|name| !oracle::levels(person.uid, name).is_empty()) {
        let (directory, leaf) = name.split_once('/').unwrap();
        expected.entry(directory.into()).or_default().push(leaf.into());
    }
    let found = person.run(|| {
        let all = (0..10).map(|d| format!("d{d}"));
        let listed = all.filter_map(|d| Some((d.clone(), list(&world.path(&d)).ok()?)));
        listed.filter(|(_, names)| !names.is_empty()).collect::<BTreeMap<_, _>>()
    });
    for names in expected.values_mut() {
        names.sort();
    }
    if found == expected {
        Vec::new()
    } else {
        vec![format!("{} lists {found:?}, not {expected:?}", person.uid)]
    }
}
