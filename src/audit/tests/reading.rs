//! Finding events again, following the log, and what retention keeps.

use std::fs;

use super::*;

#[test]
fn each_filter_finds_its_events_and_no_others() {
    let world = World::with_segments_of(4 * 1024);
    let log = world.open_with_lines(20);
    world.clock.advance(Duration::from_secs(60));
    let (secret, root) = (name("prod/api-key"), Caller::with_ids(Uid(0), Gid(0)));
    let event = Event { caller: Some(&root), ..Event::new(Action::Write, Outcome::Denied) };
    log.append(&Event { secret: Some(&secret), reason: Some("no rule"), ..event }).unwrap();
    let late = Some(world.clock.now());

    let any = Filter::default;
    let cases: [(usize, Filter); 12] = [
        (1, Filter { secret: Some(name("prod/db/password-1")), ..any() }),
        (20, Filter { secret_prefix: Some(name("prod/db")), ..any() }),
        (21, Filter { secret_prefix: Some(name("prod")), ..any() }),
        (20, Filter { uid: Some(Uid(1000)), ..any() }),
        (20, Filter { exe: Some("nginx".to_owned()), ..any() }),
        (0, Filter { exe: Some("/bin/nginx".to_owned()), ..any() }),
        (20, Filter { unit: Some("nginx.service".to_owned()), ..any() }),
        (1, Filter { outcome: Some(Outcome::Denied), ..any() }),
        (1, Filter { action: Some(Action::Write), ..any() }),
        (1, Filter { since: late, ..any() }),
        (4, Filter { after: Some(Seq(log.head().seq.0 - 4)), ..any() }),
        (20, Filter { until: late, action: Some(Action::Read), ..any() }),
    ];
    for (count, filter) in cases {
        assert_eq!(world.entries(&filter).len(), count, "{filter:?}");
    }
}

#[test]
fn a_limit_gives_the_newest_in_their_order_across_segments() {
    let world = World::with_segments_of(4 * 1024);
    drop(world.open_with_lines(40));
    let reads = |limit| Filter { action: Some(Action::Read), limit, ..Filter::default() };
    let all = world.entries(&reads(None));
    assert_eq!(world.entries(&reads(Some(25))), all[15..]);
    assert_eq!(world.entries(&reads(Some(100))), all);
    assert_eq!(world.entries(&reads(Some(0))), []);
}

#[test]
fn a_line_says_who_did_what_and_null_where_it_is_unknown() {
    let world = World::new();
    let log = world.open_with_lines(1);
    let stranger = Caller::with_ids(Uid(5), Gid(6));
    let event = Event::new(Action::Check, Outcome::Denied);
    log.append(&Event { caller: Some(&stranger), ..event }).unwrap();
    let entries = world.entries(&Filter::default());
    let [_, known, unknown] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(known.user.as_deref(), Some("alice"));
    assert_eq!((known.pid, known.tid, known.gid), (Some(4711), Some(4712), Some(Gid(100))));
    assert_eq!(known.unit.as_deref(), Some("system.slice/nginx.service"));
    assert_eq!((unknown.user.as_deref(), unknown.pid), (None, None));
    let fields: serde_json::Value =
        serde_json::from_slice(&lines(&world.last_segment())[2]).unwrap();
    for field in ["secret", "version", "user", "start_time", "exe", "comm", "container", "reason"] {
        assert_eq!(fields.get(field), Some(&serde_json::Value::Null), "{field}");
    }
}

#[test]
fn a_line_has_the_digest_of_a_program_where_it_is_known() {
    let world = World::new();
    let log = world.open_with_lines(1);
    let exe = Exe { path: "/usr/sbin/nginx".into(), sha256: Some([0xab; 32]) };
    let caller = Caller { exe_now: Some(Arc::new(exe)), ..caller() };
    let event = Event::new(Action::Read, Outcome::Allowed);
    log.append(&Event { caller: Some(&caller), ..event }).unwrap();
    let entries = world.entries(&Filter::default());
    let digests: Vec<_> = entries.iter().map(|entry| entry.exe_sha256.as_deref()).collect();
    assert_eq!(digests, [None, None, Some(&*"ab".repeat(32))]);
}

#[test]
fn the_words_of_actions_are_the_same_in_lines_and_filters() {
    for &action in Action::ALL {
        assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        assert_eq!(action.as_str().parse(), Ok(action));
    }
    assert!(Action::ALL.is_sorted_by_key(|action| action.as_str()));
}

#[test]
fn the_log_reads_as_one_file_that_grows_across_segments() {
    let world = World::with_segments_of(4 * 1024);
    let log = world.open();
    let file = LogFile::open(&world.path()).unwrap();
    let mut followed = Vec::new();
    for n in 0..40 {
        read(&log, n).unwrap();
        let mut chunk = [0; 100];
        loop {
            match file.read_at(followed.len() as u64, &mut chunk).unwrap() {
                0 => break,
                bytes => followed.extend_from_slice(&chunk[..bytes]),
            }
        }
    }
    let whole =
        world.segments().iter().flat_map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    assert!(world.segments().len() > 3);
    assert!(followed == whole && file.size().unwrap() == whole.len() as u64);
    let mut all = vec![0; whole.len() + 10];
    assert_eq!(file.read_at(0, &mut all).unwrap(), whole.len());
    assert_eq!(all[..whole.len()], whole);
}

