//! Finds the files of a tree and has them scanned, on all processors.
//!
//! Links are not followed, so there are no loops; what they point to is scanned where it stands. What
//! cannot be read is part of the result.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ignore::{DirEntry, ParallelVisitor, ParallelVisitorBuilder, WalkBuilder, WalkState};
use parking_lot::Mutex;

use super::engine::Engine;
use super::file::{FileScanner, Name, OUT_OF_TIME, Wanted};
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
    let What { engine, wanted, selection, progress } = *what;
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
        let (done, cut_off) = (Mutex::new(Scan::default()), AtomicBool::new(false));
        let visitors = &mut Visitors {
            engine,
            wanted,
            selection,
            progress,
            root: &Root::of(root),
            done: &done,
            cut_off: &cut_off,
        };
        walker(root, selection, &mounts).visit(visitors);
        result.merge(done.into_inner());
        if cut_off.into_inner() {
            result.unread.push(Unread { path: shown(root), why: OUT_OF_TIME.to_owned() });
        }
    }
    result.sort();
    result
}

fn walker(root: &Path, selection: &Selection, mounts: &[PathBuf]) -> ignore::WalkParallel {
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
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .build_parallel()
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

struct Visitors<'a> {
    engine: &'a Engine,
    wanted: &'a Wanted,
    selection: &'a Selection,
    progress: &'a Progress,
    root: &'a Root,
    done: &'a Mutex<Scan>,
    /// Some of it was left unread because the time was up.
    cut_off: &'a AtomicBool,
}

impl<'a> ParallelVisitorBuilder<'a> for Visitors<'a> {
    fn build(&mut self) -> Box<dyn ParallelVisitor + 'a> {
        Box::new(Visitor {
            scanner: FileScanner::new(self.engine, self.wanted),
            selection: self.selection,
            progress: self.progress,
            root: self.root,
            done: self.done,
            wanted: self.wanted,
            cut_off: self.cut_off,
        })
    }
}

/// One thread's part. What it has found is given over when it ends.
struct Visitor<'a> {
    wanted: &'a Wanted,
    scanner: FileScanner<'a>,
    selection: &'a Selection,
    progress: &'a Progress,
    root: &'a Root,
    done: &'a Mutex<Scan>,
    /// Some of it was left unread because the time was up.
    cut_off: &'a AtomicBool,
}

impl ParallelVisitor for Visitor<'_> {
    fn visit(&mut self, entry: Result<DirEntry, ignore::Error>) -> WalkState {
        if self.wanted.is_late() {
            self.cut_off.store(true, Ordering::Relaxed);
            return WalkState::Quit;
        }
        match entry {
            Ok(entry) => self.visit_entry(&entry),
            Err(error) => {
                self.scanner.unread(&shown(error_path(&error).unwrap_or(&self.root.given)), &error)
            }
        }
        WalkState::Continue
    }
}

impl Visitor<'_> {
    fn visit_entry(&mut self, entry: &DirEntry) {
        let path = entry.path();
        // An argument is followed if it is a link; what is found on the way is not.
        let is_file = match entry.file_type() {
            Some(kind) if entry.depth() == 0 && kind.is_symlink() => path.is_file(),
            Some(kind) => kind.is_file(),
            None => false,
        };
        if !is_file || !self.selection.takes(path) {
            return;
        }
        let before = self.scanner.scan.findings.len();
        let name = shown(path);
        match std::fs::File::open(path) {
            Ok(file) => {
                let stable = self.root.stable(path);
                let name = Name { shown: &name, stable: &stable, commit: None };
                self.scanner.scan_file(file, &name);
            }
            Err(error) => self.scanner.unread(&name, &error),
        }
        let found = self.scanner.scan.findings.len() - before;
        self.progress.files.fetch_add(1, Ordering::Relaxed);
        self.progress.findings.fetch_add(u64::try_from(found).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        self.done.lock().merge(std::mem::take(&mut self.scanner.scan));
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
