//! What git holds: the files of the next commit, and every file that a history ever had.
//!
//! Git itself is asked, by its plumbing, so that whatever a repository is made of can be read; a file is
//! scanned once, however many commits have it. If git cannot answer, the scan has failed and says so.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::engine::Engine;
use super::file::{FileScanner, Name, Wanted};
use super::finding::{Commit, Scan};
use super::walk::{Progress, Selection};
use crate::system::atomic_file;

/// A repository, by a directory in it.
#[derive(Debug)]
pub struct Repository(PathBuf);

/// A file as git has it.
#[derive(Debug)]
struct Blob {
    id: String,
    path: String,
    /// The index of the commit that brought it.
    commit: Option<usize>,
}

/// How many files git is asked for before the first of them is read: their names fit into a pipe, so that nobody
/// waits for the other while that one waits, too.
const AHEAD: usize = 32;
/// Between the parts of a line about a commit; in no name and no date.
const SEPARATOR: char = '\u{1}';

impl Repository {
    /// Finds the repository around a directory.
    pub fn around(directory: &Path) -> Result<Self, GitError> {
        let here = Self(directory.to_owned());
        let top = here.text(&["rev-parse", "--show-toplevel"])?;
        Ok(Self(PathBuf::from(top.trim_end_matches('\n'))))
    }

    /// Returns where git looks for hooks.
    pub fn hooks(&self) -> Result<PathBuf, GitError> {
        let path = self.text(&["rev-parse", "--git-path", "hooks"])?;
        Ok(self.0.join(path.trim_end_matches('\n')))
    }

    /// Scans what the next commit would add or change.
    pub fn scan_staged(&self, what: &What<'_>) -> Result<Scan, GitError> {
        let raw = self.ask(&[
            "diff",
            "--cached",
            "--raw",
            "-z",
            "--no-abbrev",
            "--no-renames",
            "--no-ext-diff",
        ])?;
        let mut blobs = Vec::new();
        let mut parts = raw.split(|&byte| byte == 0);
        while let Some(part) = parts.next() {
            blobs.extend(entry(part).zip(parts.next()).map(|(id, path)| blob(id, path, None)));
        }
        self.scan(what, &blobs, &[])
    }

    /// Scans every file that the commits of a range have brought; of all branches and tags without one.
    pub fn scan_history(&self, what: &What<'_>, range: Option<&str>) -> Result<Scan, GitError> {
        let format = format!("--format={SEPARATOR}%H{SEPARATOR}%aN <%aE>{SEPARATOR}%aI");
        // The oldest commit first: it is the one that has brought a file. A merge can bring one too.
        let mut arguments = vec![
            "log",
            "--reverse",
            "--topo-order",
            "--raw",
            "-z",
            "--no-abbrev",
            "--no-renames",
            "--root",
            "-m",
            "--no-ext-diff",
            "--no-textconv",
            &format,
        ];
        arguments.extend(range.is_none().then_some("--all"));
        arguments.push("--end-of-options");
        arguments.extend(range);
        arguments.push("--");
        let raw = self.ask(&arguments)?;
        let (mut commits, mut blobs): (Vec<Commit>, Vec<Blob>) = (Vec::new(), Vec::new());
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let mut parts = raw.split(|&byte| byte == 0);
        while let Some(part) = parts.next() {
            // A line end stands between a commit and its first file.
            let part = part.trim_ascii_start();
            if let Some(commit) = commit(part) {
                // With -m a merge comes once for each parent.
                if commits.last().is_none_or(|last| last.id != commit.id) {
                    commits.push(commit);
                }
            } else if part.first() == Some(&b':') {
                let path = parts.next().unwrap_or_default();
                let new = entry(part).filter(|id| seen.insert(id));
                blobs.extend(new.map(|id| blob(id, path, commits.len().checked_sub(1))));
            }
        }
        let mut scan = self.scan(what, &blobs, &commits)?;
        scan.totals.commits = u64::try_from(commits.len()).unwrap_or(u64::MAX);
        Ok(scan)
    }

