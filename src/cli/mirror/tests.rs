//! The engine over two sides in memory, with somebody who kills it and somebody who writes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;

use super::side::{After, Edition, Held, Mark, Tags};
use super::{Crew, Done, Known, Mirror, Patience, Progress, Side, Step, Trouble};
use crate::backend::VersionId;
use crate::system::SecretBytes;

/// A side in memory.
struct Memory {
    secrets: Mutex<BTreeMap<String, Secret>>,
    keeps_versions: bool,
    is_tree: bool,
    /// Writes that still succeed; then each ends with this, before or after it was done.
    faults: Mutex<Faults>,
}

#[derive(Clone, Default)]
struct Secret {
    values: Vec<String>,
    tags: Tags,
    deleted: bool,
}

#[derive(Default)]
struct Faults {
    writes_left: Option<usize>,
    /// Ends a write that was done with an error that may pass, once for each.
    unsure: usize,
    reads: usize,
    longest: usize,
}

impl Memory {
    fn new(secrets: &[(&str, &str)]) -> Self {
        let made = secrets.iter().map(|(name, values)| {
            let values = values.chars().map(String::from).collect();
            ((*name).to_owned(), Secret { values, ..Secret::default() })
        });
        let faults = Faults { longest: usize::MAX, ..Faults::default() };
        Self {
            secrets: Mutex::new(made.collect()),
            keeps_versions: true,
            is_tree: false,
            faults: Mutex::new(faults),
        }
    }

    fn values(&self, name: &str) -> String {
        self.secrets
            .lock()
            .unwrap()
            .get(name)
            .map(|secret| secret.values.concat())
            .unwrap_or_default()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Secret)) {
        change(self.secrets.lock().unwrap().entry(name.to_owned()).or_default());
    }

    fn reads(&self) -> usize {
        self.faults.lock().unwrap().reads
    }
}

fn mark(number: usize) -> Mark {
    Mark { id: VersionId(number.to_string()), made: String::new() }
}

impl Side for Memory {
    fn keeps_versions(&self) -> bool {
        self.keeps_versions
    }

    fn is_tree(&self) -> bool {
        self.is_tree
    }

    fn names(&self) -> Result<BTreeSet<String>, Trouble> {
        Ok(self.secrets.lock().unwrap().keys().cloned().collect())
    }

    fn look(&self, name: &str) -> Result<Option<Held>, Trouble> {
        let secrets = self.secrets.lock().unwrap();
        let Some(secret) = secrets.get(name) else { return Ok(None) };
        let count = secret.values.len();
        let first = if secret.deleted { count + 1 } else { 1 };
        let bytes = |number: usize| Some(if secret.values[number - 1] == "L" { 9 } else { 1 });
        let versions =
            (first..=count).map(|number| Edition { mark: mark(number), bytes: bytes(number) });
        let versions = versions.collect();
        Ok(Some(Held {
            current: Some(mark(count)),
            versions,
            is_whole: true,
            tags: secret.tags.clone(),
        }))
    }

    fn read(&self, name: &str, version: &VersionId) -> Result<SecretBytes, Trouble> {
        self.faults.lock().unwrap().reads += 1;
        let secrets = self.secrets.lock().unwrap();
        let number: usize = version.0.parse().unwrap();
        let value = secrets.get(name).and_then(|secret| secret.values.get(number - 1));
        let value = value.filter(|value| *value != "-").ok_or(Trouble::Changed)?;
        Ok(SecretBytes::copy_from(value.as_bytes()).unwrap())
    }

    fn refuses(&self, _: &str, bytes: Option<usize>) -> Option<String> {
        let longest = self.faults.lock().unwrap().longest;
        bytes.filter(|bytes| *bytes > longest).map(|_| "too long".to_owned())
    }

