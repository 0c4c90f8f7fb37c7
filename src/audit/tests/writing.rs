//! The log under failures of the disk and of the process, and what is kept through them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;

use super::*;
use crate::model::Generation;

#[test]
fn threads_that_append_at_once_leave_no_gap_and_a_whole_chain() {
    let world = World::with_segments_of(32 * 1024);
    let log = world.open();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|n| _ = read(&log, n).unwrap()));
        }
    });
    log.close("end").unwrap();
    let seqs: Vec<u64> =
        world.entries(&Filter::default()).iter().map(|entry| entry.seq.0).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64));
    let verified = world.verify(None).unwrap();
    assert!(verified.segments > 5 && verified.notes.is_empty(), "{verified:?}");
}

/// Whichever append fails, in the middle of a segment or of a roll: no half line stays, and the next works.
#[test]
fn a_failed_append_leaves_nothing_torn_and_the_next_one_works() {
    // Two writes are the start's.
    for works in 2..42 {
        let mut world = World::with_segments_of(4 * 1024);
        let disk = FaultyDisk::new(works);
        world.options.disk = disk.clone();
        let log = world.open();
        let failures = (0..40).filter(|&n| read(&log, n).is_err()).count();
        assert_eq!(failures, 1, "write {works}");
        log.close("end").unwrap();
        assert_eq!(world.damage(None), None, "write {works}");
        let reads = Filter { action: Some(Action::Read), ..Filter::default() };
        assert_eq!(world.entries(&reads).len(), 39, "write {works}");
    }
}

/// L5, on a disk that is really full.
#[test]
fn a_full_disk_refuses_appends_until_there_is_room_again() {
    let mut world = World::with_segments_of(256 * 1024);
    let Some(_disk) = SmallDisk::mount(world.dir.path()) else { return };
    world.options.segment_age = 365 * DAY;
    let log = world.open();
    let ballast = world.dir.path().join("ballast");
    let zeros = vec![0; 4 << 20];
    assert!(File::create(&ballast).unwrap().write_all(&zeros).is_err(), "the disk is full");

    let taken = (0..10_000).take_while(|&n| read(&log, n).is_ok()).count();
    assert!(taken > 100 && taken < 10_000, "{taken}");
    assert!(read(&log, 0).is_err(), "it stays full");
    let fault = log.fault().unwrap();
    assert!(fault.contains("takes no line"), "{fault}");
    fs::remove_file(&ballast).unwrap();
    read(&log, 0).unwrap();
    assert_eq!(log.fault(), None);
    log.close("end").unwrap();
    assert_eq!(world.damage(None), None);
}

#[test]
fn a_full_disk_where_a_segment_ends_is_a_fault_until_there_is_room_though_nobody_asks() {
    let mut world = World::with_segments_of(256 * 1024);
    let Some(_disk) = SmallDisk::mount(world.dir.path()) else { return };
    world.options.segment_age = DAY;
    let log = world.open_with_lines(5);
    let ballast = world.dir.path().join("ballast");
    assert!(File::create(&ballast).unwrap().write_all(&vec![0; 4 << 20]).is_err());
    assert_eq!(log.fault(), None, "this segment has room");
    world.clock.advance(2 * DAY);
    let before = log.head();
    assert!(read(&log, 0).is_err() && log.fault().is_some());
    assert_eq!(log.head(), before);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(log.fault(), None);
    assert_eq!(world.segments().len(), 2);
    read(&log, 0).unwrap();
    log.close("end").unwrap();
    assert_eq!(world.damage(None), None);
}

