//! The last lines of the log, for a start that has to know what was recorded just before.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memchr::memmem;

use super::segments::Ending;
use super::{Action, segments};
use crate::model::Seq;

/// How much is read at one time, from the end backwards.
const BLOCK: u64 = 64 << 10;

/// Returns the lines after `after`, the oldest first. What they say is not verified here: a start has verified the
/// last segment before.
pub fn tail(dir: &Path, after: Seq) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    back(dir, &mut |seq, line| {
        if seq <= after {
            return ControlFlow::Break(());
        }
        lines.push(line.to_vec());
        ControlFlow::Continue(())
    })?;
    lines.reverse();
    Ok(lines)
}

/// Returns those of the lines after `after` that were written for one of the requests, the oldest first. What they
/// say is not verified here either.
///
/// Callers wait for it, and nearly all lines are others': those are not looked at one by one.
pub fn written_for(dir: &Path, after: Seq, requests: &HashSet<u64>) -> io::Result<Vec<Vec<u8>>> {
    let field = memmem::Finder::new(FIELD);
    let is_wanted = |line: &&[u8]| {
        seq_of(line).is_some_and(|seq| seq > after)
            && request_of(line).is_some_and(|request| requests.contains(&request))
    };
    let mut blocks = Vec::new();
    blocks_back(dir, &mut |block| {
        let candidates = field.find_iter(block).filter(|at| {
            let number = block.get(at + FIELD.len()..).and_then(leading_number);
            number.is_some_and(|number| requests.contains(&number))
        });
        let lines = candidates.filter_map(|at| line_around(block, at)).filter(is_wanted);
        blocks.push(lines.map(<[u8]>::to_vec).collect::<Vec<_>>());
        let mut seqs = block.split(|&byte| byte == b'\n').filter_map(seq_of);
        match seqs.next() {
            Some(oldest) if oldest <= after => ControlFlow::Break(()),
            Some(_) | None => ControlFlow::Continue(()),
        }
    })?;
    Ok(blocks.into_iter().rev().flatten().collect())
}

/// Returns the line in which `at` is.
fn line_around(block: &[u8], at: usize) -> Option<&[u8]> {
    let (before, behind) = block.split_at_checked(at)?;
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let end = memchr::memchr(b'\n', behind).map_or(block.len(), |newline| at + newline);
    block.get(start..end)
}

/// Calls `visit` with each line, the youngest first, until it breaks off. What they say is not verified.
pub fn back(dir: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    blocks_back(dir, &mut |block| {
        for line in block.rsplit(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            // A half line at the end is no line, and room that is kept there holds zeros.
            let Some(seq) = seq_of(line) else { continue };
            visit(seq, line)?;
        }
        ControlFlow::Continue(())
    })
}