    fn write(
        &self,
        name: &str,
        value: &SecretBytes,
        after: After<'_>,
    ) -> Result<VersionId, Trouble> {
        let mut faults = self.faults.lock().unwrap();
        match &mut faults.writes_left {
            Some(0) => return Err(Trouble::Lost("killed".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        let mut secrets = self.secrets.lock().unwrap();
        let there = secrets.get(name).map(|secret| mark(secret.values.len()).id);
        let is_expected = match after {
            After::Nothing => there.is_none(),
            After::Version(id) => there.as_ref() == Some(id),
        };
        if !is_expected {
            return Err(Trouble::Changed);
        }
        let secret = secrets.entry(name.to_owned()).or_default();
        if !self.keeps_versions {
            secret.values.clear();
        }
        secret.values.push(String::from_utf8(value.expose().to_vec()).unwrap());
        secret.deleted = false;
        if faults.unsure > 0 {
            faults.unsure -= 1;
            return Err(Trouble::Passing { why: "it took too long".into(), rest: None });
        }
        Ok(mark(secret.values.len()).id)
    }

    fn holds(&self, key: &str, _: &str) -> bool {
        key != "odd"
    }

    fn annotate(&self, name: &str, tags: &Tags) -> Result<(), Trouble> {
        if tags.contains_key("forbidden") {
            return Err(Trouble::Refused("not for you".into()));
        }
        self.change(name, |secret| secret.tags.extend(tags.clone()));
        Ok(())
    }
}

fn at_once(_: Duration) -> bool {
    true
}

fn mirror<'a>(
    source: &'a Memory,
    destination: &'a Memory,
    replace: bool,
    known: &'a Known,
) -> Mirror<'a> {
    Mirror::new(source, destination, replace, (Patience::new(&at_once), known)).unwrap()
}

/// One run as the commands make it. Returns what the comparison found; an error if it was killed.
fn run(source: &Memory, destination: &Memory, replace: bool) -> Result<Vec<Done>, Trouble> {
    let known = Known::default();
    let mirror = mirror(source, destination, replace, &known);
    let (crew, progress) = (Crew::new(1), Progress::default());
    let planned = mirror.plan(&crew, &progress)?;
    mirror.copy(&planned, &crew, &progress)?;
    mirror.compare(&planned, &crew, &progress)
}

fn plan(source: &Memory, destination: &Memory) -> Vec<(String, Step, usize)> {
    let known = Known::default();
    let mirror = mirror(source, destination, false, &known);
    let planned = mirror.plan(&Crew::new(2), &Progress::default()).unwrap();
    planned.into_iter().map(|one| (one.name, one.step, one.versions)).collect()
}

fn step(source: &Memory, destination: &Memory) -> Step {
    plan(source, destination).remove(0).1
}

#[test]
fn a_plan_says_what_is_missing_and_changes_nothing() {
    let source = Memory::new(&[("a", "xyz"), ("b", "xy"), ("c", "x"), ("d", "x"), ("e", "x")]);
    let there = Memory::new(&[("b", "x"), ("c", "x"), ("d", "q"), ("e", "xz"), ("only", "o")]);
    let expected = [
        ("a", Step::Create, 3),
        ("b", Step::Append, 1),
        ("c", Step::Keep, 0),
        ("d", Step::Conflict, 0),
        ("e", Step::Ahead, 0),
    ];
    let expected = expected.map(|(name, step, versions)| (name.to_owned(), step, versions));
    assert_eq!(plan(&source, &there), expected);
    assert_eq!((there.values("a"), there.values("b")), (String::new(), "x".into()));
}

#[test]
fn a_copy_brings_every_version_and_the_second_run_changes_nothing() {
    let source = Memory::new(&[("a", "xyz"), ("b", "xyx")]);
    let there = Memory::new(&[("b", "x")]);
    for _ in 0..2 {
        let found = run(&source, &there, false).unwrap();
        assert!(found.iter().all(|one| one.step == Step::Keep), "{found:?}");
        assert_eq!((there.values("a"), there.values("b")), ("xyz".into(), "xyx".into()));
    }
}

#[test]
fn a_secret_that_is_not_there_costs_no_read_before_it_is_copied() {
    let (source, there) = (Memory::new(&[("a", "xyz")]), Memory::new(&[]));
    assert_eq!(step(&source, &there), Step::Create);
    assert_eq!((source.reads(), there.reads()), (0, 0));
    run(&source, &there, false).unwrap();
    assert_eq!(
        (source.reads(), there.reads()),
        (4, 1),
        "each version, and the current ones once more"
    );
}

#[test]
fn of_a_side_that_keeps_no_versions_there_is_the_current_one() {
    let source = Memory::new(&[("a", "xyz")]);
    let there = Memory { keeps_versions: false, ..Memory::new(&[]) };
    assert_eq!(run(&source, &there, false).unwrap()[0].step, Step::Keep);
    assert_eq!(there.values("a"), "z");
    source.change("a", |secret| secret.values.push("w".into()));
    run(&source, &there, false).unwrap();
    assert_eq!(there.values("a"), "w");
}

#[test]
fn an_older_version_that_cannot_be_read_is_left_out() {
    let source = Memory::new(&[("a", "--xy"), ("b", "x-yz")]);
    let there = Memory::new(&[("b", "x")]);
    for _ in 0..2 {
        let found = run(&source, &there, false).unwrap();
        assert!(found.iter().all(|one| one.step == Step::Keep), "{found:?}");
        assert_eq!((there.values("a"), there.values("b")), ("xy".into(), "xyz".into()));
    }
}

#[test]
fn another_value_is_replaced_by_who_says_so_and_stays_in_the_history() {
    let source = Memory::new(&[("a", "xy"), ("b", "xy"), ("c", "xy")]);
    let there = Memory::new(&[("a", "q"), ("b", "xyz"), ("c", "xy")]);
    there.change("c", |secret| secret.deleted = true);
    let found = run(&source, &there, false).unwrap();
    let steps: Vec<_> = found.into_iter().map(|one| one.step).collect();
    assert_eq!(steps, [Step::Conflict, Step::Ahead, Step::Deleted]);
    let found = run(&source, &there, true).unwrap();
    assert!(found.iter().all(|one| one.step == Step::Keep), "{found:?}");
    let values = ["a", "b", "c"].map(|name| there.values(name));
    assert_eq!(values, ["qy", "xyzy", "xyxy"]);
}

#[test]
fn a_write_of_which_nobody_knows_whether_it_was_done_is_not_done_twice() {
    let (source, there) = (Memory::new(&[("a", "xyz")]), Memory::new(&[]));
    there.faults.lock().unwrap().unsure = 3;
    assert_eq!(run(&source, &there, false).unwrap()[0].step, Step::Keep);
    assert_eq!(there.values("a"), "xyz");
}

#[test]
fn what_fails_again_and_again_fails_one_name_and_in_the_end_all() {
    let all: Vec<(String, &str)> = (0..9).map(|number| (format!("n{number}"), "x")).collect();
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let (source, there) = (Memory::new(&all[..2]), Memory::new(&[]));
    // Six tries for the first name.
    let fails = |side: &Memory| Trouble::Passing { why: side.values("none"), rest: None };
    let patience = Patience::new(&at_once);
    let mut tries = 0;
    let given_up = patience.with(|| -> Result<(), Trouble> {
        tries += 1;
        Err(fails(&source))
    });
    assert!(matches!((given_up, tries), (Err(Trouble::Refused(_)), 6)));
    let mut last = Ok(());
    for _ in 0..4 {
        last = patience.with(|| -> Result<(), Trouble> { Err(fails(&there)) });
    }
    assert!(matches!(last, Err(Trouble::Lost(_))));
    let too_long = Some(Duration::from_secs(3600));
    let asked = patience.with(|| -> Result<(), Trouble> {
        Err(Trouble::Passing { why: "busy".into(), rest: too_long })
    });
    assert!(matches!(asked, Err(Trouble::Lost(_))));
}

#[test]
fn a_rest_that_a_service_asks_for_ends_when_the_run_is_asked_to_stop() {
    let crew = Crew::new(1);
    let (resting, rests) = std::sync::mpsc::sync_channel(1);
    let sleep = |time| {
        resting.send(()).unwrap();
        crew.rest(time)
    };
    let patience = Patience::new(&sleep);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            patience.with(|| -> Result<(), Trouble> {
                let rest = Some(Duration::from_secs(300));
                Err(Trouble::Passing { why: "busy".into(), rest })
            })
        });
        rests.recv().unwrap();
        crew.stop();
        assert!(matches!(waits.join().unwrap(), Err(Trouble::Lost(_))));
    });
}

