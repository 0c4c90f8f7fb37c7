//! Scans one file at a time, in memory that does not grow with it.
//!
//! A file that fits into the buffer is scanned at once. A longer one is scanned in pieces that overlap, and
//! each place is answered for by one piece, so that nothing is found twice or lost between two.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::archive::{self, Archive, Budget};
use super::candidate::{Candidate, Outcome};
use super::engine::Engine;
use super::file_kind::FileKind;
use super::finding::{Commit, Finding, Fingerprint, Place, Scan, State, Suppression, Unread};
use super::redact::Redacted;
use super::severity::{Confidence, Severity};
use super::stored::Stored;
use super::suppress::{Baseline, is_allowed_inline};
use super::utf16::{Order, Utf16Reader};
use crate::model::SecretType;

/// How much of a file is scanned at once: it stays in the processor's cache.
const PIECE: usize = 256 << 10;
/// What follows a place that is answered for: the longest window of a rule.
const AFTER: usize = 36 << 10;
/// What comes before it: a keyword, a name, the rest of a line.
const BEFORE: usize = 4 << 10;
/// How much of a file tells whether it is text.
const HEAD: usize = 8 << 10;

/// How much is read first: of most files all, and of one that is no text no more than this.
const FIRST: usize = 16 << 10;

/// Why something was not read that could have been.
pub(super) const OUT_OF_TIME: &str = "the time was up";

/// What is asked of a scan, beside the rules.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub min_confidence: Confidence,
    pub min_severity: Severity,
    /// Keeps what was filtered, with the reason.
    pub explain: bool,
    pub baseline: Arc<Baseline>,
    /// Values of a store that are looked for too.
    pub stored: Option<Arc<Stored>>,
    /// When whoever waits does so no longer: what was not read by then is reported as that.
    pub until: Option<Instant>,
}

impl Wanted {
    /// Tells whether the time is up.
    pub(super) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            min_confidence: Confidence::new(0.5),
            min_severity: Severity::Low,
            explain: false,
            baseline: Arc::default(),
            stored: None,
            until: None,
        }
    }
}

/// What a finding says of its kind.
struct About {
    rule: Box<str>,
    description: Box<str>,
    kind: SecretType,
    severity: Severity,
}

/// How a file is called.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    /// In the report.
    pub shown: &'a str,
    /// In fingerprints: the same wherever the scan was started. Asked for when there is something to tell of the file.
    pub stable: &'a dyn Fn() -> PathBuf,
    pub commit: Option<&'a Commit>,
}

/// Scans files, one after another, with the same buffers.
#[derive(Debug)]
pub(super) struct FileScanner<'a> {
    engine: &'a Engine,
    wanted: &'a Wanted,
    /// One for each archive within an archive.
    buffers: Vec<Vec<u8>>,
    pub scan: Scan,
}

impl<'a> FileScanner<'a> {
    pub(super) fn new(engine: &'a Engine, wanted: &'a Wanted) -> Self {
        Self { engine, wanted, buffers: Vec::new(), scan: Scan::default() }
    }

    /// Scans a file by its contents, be it a text, an archive or neither.
    pub(super) fn scan_file(&mut self, file: std::fs::File, name: &Name<'_>) {
        let mut file = file;
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(PIECE, 0);
        let scanned = begin(&mut file, &mut buffer).and_then(|len| {
            let head = buffer.get(..len).unwrap_or_default();
            match archive::kind(head) {
                Some(kind) => {
                    let budget = &mut Budget::default();
                    Archive { scanner: self, name, depth: 0 }.scan(
                        kind,
                        archive::Source::File(file),
                        budget,
                    )
                }
                None => self.scan_text(&mut file, &mut buffer, len, name),
            }
        });
        self.buffers.push(buffer);
        self.scan.totals.files += 1;
        if let Err(error) = scanned {
            self.unread(name.shown, &error);
        }
    }

