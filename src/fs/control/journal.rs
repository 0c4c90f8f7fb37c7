//! Lines in memory, seen as a file that only grows: `tail -f` and poll(2) work on it.

use std::collections::VecDeque;

/// A bounded tail of a growing file. What was dropped reads as empty lines, so that no offset ever
/// changes its meaning while somebody reads.
#[derive(Debug)]
pub(super) struct Journal {
    bytes: VecDeque<u8>,
    /// The file's offset of the first byte that is still held.
    start: u64,
    max_bytes: usize,
}

impl Journal {
    /// Returns an empty file of which at most `max_bytes` are held.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { bytes: VecDeque::new(), start: 0, max_bytes }
    }

    /// Returns a file that ends at `end`, of which `text` was the last. What goes beyond the bound, or
    /// before the file's start, is left out.
    pub(super) fn ending(text: &str, end: u64, max_bytes: usize) -> Self {
        let most = usize::try_from(end).unwrap_or(usize::MAX).min(max_bytes);
        let bytes: VecDeque<u8> = text.bytes().skip(text.len().saturating_sub(most)).collect();
        Self { start: end - bytes.len() as u64, bytes, max_bytes }
    }

    /// Adds a line; the newline is added here. The oldest lines make room.
    pub(super) fn push(&mut self, line: &str) {
        self.bytes.extend(line.as_bytes());
        self.bytes.push_back(b'\n');
        while self.bytes.len() > self.max_bytes {
            let line = self.bytes.iter().position(|&b| b == b'\n').unwrap_or(self.bytes.len());
            let gone = self.bytes.drain(..(line + 1).min(self.bytes.len())).len();
            self.start += gone as u64;
        }
    }

    /// Returns the size in bytes of the file.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Reads at most `len` bytes from `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        if offset < self.start {
            let gone = usize::try_from(self.start - offset).unwrap_or(usize::MAX);
            return vec![b'\n'; gone.min(len)];
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        self.bytes.iter().skip(skip).take(len).copied().collect()
    }

    /// Lets the file start at what is still held; only while nobody has it open.
    pub(super) fn rebase(&mut self) {
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_follows_sees_every_byte_once() {
        let mut journal = Journal::new(64);
        let mut seen = Vec::new();
        for line in ["one", "two", "three"] {
            journal.push(line);
            seen.extend(journal.read(seen.len() as u64, 3));
        }
        while (seen.len() as u64) < journal.end() {
            seen.extend(journal.read(seen.len() as u64, 3));
        }
        assert_eq!(seen, b"one\ntwo\nthree\n");
        assert!(journal.read(journal.end(), 3).is_empty());
    }

    #[test]
    fn whole_lines_are_dropped_and_offsets_keep_their_meaning() {
        let mut journal = Journal::new(8);
        journal.push("abc");
        journal.push("def");
        journal.push("ghi");
        assert_eq!(journal.end(), 12);
        assert_eq!(journal.read(0, 100), b"\n\n\n\n");
        assert_eq!(journal.read(4, 100), b"def\nghi\n");
    }

    #[test]
    fn a_file_that_is_made_again_has_its_bytes_at_their_offsets() {
        let mut first = Journal::new(64);
        ["one", "two", "three"].into_iter().for_each(|line| first.push(line));
        let mut again = Journal::ending("zero\none\ntwo\nthree\n", first.end(), 64);
        assert_eq!((again.end(), again.read(0, 100)), (first.end(), first.read(0, 100)));
        again.push("four");
        assert_eq!(again.read(first.end(), 100), b"four\n");
        let lagging = Journal::ending("three\n", 14, 64);
        assert_eq!(lagging.read(0, 100), b"\n\n\n\n\n\n\n\n");
    }

    #[test]
    fn a_line_longer_than_the_bound_is_not_held() {
        let mut journal = Journal::new(4);
        journal.push("abcdefgh");
        assert_eq!((journal.end(), journal.read(9, 10)), (9, Vec::new()));
    }

    #[test]
    fn after_a_rebase_the_file_starts_at_what_is_held() {
        let mut journal = Journal::new(8);
        ["abc", "def", "ghi"].into_iter().for_each(|line| journal.push(line));
        journal.rebase();
        assert_eq!((journal.read(0, 100), journal.end()), (b"def\nghi\n".to_vec(), 8));
    }
}
