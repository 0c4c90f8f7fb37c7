//! What stands where in a segment that is complete, so that a search reads few of its blocks.
//!
//! A block is some whole lines. For each secret, directory, user, program, unit, action and refusal that occurs
//! in the segment, the index has the numbers of the blocks with such lines; for each block its first line and the
//! times in it. Keys are hashes: two that fall together cost a block that is read for nothing. A block with a
//! line that was not understood is read for every search. An index is a help and nothing else: who keeps one has
//! to see to it that it is the one that was built, and a search goes without one that does not fit its segment.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::line::{HexMac, split_mac};
use super::reader::Filter;
use super::segments::{self, Ending, SegmentFile, read_line};
use crate::model::{Seq, Timestamp};

mod key;

use key::{Hash, filter_keys, line_keys, place_keys};

/// A block ends with the line that reaches this. Smaller ones are read faster and make more numbers.
const BLOCK_BYTES: u64 = 16 << 10;

/// What is known of one segment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Index {
    format: u32,
    first: Seq,
    /// Where its last line ends.
    bytes: u64,
    /// The code of its last line, which stands for the whole segment.
    mac: Vec<u8>,
    blocks: Vec<Block>,
    /// In ascending order, each with where its block numbers begin in `numbers`.
    keys: Vec<(Hash, u32)>,
    /// For each key the distances between the numbers of its blocks, in seven bits a byte.
    numbers: Vec<u8>,
    /// Blocks that are read for every search.
    unknown: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Block {
    start: u64,
    first: Seq,
    /// The times of its lines, in microseconds: clocks are set back.
    times: (i64, i64),
}

impl Index {
    const FORMAT: u32 = 1;

    /// Builds the index of a segment that takes no more lines.
    pub(super) fn build(segment: &SegmentFile) -> io::Result<Self> {
        let mut building = Building::default();
        let mut reader = BufReader::with_capacity(256 * 1024, segment.open()?);
        let (mut line, mut at, mut mac) = (Vec::new(), 0, Vec::new());
        while read_line(&mut reader, &mut line)? == Ending::Newline {
            building.add(at, &line);
            mac = split_mac(&line).map(|(_, mac)| mac.to_vec()).unwrap_or_default();
            at += line.len() as u64 + 1;
        }
        let Building { blocks, found, unknown, .. } = building;
        let mut postings: Vec<(Hash, Vec<u32>)> = found.into_iter().collect();
        postings.sort_unstable_by_key(|(hash, _)| *hash);
        let (mut keys, mut numbers) = (Vec::with_capacity(postings.len()), Vec::new());
        for (hash, in_blocks) in postings {
            keys.push((hash, u32::try_from(numbers.len()).map_err(io::Error::other)?));
            push_distances(&mut numbers, &in_blocks);
        }
        let (format, first) = (Self::FORMAT, segment.first);
        Ok(Self { format, first, bytes: at, mac, blocks, keys, numbers, unknown })
    }

    /// Tells whether a segment is the one that this was built of, as far as its length and its last line tell.
    pub(super) fn fits(&self, segment: &SegmentFile) -> io::Result<bool> {
        if self.format != Self::FORMAT || self.first != segment.first {
            return Ok(false);
        }
        let file = segment.open()?;
        if segments::end_of_lines(&file)? != self.bytes {
            return Ok(false);
        }
        let mut end = [0; size_of::<HexMac>() + END.len()];
        let Some(start) = self.bytes.checked_sub(end.len() as u64) else { return Ok(false) };
        file.read_exact_at(&mut end, start)?;
        Ok(end.strip_suffix(END).is_some_and(|mac| mac == self.mac))
    }

