//! Lines that a crash took and that the store has carried: what comes back, and what does not.

use std::os::unix::fs::FileExt;

use super::*;

/// A log that was killed, with what a store remembers of it.
struct Crashed {
    world: World,
    anchor: Anchor,
    /// The lines as they were written.
    whole: Vec<Vec<u8>>,
}

/// Twelve lines in one segment: the start, on disk; three more, on disk; six that were carried; two
/// reads since.
fn crashed() -> Crashed {
    let world = World::new();
    let log = world.open_with_lines(3);
    let mark = log.mark();
    log.sync().unwrap();
    (3..9).for_each(|n| _ = read(&log, n).unwrap());
    let (text, to) = log.lines_since(&mark, 1 << 20).unwrap().unwrap();
    (9..11).for_each(|n| _ = read(&log, n).unwrap());
    let path = world.last_segment();
    let bytes = fs::read(&path).unwrap();
    drop(log);
    overwrite(&path, &bytes);
    let carried = Carried { synced: mark.head.seq, lines: text };
    Crashed { whole: lines(&path), world, anchor: Anchor { head: to.head, carried } }
}

impl Crashed {
    /// Leaves so many lines, and half of the next one.
    fn cut(&self, kept: usize) {
        let half = self.whole.get(kept).map_or(&[][..], |line| &line[..line.len() / 2]);
        overwrite(&self.world.last_segment(), &[&self.whole[..kept].concat(), half].concat());
    }

    /// Opens the log again. Returns what the start says of restored lines and dropped bytes.
    fn start(&self) -> Result<(u64, u64), AuditError> {
        drop(self.world.try_open_with(Some(self.anchor.clone()))?);
        assert_eq!(self.world.damage(Some(&self.anchor.head)), None);
        let starts = Filter { action: Some(Action::Start), ..Filter::default() };
        let detail = self.world.entries(&starts).pop().unwrap().detail.unwrap();
        let number = |key: &str| detail["start"][key].as_u64().unwrap();
        Ok((number("restored_lines"), number("dropped_bytes")))
    }

    fn reads(&self) -> usize {
        let filter = Filter { action: Some(Action::Read), ..Filter::default() };
        self.world.entries(&filter).len()
    }
}

fn is_refused(start: &Result<(u64, u64), AuditError>) -> bool {
    matches!(start, Err(AuditError::Tampered(_)))
}

#[test]
fn what_a_crash_took_of_the_lines_that_the_store_has_comes_back_and_the_start_says_so() {
    for kept in 4..=12 {
        let crashed = crashed();
        crashed.cut(kept);
        let (restored, _) = crashed.start().unwrap();
        assert_eq!(restored, 10_u64.saturating_sub(kept as u64), "{kept} kept");
        assert_eq!(crashed.reads(), kept.clamp(10, 12) - 1, "{kept} kept");
    }
}

#[test]
fn lines_behind_a_hole_that_is_filled_are_not_lost_either() {
    let crashed = crashed();
    let path = crashed.world.last_segment();
    let (kept, lost) = (crashed.whole[..5].concat().len(), crashed.whole[5..9].concat().len());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Half of a line stands there too, as where a sector ends.
    file.write_all_at(&vec![0; lost - 30], kept as u64 + 30).unwrap();
    // The fifth is there and is written once more.
    assert_eq!(crashed.start().unwrap(), (5, 0));
    assert_eq!(crashed.reads(), 11);
}

/// No crash takes what an fdatasync has put on disk: whoever took that is to be found out.
#[test]
fn a_log_that_lacks_what_was_on_disk_is_refused_whatever_the_store_has_carried() {
    for kept in 0..4 {
        let mut crashed = crashed();
        // The store may still have lines of before, which are of no use any more.
        let before = crashed.whole[1..4].concat();
        crashed.anchor.carried.lines = [before, crashed.anchor.carried.lines].concat();
        crashed.cut(kept);
        let start = crashed.start();
        assert!(is_refused(&start), "{kept} kept: {start:?}");
    }
}

#[test]
fn nothing_comes_back_but_the_next_lines_of_the_chain() {
    type Change = fn(&mut Vec<Vec<u8>>);
    let changes: [(&str, Change); 5] = [
        ("one is missing", |lines| drop(lines.remove(1))),
        ("one is edited", |lines| {
            let place = lines[1].windows(5).position(|window| window == b"nginx").unwrap();
            lines[1][place] = b'N';
        }),
        ("two are exchanged", |lines| lines.swap(1, 2)),
        ("one is cut", |lines| lines[1].truncate(40)),
        ("they are another log's", |lines| {
            let other = World::new();
            drop(other.open_with_lines(12));
            *lines = super::lines(&other.last_segment())[4..10].to_vec();
        }),
    ];
    for (what, change) in changes {
        let mut crashed = crashed();
        let mut carried = crashed.whole[4..10].to_vec();
        change(&mut carried);
        crashed.anchor.carried.lines = carried.concat();
        let path = crashed.world.last_segment();
        crashed.cut(4);
        let start = crashed.start();
        assert!(is_refused(&start), "{what}: {start:?}");
        let found = lines(&path);
        assert!(crashed.whole.starts_with(&found[..found.len() - 1]), "{what}");
        // They are not needed where the log has them.
        overwrite(&path, &crashed.whole.concat());
        assert_eq!(crashed.start().unwrap(), (0, 0), "{what}");
    }
}

#[test]
fn an_edit_is_no_gap_and_is_not_mended() {
    let crashed = crashed();
    let path = crashed.world.last_segment();
    let mut edited = crashed.whole.clone();
    let place = edited[6].windows(5).position(|window| window == b"nginx").unwrap();
    edited[6][place] = b'N';
    overwrite(&path, &edited.concat());
    let start = crashed.start();
    assert!(is_refused(&start), "{start:?}");
    assert_eq!(fs::read(&path).unwrap(), edited.concat());
}

#[test]
fn a_segment_that_ended_takes_no_lines_of_before() {
    let crashed = crashed();
    drop(crashed.world.try_open_with(Some(crashed.anchor.clone())).unwrap());
    let log = crashed.world.try_open_with(Some(crashed.anchor.clone())).unwrap();
    log.close("end").unwrap();
    assert_eq!(crashed.start().unwrap(), (0, 0));
}

#[test]
fn lines_since_a_mark_are_those_that_were_not_on_disk_then_over_a_roll_too() {
    let world = World::with_segments_of(8 * 1024);
    let log = world.open();
    let (mut mark, mut text) = (log.mark(), Vec::new());
    log.sync().unwrap();
    for n in 0..60 {
        read(&log, n).unwrap();
        if n % 7 == 0 {
            let (more, to) = log.lines_since(&mark, 1 << 20).unwrap().unwrap();
            assert_eq!(to.head, log.head());
            // What is left out ended with its segment, and was synced then.
            assert!(more.len() < 8 * 1024);
            (mark, text) = (to, more);
        }
    }
    assert!(world.segments().len() > 3);
    let last = lines(&world.last_segment()).concat();
    assert!(last.windows(text.len()).any(|window| window == text));
    read(&log, 60).unwrap();
    assert!(log.lines_since(&mark, 10).unwrap().is_none());
    fs::remove_file(world.last_segment()).unwrap();
    assert!(read(&log, 61).is_err());
    assert!(log.lines_since(&mark, 1 << 20).is_err(), "a broken log vouches for nothing");
}