    /// Scans a stream by its contents; archives are opened down to a depth.
    pub(super) fn scan_stream(
        &mut self,
        reader: &mut dyn Read,
        name: &Name<'_>,
        depth: usize,
        budget: &mut Budget,
    ) -> io::Result<()> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(PIECE, 0);
        let scanned = begin(reader, &mut buffer).and_then(|len| {
            let head = buffer.get(..len).unwrap_or_default();
            match archive::kind(head) {
                Some(kind) => {
                    let head = head.to_vec();
                    let source = archive::Source::Stream(head, reader);
                    Archive { scanner: self, name, depth }.scan(kind, source, budget)
                }
                None => self.scan_text(reader, &mut buffer, len, name),
            }
        });
        self.buffers.push(buffer);
        self.scan.totals.files += 1;
        scanned
    }

    /// Scans what a reader gives; a failure to read is part of the result.
    pub(super) fn scan_contents(&mut self, reader: &mut dyn Read, name: &Name<'_>) {
        if let Err(error) = self.scan_stream(reader, name, 0, &mut Budget::default()) {
            self.unread(name.shown, &error);
        }
    }

    pub(super) fn into_scan(self) -> Scan {
        self.scan
    }

    pub(super) fn unread(&mut self, path: &str, why: &dyn std::fmt::Display) {
        self.scan.unread.push(Unread { path: path.to_owned(), why: why.to_string() });
    }

    /// Scans a text of which the first `len` bytes are in the buffer.
    fn scan_text(
        &mut self,
        reader: &mut dyn Read,
        buffer: &mut [u8],
        len: usize,
        name: &Name<'_>,
    ) -> io::Result<()> {
        let head = buffer.get(..len.min(HEAD)).unwrap_or_default();
        if memchr::memchr(0, head).is_none() {
            return self.scan_pieces(reader, buffer, len, Contents::Text, name);
        }
        let Some(order) = Order::of(head) else {
            self.scan.totals.binary += 1;
            // The rules are about texts; a value is itself anywhere.
            return match self.wanted.stored {
                Some(_) => self.scan_pieces(reader, buffer, len, Contents::Binary, name),
                None => Ok(()),
            };
        };
        let start = buffer.get(..len).unwrap_or_default().to_vec();
        let mut text = Utf16Reader::new(io::Read::chain(&start[..], reader), order);
        let len = fill(&mut text, buffer, 0)?;
        self.scan_pieces(&mut text, buffer, len, Contents::Text, name)
    }

    fn scan_pieces(
        &mut self,
        reader: &mut dyn Read,
        buffer: &mut [u8],
        len: usize,
        contents: Contents,
        name: &Name<'_>,
    ) -> io::Result<()> {
        let kind = FileKind::of(Path::new(name.shown));
        // A shorter beginning is the whole file.
        let len = if len == FIRST { fill(reader, buffer, len)? } else { len };
        let mut piece = Piece { contents, len, from: 0, line: 1, column: 0 };
        loop {
            let text = buffer.get(..piece.len).unwrap_or_default();
            let is_last = piece.len < buffer.len();
            let to = if is_last { piece.len } else { piece.len - AFTER };
            let mut candidates = match contents {
                Contents::Binary => Vec::new(),
                Contents::Text => self.engine.scan(text, kind),
            };
            if let Some(stored) = &self.wanted.stored {
                stored.find(text, &mut candidates);
            }
            self.take(text, candidates, piece.from..to, &piece, name);
            self.scan.totals.bytes += u64::try_from(to - piece.from).unwrap_or(0);
            if is_last {
                return Ok(());
            }
            if self.wanted.is_late() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, OUT_OF_TIME));
            }
            let cut = to - BEFORE;
            piece.pass(buffer.get(..cut).unwrap_or_default());
            buffer.copy_within(cut.., 0);
            let kept = piece.len - cut;
            piece.from = BEFORE;
            piece.len = fill(reader, buffer, kept)?;
        }
    }

    /// Makes findings of the candidates that begin within `answered`.
    fn take(
        &mut self,
        text: &[u8],
        candidates: Vec<Candidate>,
        answered: Range<usize>,
        piece: &Piece,
        name: &Name<'_>,
    ) {
        if candidates.is_empty() {
            return;
        }
        let spans: Vec<Range<usize>> = candidates.iter().map(|one| one.span.clone()).collect();
        let mut at = piece.place(text, 0);
        let mut passed = 0;
        for candidate in candidates.into_iter().filter(|one| answered.contains(&one.span.start)) {
            if matches!(candidate.outcome, Outcome::Filtered(_)) && !self.wanted.explain {
                continue;
            }
            let skipped = text.get(passed..candidate.span.start).unwrap_or_default();
            at = at.after(skipped);
            passed = candidate.span.start;
            let Some(finding) = self.finding(text, candidate, at, &spans, piece, name) else {
                continue;
            };
            self.scan.findings.push(finding);
        }
    }

    fn finding(
        &self,
        text: &[u8],
        candidate: Candidate,
        at: LineColumn,
        spans: &[Range<usize>],
        piece: &Piece,
        name: &Name<'_>,
    ) -> Option<Finding> {
        let about = self.about(&candidate)?;
        let span = candidate.span.clone();
        let inside = text.get(span.clone()).unwrap_or_default();
        let confidence = match candidate.outcome {
            Outcome::Found(confidence) => Some(confidence),
            Outcome::Filtered(_) => None,
        };
        if about.severity < self.wanted.min_severity
            || confidence.is_some_and(|confidence| confidence < self.wanted.min_confidence)
        {
            return None;
        }
        let mut finding = Finding {
            fingerprint: Fingerprint::of(&about.rule, &(name.stable)(), candidate.trace),
            rule: about.rule,
            description: about.description,
            kind: about.kind,
            severity: about.severity,
            place: Place {
                path: name.shown.to_owned(),
                line: at.line,
                column: at.column + 1,
                end_line: at.after(inside).line,
                commit: name.commit.cloned(),
            },
            encodings: candidate.encodings,
            secret: candidate.redacted,
            context: match piece.contents {
                Contents::Binary => Redacted::default(),
                Contents::Text => Redacted::context(text, &span, spans),
            },
            stored: candidate.stored,
            state: match candidate.outcome {
                Outcome::Filtered(reason) => State::Filtered(reason),
                Outcome::Found(confidence) => State::Found(confidence),
            },
        };
        if let Some((confidence, suppression)) =
            confidence.zip(self.suppression(text, &span, &finding, name))
        {
            finding.state = State::Suppressed(confidence, suppression);
        }
        Some(finding)
    }

    fn about(&self, candidate: &Candidate) -> Option<About> {
        if let Some(origin) = &candidate.stored {
            return Some(About {
                rule: "stored-secret".into(),
                description: format!("The stored secret {origin}").into(),
                kind: SecretType::default(),
                severity: Severity::Critical,
            });
        }
        let rule = self.engine.rules.get(candidate.rule)?;
        Some(About {
            rule: rule.id.clone(),
            description: rule.description.clone(),
            kind: rule.kind,
            severity: rule.severity,
        })
    }

    fn suppression(
        &self,
        text: &[u8],
        span: &Range<usize>,
        finding: &Finding,
        name: &Name<'_>,
    ) -> Option<Suppression> {
        if is_allowed_inline(text, span, &finding.rule) {
            return Some(Suppression::Inline);
        }
        let covers = |allow: &&super::rule::Allow| allow.covers(finding, Path::new(name.shown));
        match self.engine.allows.iter().find(covers) {
            Some(allow) => Some(Suppression::Allowed(allow.reason.clone())),
            None => self.wanted.baseline.suppression(finding.fingerprint),
        }
    }
}