/// A tmpfs of 1 MiB, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    #[expect(clippy::print_stdout, reason = "a test that cannot run says SKIP")]
    fn mount(path: &Path) -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        match mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=1m")) {
            Ok(()) => Some(Self(path.to_owned())),
            Err(errno) => {
                println!("SKIP: mounting a tmpfs: {errno}");
                assert!(std::env::var_os("SECRETFS_REQUIRE_ALL").is_none(), "SKIP is not allowed");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

#[test]
fn a_log_that_was_changed_under_the_writer_takes_no_more_lines() {
    type Attack = fn(&Path);
    let attacks: [(&str, Attack); 6] = [
        ("unlinked", |path| fs::remove_file(path).unwrap()),
        ("emptied", |path| overwrite(path, b"")),
        ("cut", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(10).unwrap();
        }),
        ("added to", |path| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(b"{}\n").unwrap();
        }),
        ("written to behind its last line", |path| {
            let end = lines(path).concat().len() as u64;
            OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"{}\n", end).unwrap();
        }),
        ("replaced", |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(&copy, path).unwrap();
        }),
    ];
    for (what, attack) in attacks {
        let world = World::new();
        let log = world.open_with_lines(3);
        attack(&world.last_segment());
        for _ in 0..2 {
            let refused = read(&log, 3);
            assert!(matches!(refused, Err(AuditError::Tampered(_))), "{what}: {refused:?}");
        }
        assert!(log.sync().is_err(), "{what}: no head may be anchored");
    }
}

/// The kernel's answer to a write behind the end of a mapped file is a signal; it must not end the daemon.
#[test]
fn a_cut_that_no_look_has_noticed_is_noticed_by_the_next_line() {
    let mut world = World::new();
    world.options.check_interval = DAY;
    let log = world.open_with_lines(30);
    let file = OpenOptions::new().write(true).open(world.last_segment()).unwrap();
    file.set_len(10).unwrap();
    for _ in 0..2 {
        assert!(matches!(read(&log, 3), Err(AuditError::Tampered(_))));
    }
    assert_eq!(file.metadata().unwrap().len(), 10, "nothing was mended");
}

#[test]
fn bytes_far_behind_the_last_line_are_noticed_by_the_background_check() {
    let world = World::new();
    let log = world.open_with_lines(3);
    log.check().unwrap();
    let file = OpenOptions::new().write(true).open(world.last_segment()).unwrap();
    file.write_all_at(b"x", file.metadata().unwrap().len() - 1).unwrap();
    assert_eq!(world.damage(None), Some(Damage::Edited));
    assert!(matches!(log.check(), Err(AuditError::Tampered(_))));
    assert!(matches!(read(&log, 3), Err(AuditError::Tampered(_))));
}

#[test]
fn zeros_that_a_killed_process_leaves_are_the_end_and_go_at_the_next_start() {
    let world = World::new();
    let log = world.open_with_lines(3);
    let killed = killed(&world);
    drop(log);
    let path = killed.last_segment();
    let whole = lines(&path).concat().len() as u64;
    assert!(fs::metadata(&path).unwrap().len() > whole);
    assert_eq!(killed.verify(None).unwrap().notes, []);
    assert_eq!(killed.entries(&Filter::default()).len(), 4);
    let view = LogFile::open(&killed.path()).unwrap();
    assert_eq!(view.size().unwrap(), whole);
    let mut room = vec![0; 1 << 20];
    assert_eq!(view.read_at(0, &mut room).unwrap() as u64, whole);

    drop(killed.open());
    assert_eq!(fs::metadata(&path).unwrap().len(), whole);
    let start = killed.entries(&Filter { action: Some(Action::Start), ..Filter::default() });
    assert_eq!(start[1].detail.as_ref().unwrap()["start"]["dropped_bytes"], 0);
}

/// A power cut may leave a later page on disk without the ones before it.
#[test]
fn lines_behind_a_hole_are_dropped_by_the_start_which_says_so_and_are_an_edit_to_the_verifier() {
    let world = World::new();
    let log = world.open_with_lines(6);
    let killed = killed(&world);
    drop(log);
    let path = killed.last_segment();
    let (kept, lost) = (lines(&path)[..3].concat().len(), lines(&path)[3..5].concat().len());
    let rest = lines(&path)[3..].concat().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; lost], kept as u64).unwrap();
    assert_eq!(killed.damage(None), Some(Damage::Edited));

    read(&killed.open(), 0).unwrap();
    let start = killed.entries(&Filter { action: Some(Action::Start), ..Filter::default() });
    assert_eq!(start[1].detail.as_ref().unwrap()["start"]["dropped_bytes"], rest);
    assert_eq!(killed.damage(None), None);
}

