//! What every client does alike, whatever the service: one suite over `dyn Backend`.
//!
//! A service is added by a test of one line that calls [`conforms`]. What it cannot do has to be refused as
//! such, and what it says that it can has to work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use secretfs::backend::{
    Abilities, Backend, BackendError, Deadline, Expect, Put, Result, Version, VersionId, Which,
};
use secretfs::system::SecretBytes;

/// Values that some service or encoding might change.
const VALUES: [&[u8]; 9] = [
    b"canary-7f3a",
    b"line\nline\n",
    b" spaces ",
    b"\"quoted\" \\ back",
    "\u{e9}\u{1f511}".as_bytes(),
    b"\xff\xfe\x00\x01",
    br#"{"value":"x"}"#,
    br#"{"password":"x","user":"y"}"#,
    b"[1,2]",
];

/// Names that a mapping might mix up.
const NAMES: [&str; 10] = [
    "mixed/a-b",
    "mixed/a.b",
    "mixed/a_b",
    "mixed/a--b",
    "mixed/a/b",
    "mixed/A-b",
    "mixed/a-2d-b",
    "mixed/a",
    "Upper/lower.v1",
    "x",
];

pub fn time() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

pub fn bytes(value: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(value).unwrap()
}

fn abilities(backend: &dyn Backend) -> Abilities {
    backend.abilities(time()).unwrap()
}

/// Runs all of it over an empty backend.
pub fn conforms(backend: &dyn Backend) {
    nothing_is_there_before_it_was_put(backend);
    a_list_has_every_name_once_however_many_pages_it_takes(backend);
    what_is_put_is_read_byte_for_byte(backend);
    every_name_is_another_secret(backend);
    versions_stay_or_there_are_none(backend);
    a_stage_moves_or_there_are_none(backend);
    compare_and_set_lets_one_of_many_win(backend);
    what_is_deleted_comes_back_or_is_gone(backend);
    what_is_destroyed_never_comes_back(backend);
    tags_are_replaced_as_a_whole(backend);
    no_call_outlives_its_deadline(backend);
    a_check_finds_nothing_wrong(backend);
}

fn nothing_is_there_before_it_was_put(backend: &dyn Backend) {
    assert!(listed(backend).is_empty());
    let name = "nowhere/to/be/found";
    assert_eq!(backend.get(name, &Which::Current, time()).unwrap_err(), BackendError::NotFound);
    assert_eq!(backend.describe(name, time()).unwrap_err(), BackendError::NotFound);
    assert_eq!(backend.versions(name, time()).unwrap_err(), BackendError::NotFound);
    assert_eq!(backend.delete(name, time()).unwrap_err(), BackendError::NotFound);
    let supported = |able, tried| supports(able, tried, Err(BackendError::NotFound));
    supported(abilities(backend).restore, backend.restore(name, time()));
    supported(abilities(backend).tags, backend.tag(name, &BTreeMap::new(), time()));
    assert!(listed(backend).is_empty(), "what failed has made nothing");
}

fn a_list_has_every_name_once_however_many_pages_it_takes(backend: &dyn Backend) {
    let names: BTreeSet<String> =
        (0..60).map(|n| format!("many/d{}/n{n}", n % 7)).chain(["top".into()]).collect();
    for name in &names {
        put(backend, name, b"x");
    }
    assert_eq!(listed(backend), names);
    // A list says of all when they were changed, or of none.
    let page = backend.list(None, time()).unwrap();
    assert!(page.changed.is_empty() || page.changed.len() == page.names.len());
    for (name, changed) in page.changed {
        assert_eq!(backend.describe(&name, time()).unwrap().changed, Some(changed), "{name}");
    }
    for name in &names {
        backend.destroy(name, time()).unwrap();
    }
    assert!(listed(backend).is_empty());
}

fn what_is_put_is_read_byte_for_byte(backend: &dyn Backend) {
    for value in VALUES {
        let binary = std::str::from_utf8(value).is_err();
        let given = Put { binary, ..Put::default() };
        let version = backend.put("bytes/value", &bytes(value), &given, time()).unwrap();
        let read = backend.get("bytes/value", &Which::Current, time()).unwrap();
        assert_eq!((read.value.expose(), read.version), (value, version.id));
    }
}

fn every_name_is_another_secret(backend: &dyn Backend) {
    for name in NAMES {
        put(backend, name, name.as_bytes());
    }
    for name in NAMES {
        assert_eq!(get(backend, name).unwrap(), name.as_bytes());
    }
    let listed = listed(backend);
    assert!(NAMES.iter().all(|name| listed.contains(*name)), "{listed:?}");
}