/// Scans one stream, such as standard input, as a file of that name.
pub fn scan_reader(engine: &Engine, wanted: &Wanted, name: &str, reader: &mut dyn Read) -> Scan {
    let mut scanner = FileScanner::new(engine, wanted);
    let stable = || PathBuf::from(name);
    scanner.scan_contents(reader, &Name { shown: name, stable: &stable, commit: None });
    let mut scan = scanner.into_scan();
    scan.sort();
    scan
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Contents {
    Binary,
    Text,
}

/// A piece of a file in the buffer.
struct Piece {
    contents: Contents,
    /// How many bytes of the buffer it fills.
    len: usize,
    /// Where the part begins that it answers for.
    from: usize,
    /// The line and column, from 0, of its first byte.
    line: u64,
    column: u64,
}

impl Piece {
    fn place(&self, text: &[u8], at: usize) -> LineColumn {
        LineColumn { line: self.line, column: self.column }
            .after(text.get(..at).unwrap_or_default())
    }

    /// Counts what leaves the buffer.
    fn pass(&mut self, gone: &[u8]) {
        let LineColumn { line, column } = self.place(gone, gone.len());
        (self.line, self.column) = (line, column);
    }
}

#[derive(Clone, Copy)]
struct LineColumn {
    line: u64,
    column: u64,
}

impl LineColumn {
    fn after(self, text: &[u8]) -> Self {
        let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let lines = count(memchr::memchr_iter(b'\n', text).count());
        match memchr::memrchr(b'\n', text) {
            Some(last) => Self { line: self.line + lines, column: count(text.len() - last - 1) },
            None => Self { line: self.line, column: self.column + count(text.len()) },
        }
    }
}

/// Reads the beginning of a file.
fn begin(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    fill(reader, buffer.get_mut(..FIRST).unwrap_or_default(), 0)
}

/// Reads until the buffer is full or the file ends; returns how many bytes of the buffer are filled.
fn fill(reader: &mut dyn Read, buffer: &mut [u8], filled: usize) -> io::Result<usize> {
    let mut len = filled;
    while let Some(room) = buffer.get_mut(len..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
