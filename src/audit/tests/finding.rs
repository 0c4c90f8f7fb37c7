//! Searches with and without indexes: the same lines, whatever an index says.

use proptest::prelude::*;

use super::*;

/// Lines of some callers on some secrets, over several segments, with a refusal now and then.
fn varied(world: &World, lines: usize) -> AuditLog {
    let log = world.open();
    let names = ["prod/db/password", "prod/db", "prod/api-key", "dev/a"].map(name);
    for number in 0..lines {
        world.clock.advance(Duration::from_secs(7));
        let caller = Caller::with_ids(Uid(u32::try_from(number % 5).unwrap()), Gid(0));
        let outcome = if number % 11 == 0 { Outcome::Denied } else { Outcome::Allowed };
        let action = if number % 3 == 0 { Action::Write } else { Action::Read };
        let secret = names.get(number % 7);
        log.append(&Event { caller: Some(&caller), secret, ..Event::new(action, outcome) })
            .unwrap();
    }
    log
}

fn found(world: &World, filter: &Filter, indexes: &Indexes<'_>) -> (Vec<Entry>, u64) {
    let mut search = Find { filter: filter.clone(), max_bytes: 700, max_read: 20_000 };
    let (mut entries, mut read): (Vec<Entry>, u64) = (Vec::new(), 0);
    loop {
        let page = find(&world.path(), &search, indexes).unwrap();
        let lines = page.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        entries.extend(lines.map(|line| serde_json::from_slice::<Entry>(line).unwrap()));
        read += page.read;
        match page.next {
            Some(next) => search.filter.after = Some(next),
            None => return (entries, read),
        }
    }
}

fn filters() -> impl Strategy<Value = Filter> {
    let names = ["prod/db/password", "prod/db", "prod", "dev/a", "nowhere"];
    let names = || proptest::option::of(proptest::sample::select(names.map(name).to_vec()));
    let time = || {
        proptest::option::of((0..4000_i64).prop_map(|offset| {
            crate::model::Timestamp::from_second(1_800_000_000 + offset).unwrap()
        }))
    };
    let word =
        |words: [&'static str; 2]| proptest::option::of(proptest::sample::select(words.to_vec()));
    (
        (names(), names()),
        proptest::option::of((0..7_u32).prop_map(Uid)),
        (word(["denied", "allowed"]), word(["read", "write"])),
        proptest::option::of((0..700_u64).prop_map(Seq)),
        (time(), time()),
    )
        .prop_map(
            |((secret, secret_prefix), uid, (outcome, action), after, (since, until))| Filter {
                secret,
                secret_prefix,
                uid,
                outcome: outcome.map(|word| word.parse().unwrap()),
                action: action.map(|word| word.parse().unwrap()),
                after,
                since,
                until,
                ..Filter::default()
            },
        )
}

#[test]
fn a_search_finds_the_same_with_and_without_indexes_and_reads_less_with_them() {
    let world = World::with_segments_of(40 * 1024);
    let log = varied(&world, 500);
    let complete = complete_segments(&world.path()).unwrap();
    assert!(complete.len() > 2, "{complete:?}");
    let built: HashMap<Seq, Index> =
        complete.iter().map(|first| (*first, index_of(&world.path(), *first).unwrap())).collect();
    let indexed = |first| built.get(&first).cloned();
    proptest!(|(filter in filters())| {
        let expected = world.entries(&filter);
        let (with, read_with) = found(&world, &filter, &indexed);
        let (without, read_without) = found(&world, &filter, &|_| None);
        prop_assert_eq!(&with, &expected);
        prop_assert_eq!(&without, &expected);
        prop_assert!(read_with <= read_without);
    });
    let rare = Filter { secret: Some(name("nowhere")), ..Filter::default() };
    let (entries, read) = found(&world, &rare, &indexed);
    let open = fs::metadata(segments::list(&world.path()).unwrap().pop().unwrap().path).unwrap();
    assert!(entries.is_empty() && read <= open.len(), "{read} bytes were read");
    drop(log);
}

#[test]
fn an_index_of_another_segment_or_of_what_was_there_before_is_not_used() {
    let world = World::with_segments_of(40 * 1024);
    drop(varied(&world, 500));
    let complete = complete_segments(&world.path()).unwrap();
    let other = index_of(&world.path(), complete[1]).unwrap();
    let filter = Filter { uid: Some(Uid(3)), ..Filter::default() };
    let expected = world.entries(&filter);
    // What says that it is of a segment, and is of another.
    assert_eq!(found(&world, &filter, &|_| Some(other.clone())).0, expected);
    // A line more than the index knows of.
    let first = index_of(&world.path(), complete[0]).unwrap();
    let path = segments::list(&world.path()).unwrap().remove(0).path;
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("\"uid\":3,")).unwrap();
    overwrite(&path, format!("{text}{line}\n").as_bytes());
    let search = Find { filter, max_bytes: 1 << 20, max_read: 1 << 30 };
    let outdated = |seq| (seq == complete[0]).then(|| first.clone());
    let lines = find(&world.path(), &search, &outdated).unwrap().lines;
    let found = lines.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(found, expected.len() + 1);
}

