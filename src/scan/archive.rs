//! Archives, known by their contents and not by their names: zip (and what is one: docx, jar), tar, gzip.
//!
//! What is in them is scanned as it is unpacked, never written anywhere. Depth and size have limits, so
//! that a small file cannot keep a scan busy for ever; what is beyond them is reported as unread.

use std::fs::File;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::file::{FileScanner, Name};

/// Archives in archives in archives.
const MAX_DEPTH: usize = 4;
/// What all files of an outermost archive may unpack to.
const MAX_BYTES: u64 = 1 << 30;
/// A zip within an archive is held in memory: its directory stands at its end.
const MAX_IN_MEMORY: u64 = 64 << 20;
const MAX_ENTRIES: usize = 200_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Gzip,
    Tar,
    Zip,
}

/// Tells what archive begins so.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Kind::Zip),
        [0x1f, 0x8b, 8, ..] => Some(Kind::Gzip),
        _ => (head.get(257..262) == Some(b"ustar")).then_some(Kind::Tar),
    }
}

/// What may still be unpacked.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    entries: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_BYTES, entries: MAX_ENTRIES }
    }
}

/// Where the bytes of an archive come from.
pub(super) enum Source<'a> {
    File(File),
    /// The beginning, which was read already, and the rest.
    Stream(Vec<u8>, &'a mut dyn Read),
}

/// An archive that is being scanned.
pub(super) struct Archive<'a, 'b> {
    pub scanner: &'a mut FileScanner<'b>,
    pub name: &'a Name<'a>,
    pub depth: usize,
}

impl Archive<'_, '_> {
    pub(super) fn scan(
        &mut self,
        kind: Kind,
        source: Source<'_>,
        budget: &mut Budget,
    ) -> io::Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(io::Error::other("archives are nested too deeply to be unpacked"));
        }
        match kind {
            Kind::Gzip => {
                let inner = self.name.shown.rsplit(['/', '!']).next().unwrap_or_default();
                let stem = inner.strip_suffix(".gz").unwrap_or("data").to_owned();
                let stem = inner.strip_suffix(".tgz").map_or(stem, |stem| format!("{stem}.tar"));
                let mut reader = MultiGzDecoder::new(source.stream()?);
                self.entry(&stem, &mut reader, budget)
            }
            Kind::Tar => self.tar(source, budget),
            Kind::Zip => self.zip(source, budget),
        }
    }

    fn tar(&mut self, source: Source<'_>, budget: &mut Budget) -> io::Result<()> {
        let mut archive = tar::Archive::new(source.stream()?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let inner = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            self.entry(&inner, &mut entry, budget)?;
        }
        Ok(())
    }

    fn zip(&mut self, source: Source<'_>, budget: &mut Budget) -> io::Result<()> {
        match source {
            Source::File(file) => self.zip_entries(file, budget),
            Source::Stream(..) => {
                let mut bytes = Vec::new();
                source.stream()?.take(MAX_IN_MEMORY + 1).read_to_end(&mut bytes)?;
                if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_IN_MEMORY) {
                    return Err(io::Error::other(
                        "the zip within an archive is too large to be unpacked",
                    ));
                }
                self.zip_entries(Cursor::new(bytes), budget)
            }
        }
    }

    fn zip_entries(&mut self, reader: impl Read + io::Seek, budget: &mut Budget) -> io::Result<()> {
        let mut archive = zip::ZipArchive::new(reader)?;
        for index in 0..archive.len() {
            // One that is encrypted or packed in an unknown way does not hide the others.
            match archive.by_index(index) {
                Ok(entry) if !entry.is_file() => {}
                Ok(mut entry) => {
                    let inner = String::from_utf8_lossy(entry.name_raw()).into_owned();
                    self.entry(&inner, &mut entry, budget)?;
                }
                Err(error) => {
                    let path = format!("{}!/#{index}", self.name.shown);
                    self.scanner.unread(&path, &error);
                }
            }
        }
        Ok(())
    }

    /// Scans one file of the archive.
    fn entry(&mut self, inner: &str, reader: &mut dyn Read, budget: &mut Budget) -> io::Result<()> {
        let too_large = || io::Error::other("unpacks to more than is scanned of an archive");
        budget.entries = budget.entries.checked_sub(1).ok_or_else(too_large)?;
        let shown = format!("{}!/{inner}", self.name.shown);
        let stable = || {
            let mut stable = (self.name.stable)().into_os_string();
            stable.push(format!("!/{inner}"));
            stable.into()
        };
        let name = Name { shown: &shown, stable: &stable, commit: self.name.commit };
        let mut counted = Counted { inner: reader, left: budget.bytes };
        let scanned = self.scanner.scan_stream(&mut counted, &name, self.depth + 1, budget);
        budget.bytes = budget.bytes.min(counted.left);
        if budget.bytes == 0 {
            return Err(too_large());
        }
        if let Err(error) = scanned {
            self.scanner.unread(&shown, &error);
        }
        Ok(())
    }
}

impl<'a> Source<'a> {
    fn stream(self) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::File(mut file) => {
                io::Seek::rewind(&mut file)?;
                Box::new(io::BufReader::with_capacity(64 << 10, file))
            }
            Self::Stream(head, rest) => Box::new(Cursor::new(head).chain(rest)),
        })
    }
}

/// Ends when a limit is reached.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let read = self.inner.read(to.get_mut(..most).unwrap_or_default())?;
        self.left -= u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}