/// Calls `visit` with one block of whole lines after the other, the youngest first, until it breaks off.
fn blocks_back(dir: &Path, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
    for segment in segments::list(dir)?.iter().rev() {
        let mut file = segment.open()?;
        let mut start = file.metadata()?.len();
        let (mut block, mut rest) = (Vec::new(), Vec::new());
        loop {
            let len = start.min(BLOCK);
            start -= len;
            file.seek(SeekFrom::Start(start))?;
            block.clear();
            file.by_ref().take(len).read_to_end(&mut block)?;
            block.append(&mut rest);
            // What is before the first newline may begin in the block before.
            let whole = if start == 0 { 0 } else { after_newline(&block) };
            let (before, lines) = block.split_at(whole);
            rest.extend_from_slice(before);
            if visit(lines).is_break() {
                return Ok(());
            }
            if start == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Calls `visit` with each line behind the one of that number, the oldest first, until it breaks off. What they
/// say is not verified, and what has no number is passed over.
pub fn onward(dir: &Path, after: Seq, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut segments = segments::list(dir)?;
    segments::drop_before(&mut segments, after);
    for (place, segment) in segments.into_iter().enumerate() {
        let mut file = segment.open()?;
        // Whoever looks again and again must not read a long segment each time.
        let known = if place == 0 { line_at(&file, after)? } else { None };
        file.seek(SeekFrom::Start(known.map_or(0, |(_, end)| end)))?;
        let mut reader = BufReader::with_capacity(256 << 10, file);
        let mut line = Vec::new();
        while segments::read_line(&mut reader, &mut line)? == Ending::Newline {
            let Some(seq) = seq_of(&line).filter(|seq| *seq > after) else { continue };
            if visit(seq, &line).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What [`back`] and [`onward`] call.
pub(super) type Visit<'v> = dyn FnMut(Seq, &[u8]) -> ControlFlow<()> + 'v;

/// Tells whether a line is about this action, without reading it whole.
pub fn is_about(line: &[u8], action: Action) -> bool {
    // Behind the number and the time, before anything that a caller has chosen.
    let head = line.get(..line.len().min(HEAD)).unwrap_or_default();
    let field = format!(",\"action\":\"{action}\",");
    head.windows(field.len()).any(|window| window == field.as_bytes())
}

/// The bytes of a line up to its action, at most.
const HEAD: usize = 128;

/// Returns the line of that number in a segment and where it ends with its newline, found by halving: a start must not
/// read all of a large one.
pub(super) fn line_at(file: &File, seq: Seq) -> io::Result<Option<(Vec<u8>, u64)>> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    while high - low > BLOCK {
        let middle = low + (high - low) / 2;
        let read = file.read_at(&mut block, middle)?;
        let block = block.get(..read).unwrap_or_default();
        let start = after_newline(block);
        let rest = block.get(start..).unwrap_or_default();
        let line = rest.get(..after_newline(rest)).unwrap_or_default();
        match seq_of(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(found) if found <= seq => low = middle + start as u64,
            Some(_) => high = middle,
            // A line that is longer than a block: whoever asks reads on from here.
            None => break,
        }
    }
    let mut found = None;
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(low))?;
    let (mut line, mut end) = (Vec::new(), low);
    while found.is_none() && reader.read_until(b'\n', &mut line)? > 0 {
        end += line.len() as u64;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        match seq_of(text) {
            Some(this) if this == seq => found = Some((text.to_vec(), end)),
            Some(this) if this > seq => break,
            Some(_) | None => {}
        }
        line.clear();
    }
    Ok(found)
}

/// Returns the number of the request that a line was written for, without reading it whole.
fn request_of(line: &[u8]) -> Option<u64> {
    // Near the end; in a text of the caller's the quotes would be escaped.
    let at = line.windows(FIELD.len()).rposition(|window| window == FIELD)?;
    leading_number(line.get(at + FIELD.len()..)?)
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

const FIELD: &[u8] = b",\"request\":";

fn after_newline(block: &[u8]) -> usize {
    block.iter().position(|&byte| byte == b'\n').map_or(block.len(), |at| at + 1)
}

pub(super) fn seq_of(line: &[u8]) -> Option<Seq> {
    let digits = line.strip_prefix(b"{\"seq\":")?;
    let end = digits.iter().position(|&byte| byte == b',')?;
    line.ends_with(b"\"}").then_some(())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok().map(Seq)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(seq: u64) -> String {
        let request =
            if seq.is_multiple_of(3) { format!(",\"request\":{seq}0") } else { String::new() };
        let comm = "x".repeat(usize::try_from(seq % 700).unwrap());
        format!("{{\"seq\":{seq},\"comm\":\"{comm}\"{request},\"mac\":\"00\"}}")
    }

    fn segments(dir: &Path) {
        for first in [1_u64, 1000, 2000] {
            let text: String =
                (first..first + 1000 - u64::from(first == 1)).map(|n| line(n) + "\n").collect();
            put(&dir.join(format!("{first:020}.jsonl")), text.as_bytes());
        }
        // A crash leaves half a line, and room that was kept.
        let last = dir.join(format!("{:020}.jsonl", 2000));
        let mut text = std::fs::read(&last).unwrap();
        text.extend_from_slice(b"{\"seq\":3000,\"comm");
        text.extend_from_slice(&[0; 4096]);
        put(&last, &text);
    }

    fn put(path: &Path, bytes: &[u8]) {
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn the_last_lines_are_found_over_the_borders_of_blocks_and_segments() {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path());
        for after in [2998, 2500, 1998, 999, 1, 0] {
            let found = tail(dir.path(), Seq(after)).unwrap();
            let expected: Vec<_> = (after + 1..3000).map(|n| line(n).into_bytes()).collect();
            assert!(found == expected, "after {after}: {} lines", found.len());
        }
    }

    #[test]
    fn the_lines_of_requests_are_found_in_their_order_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path());
        // One is written for no request, one comes too early, one is not there.
        let requests = HashSet::from([30, 40, 5010, 15_000, 29_940, 29_970, 99_990]);
        for (after, expected) in [
            (0, &[3, 501, 1500, 2994, 2997][..]),
            (501, &[1500, 2994, 2997]),
            (2994, &[2997]),
            (2997, &[]),
        ] {
            let found = written_for(dir.path(), Seq(after), &requests).unwrap();
            let expected: Vec<_> = expected.iter().map(|n| line(*n).into_bytes()).collect();
            assert_eq!(found, expected, "after {after}");
        }
    }

    #[test]
    fn going_onward_passes_over_what_is_no_line_and_ends_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path());
        let first = dir.path().join(format!("{:020}.jsonl", 1));
        let spoilt =
            std::fs::read_to_string(&first).unwrap().replacen("{\"seq\":500,", "{\"sq\":500,", 1);
        put(&first, spoilt.as_bytes());
        for after in [2998, 1998, 999, 499, 3] {
            let mut found = Vec::new();
            onward(dir.path(), Seq(after), &mut |seq, text| {
                assert_eq!(text, line(seq.0).as_bytes());
                found.push(seq.0);
                if seq.0 == 2999 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
            let expected: Vec<u64> = (after + 1..3000).filter(|seq| *seq != 500).collect();
            assert_eq!(found, expected, "after {after}");
        }
    }

    #[test]
    fn any_line_of_a_segment_is_found_and_none_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path());
        for segment in segments::list(dir.path()).unwrap() {
            let file = segment.open().unwrap();
            let first = segment.first.0;
            for seq in (first..first + 999).step_by(37).chain([first]) {
                let (text, end) = line_at(&file, Seq(seq)).unwrap().unwrap();
                assert_eq!(text, line(seq).into_bytes(), "{seq}");
                let before: usize = (first..=seq).map(|n| line(n).len() + 1).sum();
                assert_eq!(end, before as u64, "{seq}");
            }
            assert_eq!(line_at(&file, Seq(first + 5000)).unwrap(), None);
        }
    }

    #[test]
    fn a_request_is_read_off_the_end_of_its_line() {
        assert_eq!(request_of(line(3).as_bytes()), Some(30));
        assert_eq!(request_of(line(4).as_bytes()), None);
        assert_eq!(request_of(b"{\"seq\":1,\"comm\":\"\\\",\\\"request\\\":7\"}"), None);
    }
}