#[test]
fn what_can_never_be_there_is_said_before_anything_is_copied() {
    let source = Memory::new(&[("a", "x"), ("a/b", "x"), ("c/d/e", "x"), ("f", "x"), ("g", "x")]);
    let there = Memory { is_tree: true, ..Memory::new(&[("c/d", "x"), ("f/g", "x")]) };
    let impossible = |source: &Memory, there: &Memory| -> Vec<String> {
        let planned = plan(source, there).into_iter();
        planned.filter(|one| matches!(one.1, Step::Impossible(_))).map(|one| one.0).collect()
    };
    assert_eq!(impossible(&source, &there), ["a", "c/d/e", "f"]);
    there.faults.lock().unwrap().longest = 0;
    assert_eq!(impossible(&source, &there).len(), 5);
    let found = run(&source, &there, false).unwrap();
    assert!(found.iter().all(|one| matches!(one.step, Step::Impossible(_))));
    assert_eq!(there.values("g"), "");
}

#[test]
fn an_older_version_that_can_never_be_there_is_left_out_and_named() {
    let source = Memory::new(&[("a", "xLy"), ("b", "xL")]);
    let there = Memory::new(&[]);
    there.faults.lock().unwrap().longest = 5;
    let known = Known::default();
    let mirror = mirror(&source, &there, false, &known);
    let (crew, progress) = (Crew::new(1), Progress::default());
    let planned = mirror.plan(&crew, &progress).unwrap();
    assert_eq!(planned[1].step, Step::Impossible("too long".into()));
    let copied = mirror.copy(&planned, &crew, &progress).unwrap();
    assert_eq!(copied[0].left_out, ["an older version: too long"]);
    assert_eq!((there.values("a"), there.values("b")), ("xy".into(), String::new()));
    let found = mirror.compare(&planned, &crew, &progress).unwrap();
    assert_eq!(found[0].step, Step::Keep);
}

