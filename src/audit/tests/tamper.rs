//! What an attacker does to the files, and that it is found. L1 to L4 are rows of THREATS 1.3.

use std::fs;

use super::super::chain::Chain;
use super::super::line::{self, Line};
use super::*;

/// L1. Every change of the bytes is found, wherever it is.
#[test]
#[expect(clippy::print_stdout, reason = "a campaign prints its seed")]
fn no_random_mutation_of_a_log_escapes_the_verifier() {
    const SEED: u64 = 0x5ec7_e7f5;
    let (log_lines, mutations) = if is_campaign_full() { (3000, 10_000) } else { (150, 800) };
    println!("seed {SEED:#x}, {log_lines} lines a run, {mutations} mutations");
    let world = World::with_segments_of(16 * 1024);
    world.open_with_lines(log_lines).close("restart").unwrap();
    let anchor = world.open_with_lines(log_lines).close("end").unwrap();
    assert_eq!(world.damage(Some(&anchor)), None);

    let mut dice = Dice(SEED);
    let segments = world.segments();
    for round in 0..mutations {
        let path = &segments[dice.below(segments.len())];
        let whole = fs::read(path).unwrap();
        let (what, mutated) = mutate(&mut dice, &whole);
        if mutated == whole {
            continue;
        }
        overwrite(path, &mutated);
        assert!(world.damage(Some(&anchor)).is_some(), "round {round}: {what} in {path:?}");
        overwrite(path, &whole);
    }
    assert_eq!(world.damage(Some(&anchor)), None);
}

fn mutate(dice: &mut Dice, whole: &[u8]) -> (&'static str, Vec<u8>) {
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
    let what = match dice.below(8) {
        0 => {
            let mut edited = whole.to_vec();
            let at = dice.below(edited.len());
            edited[at] ^= u8::try_from(1 + dice.below(255)).unwrap();
            return ("a byte edited", edited);
        }
        1 => return ("a truncation", whole[..dice.below(whole.len())].to_vec()),
        2 => {
            lines.remove(one);
            "a line deleted"
        }
        3 => {
            lines.insert(one, lines[other]);
            "a line inserted"
        }
        4 => {
            lines.swap(one, other);
            "two lines swapped"
        }
        5 => {
            lines.insert(one, lines[one]);
            "a line repeated"
        }
        6 => {
            drop(lines.drain(one.min(other)..=one.max(other)));
            "a range cut out"
        }
        _ => {
            let at = dice.below(whole.len());
            let mut grown = whole.to_vec();
            grown.insert(at, b' ');
            return ("a byte inserted", grown);
        }
    };
    (what, lines.concat())
}

#[test]
fn a_removed_or_exchanged_segment_is_found() {
    let world = World::with_segments_of(8 * 1024);
    let anchor = world.open_with_lines(100).close("end").unwrap();
    let segments = world.segments();
    assert!(segments.len() > 4, "{}", segments.len());
    for path in &segments {
        let aside = world.dir.path().join("aside");
        fs::rename(path, &aside).unwrap();
        assert!(world.damage(Some(&anchor)).is_some(), "{path:?} removed");
        fs::rename(&aside, path).unwrap();
    }
    let (one, two) = (fs::read(&segments[1]).unwrap(), fs::read(&segments[2]).unwrap());
    overwrite(&segments[1], &two);
    overwrite(&segments[2], &one);
    assert!(world.damage(Some(&anchor)).is_some());
}

/// What was done is named, and so is the place.
#[test]
fn the_verifier_says_what_was_done_and_where() {
    type Edit = fn(&mut Vec<Vec<u8>>);
    let cases: [(Damage, Edit); 6] = [
        (Damage::Edited, |lines| lines[5][60] ^= 1),
        (Damage::Deleted, |lines| drop(lines.remove(5))),
        (Damage::Inserted, |lines| lines.insert(5, lines[2].clone())),
        (Damage::Inserted, |lines| lines.insert(5, b"{}\n".to_vec())),
        (Damage::Reordered, |lines| lines.swap(5, 9)),
        (Damage::Reordered, |lines| lines.swap(5, 6)),
    ];
    for (expected, edit) in cases {
        let world = World::new();
        world.open_with_lines(20).close("end").unwrap();
        let path = world.last_segment();
        let mut edited = lines(&path);
        edit(&mut edited);
        overwrite(&path, &edited.concat());
        match world.verify(None).unwrap_err() {
            VerifyError::Damaged { file, line, seq, damage } => {
                assert_eq!((damage, line, seq), (expected, 6, Seq(6)));
                assert_eq!(file, "00000000000000000001.jsonl");
            }
            VerifyError::Io(error) => panic!("{error}"),
        }
    }
}