#[test]
fn a_log_that_was_moved_away_is_noticed_by_the_background_check() {
    let world = World::new();
    let log = world.open_with_lines(3);
    fs::rename(world.last_segment(), world.dir.path().join("elsewhere")).unwrap();
    assert!(matches!(log.check(), Err(AuditError::Tampered(_))));
    assert!(matches!(read(&log, 3), Err(AuditError::Tampered(_))));
}

/// Lets the first sync wait until so many appends were seen: the others are waiting for a sync by then.
#[derive(Debug)]
struct GatedDisk {
    counts: Mutex<(usize, usize)>,
    seen: Condvar,
    gate: usize,
}

impl Disk for GatedDisk {
    fn write(
        &self,
        file: &File,
        mapping: Option<&mut Mapping>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.counts.lock().unwrap().0 += 1;
        self.seen.notify_all();
        SystemDisk.write(file, mapping, offset, bytes)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        let mut counts = self.counts.lock().unwrap();
        counts.1 += 1;
        // The first is the one of the start.
        while counts.1 > 1 && counts.0 < self.gate {
            counts = self.seen.wait(counts).unwrap();
        }
        Ok(())
    }
}

#[test]
fn those_who_wait_for_the_disk_share_an_fdatasync() {
    const APPENDERS: usize = 16;
    let mut world = World::new();
    // The zeros and the first line come before theirs.
    let gate = APPENDERS + 2;
    let disk = Arc::new(GatedDisk { counts: Mutex::default(), seen: Condvar::new(), gate });
    world.options.disk = disk.clone();
    world.options.durability = Durability::Synced;
    let log = world.open();
    thread::scope(|scope| {
        for n in 0..APPENDERS {
            let log = &log;
            scope.spawn(move || {
                let seq = read(log, n).unwrap();
                assert!(log.synced_head().seq >= seq, "the answer came before the disk");
            });
        }
    });
    let syncs = disk.counts.lock().unwrap().1 - 1;
    assert!((1..=2).contains(&syncs), "{syncs} fdatasyncs for {APPENDERS} appends");
}

#[test]
fn what_is_written_is_on_disk_only_after_a_sync() {
    let world = World::new();
    let log = world.open();
    let started = log.synced_head();
    assert_eq!(started, log.head());
    read(&log, 0).unwrap();
    assert_eq!(log.synced_head(), started);
    assert_eq!(log.sync().unwrap(), log.head());
    assert_eq!(log.synced_head(), log.head());
}

#[test]
fn the_background_thread_syncs_what_was_written() {
    let mut world = World::new();
    let (synced, notice) = mpsc::channel();
    world.options.disk = Arc::new(TellingDisk(synced));
    world.options.sync_interval = Duration::from_millis(1);
    let log = world.open();
    notice.recv().unwrap();
    read(&log, 0).unwrap();
    notice.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[derive(Debug)]
struct TellingDisk(mpsc::Sender<()>);

impl Disk for TellingDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.send(()).ok();
        SystemDisk.sync(file)
    }
}

/// After a failed fdatasync nobody knows what is on disk; a later one that works would lie.
#[test]
fn a_failed_fdatasync_ends_the_log_until_a_restart() {
    let mut world = World::new();
    let disk = FaultyDisk::new(i64::MAX);
    world.options.disk = disk.clone();
    let log = world.open_with_lines(3);
    let before = log.synced_head();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(log.sync().is_err());
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(read(&log, 3), Err(AuditError::Broken(_))));
    assert!(log.sync().is_err());
    assert_eq!(log.synced_head(), before);
    drop(log);
    read(&world.open(), 3).unwrap();
}

#[test]
fn a_torn_last_line_is_dropped_and_the_start_says_so() {
    let world = World::new();
    drop(world.open_with_lines(3));
    let torn = b"{\"seq\":5,\"time\":\"20";
    OpenOptions::new().append(true).open(world.last_segment()).unwrap().write_all(torn).unwrap();
    assert!(matches!(world.verify(None).unwrap().notes[..], [Note::TornTail { bytes: 19, .. }]));

    drop(world.open());
    let start = world.entries(&Filter { action: Some(Action::Start), ..Filter::default() });
    let detail = &start[1].detail.as_ref().unwrap()["start"];
    assert_eq!((&detail["dropped_bytes"], &detail["ended_in_order"]), (&19.into(), &false.into()));
    assert_eq!(world.verify(None).unwrap().notes, [Note::Crashed { after: Seq(4) }]);
}