fn versions_stay_or_there_are_none(backend: &dyn Backend) {
    let made = ["one", "two", "three"].map(|value| put(backend, "versions/v", value.as_bytes()));
    let versions = backend.versions("versions/v", time()).unwrap();
    let current = backend.describe("versions/v", time()).unwrap().current;
    assert_eq!(current.as_ref(), made.last().map(|version| &version.id));
    if !abilities(backend).versions {
        assert_eq!(versions.len(), 1);
        return;
    }
    let ids = |versions: &[Version]| -> Vec<VersionId> {
        versions.iter().map(|version| version.id.clone()).collect()
    };
    assert_eq!(ids(&versions), ids(&made), "oldest first");
    assert!(versions.iter().all(|version| version.readable && version.created.is_some()));
    for (version, value) in made.iter().zip(["one", "two", "three"]) {
        let read = backend.get("versions/v", &Which::Id(version.id.clone()), time()).unwrap();
        assert_eq!((read.value.expose(), &read.version), (value.as_bytes(), &version.id));
    }
    for unknown in ["99", "no-version", "00000000-0000-4000-8000-000000000000"] {
        let unknown = Which::Id(VersionId(unknown.into()));
        let missing = backend.get("versions/v", &unknown, time()).unwrap_err();
        assert_eq!(missing, BackendError::NotFound);
    }
}

fn a_stage_moves_or_there_are_none(backend: &dyn Backend) {
    let first = put(backend, "stages/s", b"one");
    put(backend, "stages/s", b"two");
    let moved = backend.stage("stages/s", "EXAMPLE", &first.id, time());
    supports(abilities(backend).stages, moved, Ok(()));
    let staged = backend.get("stages/s", &Which::Stage("EXAMPLE".into()), time());
    if !abilities(backend).stages {
        assert!(matches!(staged, Err(BackendError::Unsupported(_))));
        return;
    }
    assert_eq!(staged.unwrap().value.expose(), b"one");
    let missing = backend.get("stages/s", &Which::Stage("NONE".into()), time()).unwrap_err();
    assert_eq!(missing, BackendError::NotFound);
    let versions = backend.versions("stages/s", time()).unwrap();
    let staged: Vec<_> = versions
        .iter()
        .filter(|version| version.stages.iter().any(|stage| stage == "EXAMPLE"))
        .collect();
    assert_eq!(staged.iter().map(|version| &version.id).collect::<Vec<_>>(), [&first.id]);
}