/// Codes of long segments are checked by two threads, far behind the reading of the lines.
#[test]
fn an_edit_of_a_long_segment_is_placed_and_keeps_the_log_from_opening_wherever_it_is() {
    const LINES: usize = 1500;
    let world = World::new();
    drop(world.open_with_lines(LINES - 1));
    let path = world.last_segment();
    let whole = lines(&path);
    assert_eq!(whole.len(), LINES);
    assert_eq!(world.verify(None).unwrap().head.seq, Seq(LINES as u64));
    for at in [1, 2, LINES / 4, LINES / 2, LINES - 2, LINES - 1] {
        let mut edited = whole.clone();
        edited[at][60] ^= 1;
        overwrite(&path, &edited.concat());
        match world.verify(None).unwrap_err() {
            VerifyError::Damaged { line, damage, .. } => {
                assert_eq!((damage, line), (Damage::Edited, at as u64 + 1));
            }
            VerifyError::Io(error) => panic!("{error}"),
        }
        assert!(matches!(world.try_open(None), Err(AuditError::Tampered(_))), "line {at}");
    }
    overwrite(&path, &whole.concat());
    drop(world.open());
}

#[test]
fn another_key_is_told_from_an_edited_first_line() {
    let world = World::new();
    world.open_with_lines(5).close("end").unwrap();
    let other = AuditKey::new(zeroize::Zeroizing::new([43; 32]));
    let error = verify(&world.path(), &other, None).unwrap_err();
    assert!(matches!(error, VerifyError::Damaged { damage: Damage::OtherKey, .. }), "{error}");

    let mut edited = lines(&world.last_segment());
    edited[0][40] ^= 1;
    overwrite(&world.last_segment(), &edited.concat());
    assert_eq!(world.damage(None), Some(Damage::Edited));
}

/// L2. A log that ends before the head that the store remembers does not open and does not verify.
#[test]
fn every_cut_of_the_end_is_found_by_the_anchor() {
    let world = World::new();
    let log = world.open_with_lines(20);
    let anchor = log.head();
    drop(log);
    let path = world.last_segment();
    let whole = lines(&path);
    for kept in 0..whole.len() {
        overwrite(&path, &whole[..kept].concat());
        assert_eq!(world.damage(Some(&anchor)), Some(Damage::Cut), "{kept} lines kept");
        let error = world.try_open(Some(anchor)).unwrap_err();
        assert!(matches!(error, AuditError::Tampered(_)), "{error}");
        overwrite(&path, &whole.concat());
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(world.try_open(Some(anchor)), Err(AuditError::Tampered(_))));
}

#[test]
fn a_log_that_was_written_anew_does_not_hold_the_anchor() {
    let world = World::new();
    let anchor = world.open_with_lines(5).head();
    fs::remove_dir_all(world.path()).unwrap();
    drop(world.open_with_lines(50));
    assert_eq!(world.damage(Some(&anchor)), Some(Damage::AnchorMismatch));
    assert!(matches!(world.try_open(Some(anchor)), Err(AuditError::Tampered(_))));
    // The same when newer segments follow the one with the anchor's line.
    drop(world.open());
    assert!(matches!(world.try_open(Some(anchor)), Err(AuditError::Tampered(_))));
}

#[test]
fn an_accepted_rollback_opens_the_log_and_is_on_record() {
    let mut world = World::new();
    let anchor = world.open_with_lines(20).head();
    let path = world.last_segment();
    overwrite(&path, &lines(&path)[..10].concat());
    world.options.rollback = Rollback::Accept;
    drop(world.try_open(Some(anchor)).unwrap());
    let start = world.entries(&Filter { action: Some(Action::Start), ..Filter::default() }).pop();
    let accepted = start.unwrap().detail.unwrap()["start"]["accepted"][0].to_string();
    assert!(accepted.contains("the store remembers seq 21"), "{accepted}");
    assert_eq!(world.damage(None), None);
}

/// The keys that a thief of the daemon's memory finds after `lines` lines of the first run.
fn stolen(world: &World, lines_written: usize) -> Chain {
    let first: serde_json::Value = serde_json::from_slice(&lines(&world.segments()[0])[0]).unwrap();
    let run = first["detail"]["run"].as_str().unwrap();
    let mut chain = Chain::at(&key(), line::unhex(run.as_bytes()).unwrap(), 0);
    (0..lines_written).for_each(|_| chain.advance());
    chain
}