#[test]
fn a_block_with_a_line_that_is_not_understood_is_read_for_every_search() {
    let world = World::with_segments_of(40 * 1024);
    drop(varied(&world, 500));
    let complete = complete_segments(&world.path()).unwrap();
    let path = segments::list(&world.path()).unwrap().remove(0).path;
    let text = fs::read_to_string(&path).unwrap();
    let spoilt = text.replacen("\"uid\":3,", "\"uid\":-3,", 1);
    overwrite(&path, spoilt.as_bytes());
    let index = index_of(&world.path(), complete[0]).unwrap();
    let filter = Filter { secret: Some(name("nowhere")), ..Filter::default() };
    let search = Find { filter, max_bytes: 1 << 20, max_read: 1 << 30 };
    let read = |index: Option<Index>| {
        let first = complete[0];
        find(&world.path(), &search, &|seq| index.clone().filter(|_| seq == first)).unwrap().read
    };
    let whole = fs::metadata(&path).unwrap().len();
    let saved = read(None) - read(Some(index));
    assert!(saved < whole && saved > whole / 4, "{saved} of {whole}");
}

#[test]
fn an_index_is_at_most_a_tenth_of_its_segment() {
    let world = World::with_segments_of(512 * 1024);
    let log = world.open_with_lines(4000);
    let complete = complete_segments(&world.path()).unwrap();
    for first in &complete {
        let index = postcard::to_stdvec(&index_of(&world.path(), *first).unwrap()).unwrap();
        let path = world.path().join(format!("{:020}.jsonl", first.0));
        let bytes = fs::metadata(path).unwrap().len();
        assert!(index.len() as u64 * 10 <= bytes, "{} of {bytes}", index.len());
    }
    assert!(!complete.is_empty());
    drop(log);
}

#[test]
fn a_line_is_found_by_reading_its_neighbours_alone() {
    let world = World::with_segments_of(512 * 1024);
    let log = world.open_with_lines(4000);
    let built: HashMap<Seq, Index> = complete_segments(&world.path())
        .unwrap()
        .into_iter()
        .map(|first| (first, index_of(&world.path(), first).unwrap()))
        .collect();
    let read = |number: usize| {
        let secret = Some(name(&format!("prod/db/password-{number}")));
        let filter = Filter { secret, ..Filter::default() };
        let search = Find { filter, max_bytes: 1 << 20, max_read: 1 << 30 };
        let page = find(&world.path(), &search, &|first| built.get(&first).cloned()).unwrap();
        (page.lines.iter().filter(|byte| **byte == b'\n').count(), page.read)
    };
    // What every search reads: the segment that is in use has no index.
    let (none, in_use) = read(5000);
    let (one, all) = read(100);
    assert_eq!((none, one), (0, 1));
    assert!(all - in_use <= 8 << 10, "{} bytes", all - in_use);
    drop(log);
}