#[test]
fn tags_that_are_missing_are_added_and_those_that_cannot_be_there_are_named() {
    let (source, there) = (Memory::new(&[("a", "x"), ("b", "x")]), Memory::new(&[("a", "x")]));
    let tags = |words: &[(&str, &str)]| -> Tags {
        words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    for name in ["a", "b"] {
        source.change(name, |secret| secret.tags = tags(&[("team", "blue"), ("odd", "1")]));
    }
    there.change("a", |secret| secret.tags = tags(&[("own", "2")]));
    assert_eq!(step(&source, &there), Step::Tag);
    let found = run(&source, &there, false).unwrap();
    assert!(found.iter().all(|one| one.step == Step::Keep));
    assert_eq!(found[0].left_out, ["the tag odd"]);
    let there = there.look("a").unwrap().unwrap().tags;
    assert_eq!(there, tags(&[("own", "2"), ("team", "blue")]));
}

#[test]
fn tags_that_are_refused_are_told_and_are_not_tried_in_every_round() {
    let (source, there) = (Memory::new(&[("a", "x")]), Memory::new(&[]));
    source.change("a", |secret| drop(secret.tags.insert("forbidden".into(), "1".into())));
    let known = Known::default();
    let mirror = mirror(&source, &there, false, &known);
    let (crew, progress) = (Crew::new(1), Progress::default());
    let planned = mirror.plan(&crew, &progress).unwrap();
    let copied = mirror.copy(&planned, &crew, &progress).unwrap();
    assert_eq!(
        (copied[0].versions, copied[0].left_out.as_slice()),
        (1, &["not for you".into()][..])
    );
    assert_eq!(mirror.plan(&crew, &progress).unwrap()[0].step, Step::Keep);
}

#[test]
fn what_was_compared_is_not_read_again_until_it_has_another_version() {
    let (source, there) = (Memory::new(&[("a", "x"), ("b", "y")]), Memory::new(&[]));
    let known = Known::default();
    let mirror = mirror(&source, &there, false, &known);
    let (crew, progress) = (Crew::new(1), Progress::default());
    let round = || {
        let before = there.reads();
        let planned = mirror.plan(&crew, &progress).unwrap();
        mirror.copy(&planned, &crew, &progress).unwrap();
        let found = mirror.compare(&planned, &crew, &progress).unwrap();
        assert!(found.iter().all(|one| one.step == Step::Keep));
        there.reads() - before
    };
    round();
    assert_eq!(round(), 0);
    source.change("b", |secret| secret.values.push("z".into()));
    assert!(round() > 0);
    assert_eq!(there.values("b"), "yz");
}

/// Histories of few values, so that they come again.
fn history() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['x', 'y', 'z']), 1..6)
        .prop_map(|values| values.into_iter().collect())
}

