//! Finds the files of a tree and has them scanned, on all processors.
//!
//! One thread walks, and is never more than a few files ahead of those that scan: a directory is not held in memory.
//! Links are not followed, so there are no loops; what they point to is scanned where it stands. What
//! cannot be read is part of the result.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use ignore::{DirEntry, WalkBuilder};
use parking_lot::Mutex;

use super::file::{FileScanner, Name, OUT_OF_TIME};
use super::finding::{Scan, Unread};
use super::git::What;
use super::glob::Glob;
use crate::system;

/// Which files are looked at.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only files that fit one of these; all if there are none.
    pub only: Vec<Glob>,
    /// Never files that fit one of these.
    pub except: Vec<Glob>,
    pub ignored: Ignored,
}

/// What becomes of files that .gitignore names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ignored {
    Scan,
    #[default]
    Skip,
}

impl Selection {
    pub(super) fn takes(&self, path: &Path) -> bool {
        let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path));
        (self.only.is_empty() || fits(&self.only)) && !fits(&self.except)
    }
}

/// How far a scan is, for whoever waits.
#[derive(Debug, Default)]
pub struct Progress {
    pub files: AtomicU64,
    pub findings: AtomicU64,
}

/// Scans files and directories.
pub fn scan(what: &What<'_>, roots: &[PathBuf]) -> Scan {
    let selection = what.selection;
    let mut result = Scan::default();
    let mounts = secret_mounts();
    for root in roots {
        // By whatever name: one that leads there is no better than the mount itself.
        let whole = root.canonicalize().unwrap_or_default();
        if mounts.iter().any(|mount| whole.starts_with(mount)) {
            let why = "it is in a mount of secretfs".to_owned();
            result.unread.push(Unread { path: shown(root), why });
            continue;
        }
        let walk = walker(root, selection, &mounts);
        let walked = Walked { what, root: &Root::of(root), cut_off: AtomicBool::new(false) };
        result.merge(walked.scan(walk));
        if walked.cut_off.into_inner() {
            result.unread.push(Unread { path: shown(root), why: OUT_OF_TIME.to_owned() });
        }
    }
    result.sort();
    result
}

fn walker(root: &Path, selection: &Selection, mounts: &[PathBuf]) -> ignore::Walk {
    let skip = selection.ignored == Ignored::Skip;
    let mounts = mounts.to_vec();
    WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .git_ignore(skip)
        .git_exclude(skip)
        .parents(skip)
        .filter_entry(move |entry| is_scanned(entry, &mounts))
        .build()
}

/// Reading a mount of secrets would be on record as a theft of all of them.
fn secret_mounts() -> Vec<PathBuf> {
    let mounts = system::mounts().unwrap_or_default();
    mounts
        .into_iter()
        .filter(|mount| mount.fs_type == "fuse.secretfs")
        .map(|mount| mount.mountpoint)
        .collect()
}

/// Of git's own directory the configuration alone is text of people, and may hold a password.
fn is_scanned(entry: &DirEntry, mounts: &[PathBuf]) -> bool {
    let path = entry.path();
    let in_git = path.parent().and_then(Path::file_name).is_some_and(|name| name == ".git");
    if in_git && entry.depth() > 1 && entry.file_name() != "config" {
        return false;
    }
    mounts.is_empty() || !std::path::absolute(path).is_ok_and(|path| mounts.contains(&path))
}

/// What all files of one argument have in common.
struct Root {
    given: PathBuf,
    /// Where it stands in its repository, if it is in one: fingerprints begin there.
    within: PathBuf,
}

impl Root {
    fn of(given: &Path) -> Self {
        let whole = given.canonicalize().unwrap_or_else(|_| given.to_owned());
        let repository = whole.ancestors().find(|above| above.join(".git").exists());
        let within = match repository.and_then(|above| whole.strip_prefix(above).ok()) {
            Some(within) => within.to_owned(),
            None if whole.is_dir() => PathBuf::new(),
            None => whole.file_name().map(PathBuf::from).unwrap_or_default(),
        };
        Self { given: given.to_owned(), within }
    }

    fn stable(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.given) {
            Ok(below) if below.as_os_str().is_empty() => self.within.clone(),
            Ok(below) => self.within.join(below),
            Err(_) => path.to_owned(),
        }
    }
}