    fn scan(&self, what: &What<'_>, blobs: &[Blob], commits: &[Commit]) -> Result<Scan, GitError> {
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let parts: Vec<Result<Scan, GitError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(blobs.len()))
                .map(|_| scope.spawn(|| self.scan_some(what, blobs, commits, &next)))
                .collect();
            let ended = |worker: std::thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or(Err(GitError::Answer("a thread has failed")))
            };
            workers.into_iter().map(ended).collect()
        });
        let mut scan = Scan::default();
        for part in parts {
            scan.merge(part?);
        }
        scan.sort();
        Ok(scan)
    }

    /// Takes blobs until there are none, by a git of its own.
    fn scan_some(
        &self,
        what: &What<'_>,
        blobs: &[Blob],
        commits: &[Commit],
        next: &AtomicUsize,
    ) -> Result<Scan, GitError> {
        let mut reader = BlobReader::start(&self.0)?;
        let mut scanner = FileScanner::new(what.engine, what.wanted);
        let mut asked = VecDeque::new();
        loop {
            // Git unpacks the next ones meanwhile.
            while asked.len() < AHEAD {
                let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                if what.selection.takes(Path::new(&blob.path)) {
                    reader.request(&blob.id)?;
                    asked.push_back(blob);
                }
            }
            let Some(blob) = asked.pop_front() else { return Ok(scanner.into_scan()) };
            let commit = blob.commit.and_then(|at| commits.get(at));
            let stable = || PathBuf::from(&blob.path);
            let name = Name { shown: &blob.path, stable: &stable, commit };
            reader.read(&blob.id, |contents| scanner.scan_contents(contents, &name))?;
            what.progress.files.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let output =
            git(&self.0).args(arguments).stdin(Stdio::null()).output().map_err(GitError::Start)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(GitError::Failed(said.trim().trim_start_matches("fatal: ").to_owned()))
    }

    fn text(&self, arguments: &[&str]) -> Result<String, GitError> {
        String::from_utf8(self.ask(arguments)?).map_err(|_| GitError::Answer("a path is no text"))
    }
}

/// What is asked of a scan.
#[derive(Clone, Copy, Debug)]
pub struct What<'a> {
    pub engine: &'a Engine,
    pub wanted: &'a Wanted,
    pub selection: &'a Selection,
    pub progress: &'a Progress,
}

/// Returns a command that runs no program which a repository's configuration names.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(["-c", "core.fsmonitor=false", "--no-optional-locks"]);
    command
}

/// Returns the new blob of an entry such as `:100644 100644 0123... 4567... M`; none for what is deleted, for
/// links and for submodules.
fn entry(part: &[u8]) -> Option<&[u8]> {
    let mut fields = part.strip_prefix(b":")?.split(|&byte| byte == b' ');
    let mode = fields.nth(1)?;
    let id = fields.nth(1)?;
    mode.starts_with(b"100").then_some(id)
}

fn blob(id: &[u8], path: &[u8], commit: Option<usize>) -> Blob {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Blob { id: text(id), path: text(path), commit }
}

fn commit(part: &[u8]) -> Option<Commit> {
    let text = String::from_utf8_lossy(part);
    let mut fields =
        text.strip_prefix(SEPARATOR)?.split(SEPARATOR).map(|field| field.trim().to_owned());
    Some(Commit { id: fields.next()?, author: fields.next()?, date: fields.next()? })
}