fn compare_and_set_lets_one_of_many_win(backend: &dyn Backend) {
    let able = abilities(backend).compare_and_set;
    let expecting = |expect| Put { expect: Some(expect), ..Put::default() };
    let absent = expecting(Expect::Absent);
    let made = backend.put("cas/c", &bytes(b"one"), &absent, time());
    if !able {
        assert!(matches!(made, Err(BackendError::Unsupported(_))), "{made:?}");
        return;
    }
    let made = made.unwrap();
    let again = backend.put("cas/c", &bytes(b"two"), &absent, time()).unwrap_err();
    assert_eq!(again, BackendError::Conflict);
    let expected = expecting(Expect::Version(made.id));
    let tries = std::thread::scope(|scope| {
        let one = |n: u8| backend.put("cas/c", &bytes(&[b'0' + n]), &expected, time());
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || one(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let won: Vec<_> = tries.iter().enumerate().filter(|(_, tried)| tried.is_ok()).collect();
    assert_eq!(won.len(), 1, "{tries:?}");
    let value = [b'0' + u8::try_from(won[0].0).unwrap()];
    assert_eq!(get(backend, "cas/c").unwrap(), value);
    assert!(tries.iter().flat_map(Result::as_ref).count() == 1);
    let lost = tries.iter().filter_map(|tried| tried.as_ref().err());
    assert!(lost.into_iter().all(|error| *error == BackendError::Conflict), "{tries:?}");
}

fn what_is_deleted_comes_back_or_is_gone(backend: &dyn Backend) {
    put(backend, "deleted/d", b"canary-7f3a");
    backend.delete("deleted/d", time()).unwrap();
    assert_eq!(get(backend, "deleted/d").unwrap_err(), BackendError::NotFound);
    assert_eq!(backend.delete("deleted/d", time()).unwrap_err(), BackendError::NotFound);
    let restored = backend.restore("deleted/d", time());
    if !abilities(backend).restore {
        assert!(matches!(restored, Err(BackendError::Unsupported(_))), "{restored:?}");
        return;
    }
    restored.unwrap();
    assert_eq!(get(backend, "deleted/d").unwrap(), b"canary-7f3a");
    backend.delete("deleted/d", time()).unwrap();
    assert!(backend.describe("deleted/d", time()).unwrap().deleted);
    if abilities(backend).compare_and_set {
        let absent = Put { expect: Some(Expect::Absent), ..Put::default() };
        let made = backend.put("deleted/d", &bytes(b"x"), &absent, time()).unwrap_err();
        assert_eq!(made, BackendError::Conflict, "what can be brought back is not absent");
    }
    backend.restore("deleted/d", time()).unwrap();
    assert!(!backend.describe("deleted/d", time()).unwrap().deleted);
}

fn what_is_destroyed_never_comes_back(backend: &dyn Backend) {
    put(backend, "destroyed/d", b"one");
    put(backend, "destroyed/d", b"two");
    backend.destroy("destroyed/d", time()).unwrap();
    assert_eq!(get(backend, "destroyed/d").unwrap_err(), BackendError::NotFound);
    assert_eq!(backend.describe("destroyed/d", time()).unwrap_err(), BackendError::NotFound);
    assert!(!listed(backend).contains("destroyed/d"));
    assert!(backend.restore("destroyed/d", time()).is_err());
    put(backend, "destroyed/d", b"three");
    assert_eq!(backend.versions("destroyed/d", time()).unwrap().len(), 1, "its history is gone");
    if abilities(backend).restore {
        backend.delete("destroyed/d", time()).unwrap();
        backend.destroy("destroyed/d", time()).unwrap();
        assert!(backend.restore("destroyed/d", time()).is_err());
    }
}

fn tags_are_replaced_as_a_whole(backend: &dyn Backend) {
    put(backend, "tagged/t", b"x");
    let tags = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let first = tags(&[("service", "example"), ("environment", "test")]);
    let tagged = backend.tag("tagged/t", &first, time());
    if !abilities(backend).tags {
        assert!(matches!(tagged, Err(BackendError::Unsupported(_))), "{tagged:?}");
        return;
    }
    tagged.unwrap();
    assert_eq!(backend.describe("tagged/t", time()).unwrap().tags, first);
    for next in [tags(&[("service", "other")]), tags(&[])] {
        backend.tag("tagged/t", &next, time()).unwrap();
        assert_eq!(backend.describe("tagged/t", time()).unwrap().tags, next);
    }
    assert_eq!(get(backend, "tagged/t").unwrap(), b"x");
}

fn no_call_outlives_its_deadline(backend: &dyn Backend) {
    let (over, version) = (Deadline::within(Duration::ZERO), put(backend, "late/l", b"x"));
    let able = abilities(backend);
    let late = |able, tried| supports(able, tried, Err(BackendError::TimedOut));
    late(true, backend.get("late/l", &Which::Current, over).map(drop));
    late(true, backend.put("late/l", &bytes(b"y"), &Put::default(), over).map(drop));
    late(true, backend.describe("late/l", over).map(drop));
    late(true, backend.versions("late/l", over).map(drop));
    late(true, backend.list(None, over).map(drop));
    late(able.tags, backend.tag("late/l", &BTreeMap::new(), over));
    late(able.stages, backend.stage("late/l", "EXAMPLE", &version.id, over));
    late(true, backend.delete("late/l", over));
    late(able.restore, backend.restore("late/l", over));
    late(true, backend.destroy("late/l", over));
    assert_eq!(get(backend, "late/l").unwrap(), b"x");
}

fn a_check_finds_nothing_wrong(backend: &dyn Backend) {
    let probes = backend.check(time());
    let tried: Vec<_> = probes.iter().map(|probe| probe.what).collect();
    assert_eq!(tried, ["reachable", "clock", "authenticated", "may list", "may read"]);
    assert!(probes.iter().all(|probe| probe.worked), "{probes:?}");
    assert!(!format!("{probes:?}").contains("canary"), "{probes:?}");
}

/// Asserts that what the service can do has this outcome, and that anything else is refused as such.
fn supports(able: bool, tried: Result<()>, expected: Result<()>) {
    if able {
        assert_eq!(tried, expected);
    } else {
        assert!(matches!(tried, Err(BackendError::Unsupported(_))), "{tried:?}");
    }
}

pub fn put(backend: &dyn Backend, name: &str, value: &[u8]) -> Version {
    backend.put(name, &bytes(value), &Put::default(), time()).unwrap()
}

pub fn get(backend: &dyn Backend, name: &str) -> Result<Vec<u8>> {
    let fetched = backend.get(name, &Which::Current, time())?;
    Ok(fetched.value.expose().to_vec())
}

/// Returns all names, each of which was listed once.
pub fn listed(backend: &dyn Backend) -> BTreeSet<String> {
    let (mut names, mut page) = (BTreeSet::new(), None);
    loop {
        let listed = backend.list(page.as_ref(), time()).unwrap();
        for name in listed.names {
            assert!(names.insert(name.clone()), "{name} was listed twice");
        }
        match listed.next {
            Some(next) => page = Some(next),
            None => return names,
        }
    }
}