proptest! {
    #[test]
    fn any_two_histories_end_equal_or_in_what_the_plan_has_said(
        here in history(), there in prop::option::of(history()), replace: bool,
    ) {
        let source = Memory::new(&[("a", &here)]);
        let secrets: Vec<(&str, &str)> = there.iter().map(|there| ("a", there.as_str())).collect();
        let destination = Memory::new(&secrets);
        let planned = step(&source, &destination);
        let found = run(&source, &destination, replace).unwrap().remove(0).step;
        if replace || planned.is_change() || planned == Step::Keep {
            prop_assert_eq!(found, Step::Keep);
            prop_assert!(destination.values("a").ends_with(here.chars().last().unwrap()));
        } else {
            prop_assert_eq!(found, planned);
            prop_assert_eq!(destination.values("a"), there.clone().unwrap());
        }
        prop_assert!(destination.values("a").starts_with(there.as_deref().unwrap_or_default()), "nothing is lost");
        prop_assert_eq!(source.values("a"), here);
    }

    #[test]
    fn a_run_that_was_killed_after_any_write_ends_as_one_that_was_not(
        histories in prop::collection::vec(history(), 1..5),
        begun in prop::option::of(history()),
        kills in prop::collection::vec(0_usize..4, 0..6),
    ) {
        let names: Vec<String> = (0..histories.len()).map(|number| format!("n{number}")).collect();
        let secrets: Vec<(&str, &str)> =
            names.iter().zip(&histories).map(|(name, history)| (name.as_str(), history.as_str())).collect();
        let source = Memory::new(&secrets);
        let start: Vec<(&str, &str)> = begun.iter().map(|begun| ("n0", begun.as_str())).collect();
        let (killed, whole) = (Memory::new(&start), Memory::new(&start));
        let expected = run(&source, &whole, false).unwrap();
        for writes in kills {
            killed.faults.lock().unwrap().writes_left = Some(writes);
            drop(run(&source, &killed, false));
        }
        killed.faults.lock().unwrap().writes_left = None;
        prop_assert_eq!(run(&source, &killed, false).unwrap(), expected);
        for name in &names {
            // Where it began in the middle of another history, values that come again may stand for each other.
            let is_mixed = name == "n0" && begun.is_some();
            let values = |side: &Memory| side.values(name).chars().last();
            prop_assert_eq!(values(&killed), values(&whole));
            prop_assert!(is_mixed || killed.values(name) == whole.values(name));
        }
    }
}