/// One argument that is being scanned.
struct Walked<'a> {
    what: &'a What<'a>,
    root: &'a Root,
    /// Some of it was left unread because the time was up.
    cut_off: AtomicBool,
}

/// What the walk hands over at once.
type Batch = Vec<Result<DirEntry, ignore::Error>>;

/// Few enough that all processors have something to do in a small tree.
const BATCH: usize = 16;
/// In a large one, so many that handing them over costs nothing beside scanning them.
const LARGE_BATCH: usize = 128;

impl Walked<'_> {
    /// Scans what a walk comes by, by a thread for each processor.
    fn scan(&self, walk: ignore::Walk) -> Scan {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (sender, receiver) = mpsc::sync_channel(threads);
        let receiver = Arc::new(Mutex::new(receiver));
        std::thread::scope(|scope| {
            let worker = || {
                let receiver = Arc::clone(&receiver);
                scope.spawn(move || self.scan_some(&receiver))
            };
            let workers: Vec<_> = (0..threads).map(|_| worker()).collect();
            // Only they hold it now: if all of them have failed, nobody waits for them.
            drop(receiver);
            self.walk(walk, &sender);
            drop(sender);
            let mut all = Scan::default();
            for worker in workers {
                match worker.join() {
                    Ok(scan) => all.merge(scan),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    }

    fn walk(&self, walk: ignore::Walk, sender: &mpsc::SyncSender<Batch>) {
        let mut batch = Batch::with_capacity(BATCH);
        let (mut walked, mut size) = (0, BATCH);
        for entry in walk {
            if self.is_late() {
                return;
            }
            batch.push(entry);
            if batch.len() == size {
                walked += size;
                size = (walked / BATCH).clamp(BATCH, LARGE_BATCH);
                let full = std::mem::replace(&mut batch, Batch::with_capacity(size));
                if sender.send(full).is_err() {
                    return;
                }
            }
        }
        // That nobody takes it is known by whoever joins them.
        drop(sender.send(batch));
    }

    fn scan_some(&self, receiver: &Mutex<mpsc::Receiver<Batch>>) -> Scan {
        let mut scanner = FileScanner::new(self.what.engine, self.what.wanted);
        loop {
            let Ok(batch) = receiver.lock().recv() else { return scanner.into_scan() };
            for entry in batch {
                if self.is_late() {
                    return scanner.into_scan();
                }
                match entry {
                    Ok(entry) => self.scan_entry(&mut scanner, &entry),
                    Err(error) => {
                        let path = error_path(&error).unwrap_or(&self.root.given);
                        scanner.unread(&shown(path), &error);
                    }
                }
            }
        }
    }

    fn is_late(&self) -> bool {
        let late = self.what.wanted.is_late();
        if late {
            self.cut_off.store(true, Ordering::Relaxed);
        }
        late
    }

    fn scan_entry(&self, scanner: &mut FileScanner<'_>, entry: &DirEntry) {
        let path = entry.path();
        // An argument is followed if it is a link; what is found on the way is not.
        let is_file = match entry.file_type() {
            Some(kind) if entry.depth() == 0 && kind.is_symlink() => path.is_file(),
            Some(kind) => kind.is_file(),
            None => false,
        };
        if !is_file || !self.what.selection.takes(path) {
            return;
        }
        let before = scanner.scan.findings.len();
        let name = shown(path);
        match std::fs::File::open(path) {
            Ok(file) => {
                let stable = || self.root.stable(path);
                let name = Name { shown: &name, stable: &stable, commit: None };
                scanner.scan_file(file, &name);
            }
            Err(error) => scanner.unread(&name, &error),
        }
        let found = scanner.scan.findings.len() - before;
        let progress = self.what.progress;
        progress.files.fetch_add(1, Ordering::Relaxed);
        progress.findings.fetch_add(u64::try_from(found).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Returns a path as reports have it.
pub(super) fn shown(path: &Path) -> String {
    path.strip_prefix("./").unwrap_or(path).to_string_lossy().into_owned()
}

fn error_path(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            error_path(err)
        }
        ignore::Error::Loop { child, .. } => Some(child),
        ignore::Error::Partial(_)
        | ignore::Error::Io(_)
        | ignore::Error::Glob { .. }
        | ignore::Error::UnrecognizedFileType(_)
        | ignore::Error::InvalidDefinition => None,
    }
}