#[test]
fn a_process_that_died_between_making_a_segment_and_writing_to_it_stops_nobody() {
    let world = World::new();
    let head = world.open_with_lines(3).head();
    let next = segments::SegmentFile::new(&world.path(), head.next_seq());
    for torn in ["", "{\"seq\":5,"] {
        overwrite(&next.path, torn.as_bytes());
        assert_eq!(world.damage(Some(&head)), None);
    }
    read(&world.try_open(Some(head)).unwrap(), 3).unwrap();
    assert_eq!(world.damage(Some(&head)), None);
}

#[test]
fn the_highest_generation_is_found_again_after_rolls_and_restarts() {
    let world = World::with_segments_of(4 * 1024);
    let log = world.open();
    assert_eq!(log.highest_generation(), None);
    let anchor = |generation| Event {
        generation: Some(Generation(generation)),
        ..Event::new(Action::Anchor, Outcome::Allowed)
    };
    log.append(&anchor(7)).unwrap();
    log.append(&anchor(3)).unwrap();
    (0..50).for_each(|n| _ = read(&log, n).unwrap());
    drop(log);
    assert!(world.segments().len() > 3);
    assert_eq!(world.open().highest_generation(), Some(Generation(7)));
    assert_eq!(world.open().highest_generation(), Some(Generation(7)));
    assert_eq!(world.verify(None).unwrap().generation, Some(Generation(7)));
}

#[test]
fn nobody_but_the_log_writes_the_lines_that_verification_trusts() {
    let world = World::new();
    let log = world.open();
    for &action in Action::ALL.iter().filter(|action| action.is_reserved()) {
        let refused = log.append(&Event::new(action, Outcome::Allowed));
        assert!(matches!(refused, Err(AuditError::Reserved(_))), "{action}");
    }
    assert_eq!(log.head().seq, Seq(1));
}

#[test]
fn a_closed_log_takes_no_more_lines_and_ends_in_order() {
    let world = World::new();
    world.open_with_lines(2).close("terminated").unwrap();
    drop(world.open());
    let verified = world.verify(None).unwrap();
    assert_eq!((verified.runs, verified.notes), (2, vec![]));
    assert_eq!(world.entries(&Filter::default())[3].reason.as_deref(), Some("terminated"));
}

#[test]
fn subscribers_see_each_line_as_it_is_on_disk() {
    let world = World::new();
    let log = world.open();
    let (sender, seen) = mpsc::channel();
    let sender = Mutex::new(sender);
    log.subscribe(Box::new(move |recorded| {
        let secret = recorded.secret.map(ToString::to_string);
        let line = String::from_utf8(recorded.line.to_vec()).unwrap();
        sender.lock().unwrap().send((recorded.seq, secret, line)).unwrap();
    }));
    let seq = read(&log, 7).unwrap();
    let (told, secret, line) = seen.recv().unwrap();
    assert_eq!((told, secret.as_deref()), (seq, Some("prod/db/password-7")));
    assert_eq!(lines(&world.last_segment())[1], format!("{line}\n").into_bytes());
}

#[test]
fn the_files_are_for_their_owner_alone_and_give_room_back() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let log = world.open_with_lines(3);
    assert_eq!(fs::metadata(world.path()).unwrap().mode() & 0o777, 0o700);
    let status = || fs::metadata(&world.segments()[0]).unwrap();
    assert_eq!(status().mode() & 0o777, 0o600);
    // Whether room was kept depends on the filesystem; none may stay behind.
    drop(log);
    drop(world.open());
    assert!(status().blocks() * 512 < 64 * 1024, "{} blocks", status().blocks());
}

#[test]
fn a_symlink_in_the_place_of_a_segment_is_not_followed() {
    let world = World::new();
    drop(world.open_with_lines(3));
    let (path, aside) = (world.last_segment(), world.dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    assert!(world.try_open(None).is_err());
    assert!(world.verify(None).is_err());
}
