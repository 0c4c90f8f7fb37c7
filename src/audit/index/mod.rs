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

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::line::{HexMac, split_mac};
use super::reader::Filter;
use super::segments::{self, Ending, SegmentFile, read_line};
use crate::model::{Seq, Timestamp};

mod key;

use key::{Hash, filter_keys, line_keys, place_keys};

/// A block ends with the line that reaches this. Smaller ones are read faster and make more numbers.
const BLOCK_BYTES: u64 = 4 << 10;

/// What is known of one segment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Index {
    format: u32,
    first: Seq,
    /// Where its last line ends.
    bytes: u64,
    /// The code of its last line, which stands for the whole segment.
    mac: Vec<u8>,
    blocks: Records<{ Block::BYTES }>,
    /// In ascending order, each with where its block numbers begin in `numbers`.
    keys: Records<{ Key::BYTES }>,
    /// For each key the distances between the numbers of its blocks, in seven bits a byte.
    numbers: Records<1>,
    /// Blocks that are read for every search.
    unknown: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    start: u64,
    first: Seq,
    /// The times of its lines, in microseconds: clocks are set back.
    times: (i64, i64),
}

/// A key, and where its block numbers begin.
#[derive(Clone, Copy, Debug)]
struct Key {
    hash: Hash,
    begin: u32,
}

impl Index {
    const FORMAT: u32 = 2;

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
        let blocks = blocks.into_iter().map(Block::write).collect();
        let mut postings: Vec<(Hash, Vec<u32>)> = found.into_iter().collect();
        postings.sort_unstable_by_key(|(hash, _)| *hash);
        let (mut keys, mut numbers) = (Vec::with_capacity(postings.len()), Vec::new());
        for (hash, in_blocks) in postings {
            let begin = u32::try_from(numbers.len()).map_err(io::Error::other)?;
            keys.push(Key { hash, begin }.write());
            push_distances(&mut numbers, &in_blocks);
        }
        let (format, first) = (Self::FORMAT, segment.first);
        let (keys, numbers) = (keys.into_iter().collect(), Records(numbers));
        Ok(Self { format, first, bytes: at, mac, blocks, keys, numbers, unknown })
    }

    /// Tells whether it is of the format that this program builds.
    pub fn is_current(&self) -> bool {
        self.format == Self::FORMAT
    }

    /// Tells whether a segment is the one that this was built of, as far as its length and its last line tell.
    pub(super) fn fits(&self, segment: &SegmentFile) -> io::Result<bool> {
        if !self.is_current() || self.first != segment.first {
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
        let wanted = match wanted {
            None => (0..u32::try_from(self.blocks.all().len()).unwrap_or(u32::MAX)).collect(),
            Some(mut wanted) => {
                wanted.extend_from_slice(&self.unknown);
                wanted.sort_unstable();
                wanted.dedup();
                wanted
            }
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in wanted {
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

    fn block(&self, number: u32) -> Option<(Block, Range<u64>)> {
        let number = usize::try_from(number).ok()?;
        let blocks = self.blocks.all();
        let block = Block::read(blocks.get(number)?);
        let next = blocks.get(number + 1).map(Block::read);
        let end = next.map_or(self.bytes, |next| next.start);
        Some((block, block.start..end))
    }

    /// Tells whether all lines of a block are before the first that is asked for.
    fn is_before(&self, number: u32, filter: &Filter) -> bool {
        let Some(after) = filter.after else { return false };
        self.block(number + 1).is_some_and(|(next, _)| next.first.0 <= after.0.saturating_add(1))
    }

    fn blocks_with(&self, hash: Hash) -> Vec<u32> {
        let keys = self.keys.all();
        let at = keys.partition_point(|key| Key::read(key).hash < hash);
        let key = |at: usize| keys.get(at).map(Key::read);
        let Some(found) = key(at).filter(|key| key.hash == hash) else { return Vec::new() };
        let place = |key: Key| usize::try_from(key.begin).unwrap_or(usize::MAX);
        let end = key(at + 1).map_or(self.numbers.0.len(), place);
        distances(self.numbers.0.get(place(found)..end).unwrap_or_default())
    }
}

/// Records of a fixed length, one behind the other. A search looks at few of them, so that they are not decoded
/// when an index is: with the keys of a long log that would take longer than the search.
#[derive(Clone, Debug, Default, PartialEq)]
struct Records<const BYTES: usize>(Vec<u8>);

impl<const BYTES: usize> Records<BYTES> {
    fn all(&self) -> &[[u8; BYTES]] {
        self.0.as_chunks().0
    }
}

impl<const BYTES: usize> FromIterator<[u8; BYTES]> for Records<BYTES> {
    fn from_iter<I: IntoIterator<Item = [u8; BYTES]>>(records: I) -> Self {
        Self(records.into_iter().flatten().collect())
    }
}

impl<const BYTES: usize> Serialize for Records<BYTES> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de, const BYTES: usize> Deserialize<'de> for Records<BYTES> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Borrowed, which postcard can: byte by byte it takes much longer.
        <&[u8]>::deserialize(from).map(|bytes| Self(bytes.to_vec()))
    }
}

impl Key {
    const BYTES: usize = 12;

    fn write(self) -> [u8; Self::BYTES] {
        let mut record = [0; Self::BYTES];
        let (hash, begin) = record.split_at_mut(8);
        hash.copy_from_slice(&self.hash.to_le_bytes());
        begin.copy_from_slice(&self.begin.to_le_bytes());
        record
    }

    fn read(record: &[u8; Self::BYTES]) -> Self {
        let [hash @ .., b0, b1, b2, b3] = *record;
        Self { hash: Hash::from_le_bytes(hash), begin: u32::from_le_bytes([b0, b1, b2, b3]) }
    }
}

impl Block {
    const BYTES: usize = 32;

    fn write(self) -> [u8; Self::BYTES] {
        let words =
            [self.start, self.first.0, self.times.0.cast_unsigned(), self.times.1.cast_unsigned()];
        let mut record = [0; Self::BYTES];
        for (to, word) in record.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        record
    }

    fn read(record: &[u8; Self::BYTES]) -> Self {
        let mut words = [0; 4];
        for (word, from) in words.iter_mut().zip(record.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*from);
        }
        let [start, first, earliest, latest] = words;
        let times = (earliest.cast_signed(), latest.cast_signed());
        Self { start, first: Seq(first), times }
    }

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