/// A git that gives the contents of blobs.
struct BlobReader {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl BlobReader {
    fn start(directory: &Path) -> Result<Self, GitError> {
        let mut child = git(directory)
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(GitError::Start)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(replies)) => {
                Ok(Self { child, requests, replies: BufReader::with_capacity(64 << 10, replies) })
            }
            _ => Err(GitError::Answer("it has no pipes")),
        }
    }

    /// Asks for a blob, which has to be read after all that were asked for before.
    fn request(&mut self, id: &str) -> Result<(), GitError> {
        self.requests.write_all(format!("{id}\n").as_bytes()).map_err(GitError::Pipe)
    }

    /// Has `take` read the next blob, and skips what it leaves.
    fn read(&mut self, id: &str, take: impl FnOnce(&mut dyn Read)) -> Result<(), GitError> {
        let mut header = String::new();
        self.replies.read_line(&mut header).map_err(GitError::Pipe)?;
        // `ID blob SIZE`, or `ID missing`.
        let mut fields = header.trim_end().split(' ').skip(1);
        let (Some("blob"), Some(Ok(size))) = (fields.next(), fields.next().map(str::parse)) else {
            return Err(GitError::Failed(format!("object {id} cannot be read")));
        };
        let mut contents = self.replies.by_ref().take(size);
        take(&mut contents);
        io::copy(&mut contents, &mut io::sink()).map_err(GitError::Pipe)?;
        if contents.limit() > 0 {
            return Err(GitError::Answer("it ended too early"));
        }
        // A line end follows.
        self.replies.read_exact(&mut [0]).map_err(GitError::Pipe)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Begins the hook that is ours.
const HOOK: &str = "#!/bin/sh\n# Made by `secretfs scan hook install`; `secretfs scan hook uninstall` puts back what was here.\n";
/// What stood there before.
const EARLIER: &str = "pre-commit.before-secretfs";

/// Writes the hook that scans what is to be committed. One that is there is kept, and runs first.
pub fn install_hook(repository: &Repository, program: &Path) -> Result<PathBuf, GitError> {
    let hooks = repository.hooks()?;
    let (hook, earlier) = (hooks.join("pre-commit"), hooks.join(EARLIER));
    std::fs::create_dir_all(&hooks).map_err(GitError::Hook)?;
    if hook.exists() && !is_ours(&hook) {
        if earlier.exists() {
            return Err(GitError::Hook(io::Error::other(format!("{EARLIER} is in the way"))));
        }
        std::fs::rename(&hook, &earlier).map_err(GitError::Hook)?;
    }
    let program = shell_quoted(program.as_os_str());
    let text = format!(
        "{HOOK}earlier=$(dirname \"$0\")/{EARLIER}\nif [ -x \"$earlier\" ]; then \"$earlier\" \"$@\" || exit; fi\n\
         exec {program} scan --staged\n"
    );
    atomic_file::replace(&hook, text.as_bytes(), 0o755).map_err(GitError::Hook)?;
    Ok(hook)
}

/// Removes the hook, and puts back the one that was there before.
pub fn uninstall_hook(repository: &Repository) -> Result<PathBuf, GitError> {
    let hooks = repository.hooks()?;
    let (hook, earlier) = (hooks.join("pre-commit"), hooks.join(EARLIER));
    if !is_ours(&hook) {
        return Err(GitError::Hook(io::Error::other("the hook is not one of secretfs")));
    }
    std::fs::remove_file(&hook).map_err(GitError::Hook)?;
    if earlier.exists() {
        std::fs::rename(&earlier, &hook).map_err(GitError::Hook)?;
    }
    Ok(hook)
}

fn is_ours(hook: &Path) -> bool {
    std::fs::read(hook).is_ok_and(|text| text.starts_with(HOOK.as_bytes()))
}

fn shell_quoted(text: &OsStr) -> String {
    format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"))
}

/// Why git's files could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git's answer is not understood: {0}")]
    Answer(&'static str),
    #[error("git: {0}")]
    Failed(String),
    #[error("the hook cannot be changed")]
    Hook(#[source] io::Error),
    #[error("git has stopped answering")]
    Pipe(#[source] io::Error),
    #[error("git cannot be started")]
    Start(#[source] io::Error),
}