    /// Returns the parts of the segment that have to be read for a search.
    pub(super) fn ranges(&self, filter: &Filter) -> Vec<Range<u64>> {
        let mut sets: Vec<Vec<u32>> =
            filter_keys(filter).into_iter().map(|hash| self.blocks_with(hash)).collect();
        if let Some(place) = &filter.secret_prefix {
            let mut either = place_keys(place).map(|hash| self.blocks_with(hash)).concat();
            either.sort_unstable();
            sets.push(either);
        }
        let mut wanted: Option<Vec<u32>> = None;
        for has in sets {
            wanted = Some(match wanted {
                None => has,
                Some(before) => {
                    before.into_iter().filter(|number| has.binary_search(number).is_ok()).collect()
                }
            });
        }
        let all = 0..u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        let is_wanted = |number: &u32| match &wanted {
            None => true,
            Some(wanted) => {
                wanted.binary_search(number).is_ok() || self.unknown.binary_search(number).is_ok()
            }
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in all.filter(is_wanted) {
            let Some((block, range)) = self.block(number) else { continue };
            let is_unknown = self.unknown.binary_search(&number).is_ok();
            if !is_unknown && !block.may_hold(filter) || self.is_before(number, filter) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    fn block(&self, number: u32) -> Option<(&Block, Range<u64>)> {
        let number = usize::try_from(number).ok()?;
        let block = self.blocks.get(number)?;
        let end = self.blocks.get(number + 1).map_or(self.bytes, |next| next.start);
        Some((block, block.start..end))
    }

    /// Tells whether all lines of a block are before the first that is asked for.
    fn is_before(&self, number: u32, filter: &Filter) -> bool {
        let Some(after) = filter.after else { return false };
        self.block(number + 1).is_some_and(|(next, _)| next.first.0 <= after.0.saturating_add(1))
    }

    fn blocks_with(&self, hash: Hash) -> Vec<u32> {
        let Ok(place) = self.keys.binary_search_by_key(&hash, |(key, _)| *key) else {
            return Vec::new();
        };
        let begin =
            |place: usize| self.keys.get(place).and_then(|(_, begin)| usize::try_from(*begin).ok());
        let range = begin(place).unwrap_or(0)..begin(place + 1).unwrap_or(self.numbers.len());
        distances(self.numbers.get(range).unwrap_or_default())
    }
}

impl Block {
    fn may_hold(&self, filter: &Filter) -> bool {
        let (earliest, latest) = self.times;
        filter.since.is_none_or(|since| latest >= since.as_microsecond())
            && filter.until.is_none_or(|until| earliest <= until.as_microsecond())
    }
}

/// How every line ends behind its code.
const END: &[u8] = b"\"}\n";

#[derive(Default)]
struct Building {
    blocks: Vec<Block>,
    /// The numbers of the blocks with each key, ascending.
    found: HashMap<Hash, Vec<u32>>,
    unknown: Vec<u32>,
}

impl Building {
    fn add(&mut self, at: u64, line: &[u8]) {
        let parsed = line_keys(line);
        let (seq, time) = parsed.as_ref().map_or((None, None), |known| (known.seq, known.time));
        let is_full = |block: &Block| at - block.start >= BLOCK_BYTES;
        if self.blocks.last().is_none_or(is_full) {
            // Of a line that was not understood nothing is left out.
            let first = seq.unwrap_or(Seq(u64::MAX));
            self.blocks.push(Block { start: at, first, times: (i64::MAX, i64::MIN) });
        }
        let number = u32::try_from(self.blocks.len() - 1).unwrap_or(u32::MAX);
        match (self.blocks.last_mut(), time.map(Timestamp::as_microsecond)) {
            (Some(block), Some(time)) => {
                block.times = (block.times.0.min(time), block.times.1.max(time));
            }
            _ if self.unknown.last() == Some(&number) => {}
            _ => self.unknown.push(number),
        }
        for hash in parsed.into_iter().flat_map(|known| known.keys) {
            let numbers = self.found.entry(hash).or_default();
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
    }
}

fn push_distances(out: &mut Vec<u8>, numbers: &[u32]) {
    let mut before = 0;
    for number in numbers {
        let mut distance = number - before;
        before = *number;
        while distance >= 0x80 {
            out.push((distance & 0x7f) as u8 | 0x80);
            distance >>= 7;
        }
        out.push((distance & 0x7f) as u8);
    }
}

fn distances(bytes: &[u8]) -> Vec<u32> {
    let (mut numbers, mut number) = (Vec::new(), 0_u32);
    let (mut distance, mut shift) = (0_u32, 0);
    for byte in bytes {
        distance |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            number = number.saturating_add(distance);
            numbers.push(number);
            (distance, shift) = (0, 0);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(mut numbers: Vec<u32>) {
            numbers.sort_unstable();
            numbers.dedup();
            let mut bytes = Vec::new();
            push_distances(&mut bytes, &numbers);
            prop_assert_eq!(distances(&bytes), numbers);
        }
    }
}