/// A log of 200 days, one read of `prod/db/password-0` a day, that was pruned.
fn pruned() -> (World, AuditLog, Pruned) {
    let world = World::new();
    let log = world.open();
    for _ in 0..200 {
        read(&log, 0).unwrap();
        world.clock.advance(DAY);
    }
    let pruned = log.prune(world.clock.now()).unwrap();
    (world, log, pruned)
}

#[test]
fn retention_keeps_the_counts_of_what_it_removes_and_the_chain() {
    let (world, log, pruned) = pruned();
    let anchor = log.head();
    assert_eq!(pruned.segments, 109, "those of the first 109 days are wholly older than 90");
    // The line that records the removal began the segment of the day after.
    assert_eq!(world.segments().len(), 200 - 109 + 1);
    let totals = Totals::read(&world.path()).unwrap();
    let counts = totals.secrets["prod/db/password-0"];
    assert_eq!((counts.allowed, counts.denied, totals.lines), (109, 0, pruned.lines));
    let read = |counts: &Counts| counts.allowed == 109 && counts.denied == 0;
    assert!(read(&totals.uids[&Uid(1000)]) && read(&totals.exes["/usr/sbin/nginx"]), "{totals:?}");
    assert!(read(&totals.units["system.slice/nginx.service"]) && totals.days.len() >= 109);
    assert_eq!(totals.days.values().map(|day| day.allowed).sum::<u64>(), totals.lines);
    let reads = world.entries(&Filter { action: Some(Action::Read), ..Filter::default() });
    assert_eq!(reads.len(), 200 - 109);
    let verified = world.verify(Some(&anchor)).unwrap();
    assert_eq!((verified.first, verified.head), (Seq(pruned.lines + 1), anchor));
}

#[test]
fn retention_goes_on_after_a_restart_and_adds_up() {
    let (world, log, first) = pruned();
    let anchor = log.head();
    drop(log);
    world.clock.advance(60 * DAY);
    let log = world.try_open(Some(anchor)).unwrap();
    let second = log.prune(world.clock.now()).unwrap();
    let totals = Totals::read(&world.path()).unwrap();
    assert_eq!(totals.lines, first.lines + second.lines);
    assert_eq!(totals.secrets["prod/db/password-0"].allowed, 169);
    assert_eq!(log.prune(world.clock.now()).unwrap(), Pruned::default());
    drop(log);
    assert_eq!(world.damage(Some(&anchor)), None);
    read(&world.try_open(Some(anchor)).unwrap(), 0).unwrap();
}

#[test]
fn totals_that_were_edited_deleted_or_exchanged_for_older_ones_are_found() {
    let (world, log, _) = pruned();
    let path = world.path().join(retention::FILE);
    let old = fs::read(&path).unwrap();
    world.clock.advance(50 * DAY);
    log.prune(world.clock.now()).unwrap();
    let new = fs::read(&path).unwrap();
    assert_ne!(old, new);

    overwrite(&path, &old);
    assert_eq!(world.damage(None), Some(Damage::Deleted));
    world.clock.advance(50 * DAY);
    assert!(matches!(log.prune(world.clock.now()), Err(AuditError::Tampered(_))));
    let edited = String::from_utf8(new.clone()).unwrap().replace("\"denied\":0", "\"denied\":1");
    overwrite(&path, edited.as_bytes());
    assert_eq!(world.damage(None), Some(Damage::Totals));
    assert!(matches!(world.try_open(None), Err(AuditError::Tampered(_))));
    fs::remove_file(&path).unwrap();
    assert_eq!(world.damage(None), Some(Damage::Deleted));
    overwrite(&path, &new);
    assert_eq!(world.damage(None), None);
}

#[test]
fn a_removal_that_a_crash_interrupted_is_finished_by_the_next_start() {
    let (world, log, pruned) = pruned();
    let totals = world.path().join(retention::FILE);
    // As if the process had died after the totals and before the first removal of the next pass.
    let oldest = world.segments()[0].clone();
    let kept = fs::read(&oldest).unwrap();
    world.clock.advance(DAY);
    let next = log.prune(world.clock.now()).unwrap();
    assert!(next.segments == 1 && !oldest.exists() && totals.exists());
    drop(log);
    overwrite(&oldest, &kept);
    assert!(matches!(world.verify(None).unwrap().notes[..], [Note::Leftover { segments: 1 }, ..]));
    drop(world.open());
    assert!(!oldest.exists());
    assert_eq!(Totals::read(&world.path()).unwrap().lines, pruned.lines + next.lines);
}