fn sealed_by(chain: &Chain, body: &[u8]) -> Vec<u8> {
    let mut forged = body.to_vec();
    line::push_mac(&mut forged, &chain.mac(body));
    forged
}

/// L3. Whoever has the current key can neither change an old line nor cut back and go on.
#[test]
fn the_current_key_does_not_forge_the_past() {
    let world = World::new();
    drop(world.open_with_lines(19));
    let path = world.last_segment();
    let whole = lines(&path);
    assert_eq!(whole.len(), 20);
    let thief = stolen(&world, 20);
    let body = |line: &[u8]| Line::parse(line.trim_ascii_end()).unwrap().body.to_vec();

    for old in 0..whole.len() {
        let mut forged = whole.clone();
        let edited = String::from_utf8(body(&whole[old])).unwrap().replace("allowed", "denied");
        forged[old] = sealed_by(&thief, edited.as_bytes());
        overwrite(&path, &forged.concat());
        assert!(world.damage(None).is_some(), "line {old} was forged");

        let mut cut = whole[..old].to_vec();
        cut.push(sealed_by(&thief, &body(&whole[old])));
        overwrite(&path, &cut.concat());
        assert!(world.damage(None).is_some(), "cut back to {old} lines and continued");
    }
}

/// The same thief can go forward, which nothing on this machine can prevent: the control of the test above.
#[test]
fn the_current_key_does_make_the_next_line() {
    let world = World::new();
    let head = {
        let log = world.open_with_lines(19);
        log.head()
    };
    let path = world.last_segment();
    let prev = line::hex_text(&head.mac);
    let body = format!(
        "{{\"seq\":21,\"time\":\"2027-01-15T08:00:00.000000Z\",\"action\":\"read\",\"prev\":\"{prev}\""
    );
    let next = sealed_by(&stolen(&world, 20), body.as_bytes());
    overwrite(&path, &[lines(&path).concat(), next].concat());
    assert_eq!(world.damage(None), None);
}

/// L4. No byte that a caller may choose makes a second line or reaches a terminal.
#[test]
fn any_comm_and_exe_make_one_line_of_printable_ascii() {
    let world = World::new();
    let log = world.open();
    let mut hostile: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![b'a', byte, b'z']).collect();
    hostile.extend(
        ["\u{2028}", "\u{202e}", "\u{85}", "\u{1f600}", "\",\"uid\":0,\"x\":\""].map(Into::into),
    );
    for bytes in &hostile {
        let path = std::os::unix::ffi::OsStringExt::from_vec(bytes.clone());
        let path = std::ffi::OsString::into(path);
        let mut caller = caller();
        let process = Arc::make_mut(caller.process.as_mut().unwrap());
        process.comm.clone_from(bytes);
        process.exe = Some(Exe { path, sha256: None });
        let event = Event::new(Action::Read, Outcome::Denied);
        log.append(&Event { caller: Some(&caller), ..event }).unwrap();
    }
    let written = lines(&world.last_segment());
    assert_eq!(written.len(), hostile.len() + 1);
    for (line, bytes) in written[1..].iter().zip(&hostile) {
        let (newline, text) = line.split_last().unwrap();
        assert!(*newline == b'\n' && text.iter().all(|byte| (0x20..0x7f).contains(byte)));
        let entry: Entry = serde_json::from_slice(text).unwrap();
        assert_eq!(entry.uid, Some(Uid(1000)));
        assert_eq!(entry.comm, entry.exe);
        match std::str::from_utf8(bytes) {
            Ok(text) => assert_eq!(entry.comm.as_deref(), Some(text)),
            Err(_) => assert_eq!(entry.not_utf8, ["exe", "comm"]),
        }
    }
    drop(log);
    assert_eq!(world.damage(None), None);
}

#[test]
fn texts_and_details_are_escaped_like_callers() {
    let world = World::new();
    let log = world.open();
    let detail = Some(serde_json::json!({ "k\u{9b}\n": "\u{202e}\u{7f}\u{1b}[31m" }));
    let event = Event::new(Action::Control, Outcome::Failed);
    let hostile = Some("a\n\u{2029}\u{80}\"");
    log.append(&Event { reason: hostile, rule: hostile, detail: detail.clone(), ..event }).unwrap();
    let line = lines(&world.last_segment()).pop().unwrap();
    assert!(line[..line.len() - 1].iter().all(|byte| (0x20..0x7f).contains(byte)));
    let entry: Entry = serde_json::from_slice(&line).unwrap();
    assert_eq!((entry.detail, entry.reason.as_deref()), (detail, hostile));
}
