//! For tests that need a process of their own, or that look for traces in memory.
//!
//! A test that needs one runs its own binary again, asks for itself alone, and finds in the
//! environment which part it is to play there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use zeroize::Zeroize;

const PART: &str = "SECRETFS_TEST_PART";

/// Which process a test finds itself in.
pub(crate) enum Role {
    Child(String),
    Test,
}

pub(crate) fn role() -> Role {
    setting(PART).map_or(Role::Test, Role::Child)
}

/// Reads what the person or script that runs the tests has set.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
pub(crate) fn setting(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

/// A running child; killed when dropped.
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// Which test to run, and in which directory.
pub(crate) struct What(String, PathBuf);

impl From<&str> for What {
    fn from(test: &str) -> Self {
        Self(test.to_owned(), "/".into())
    }
}

impl From<(&str, &Path)> for What {
    fn from((test, place): (&str, &Path)) -> Self {
        Self(test.to_owned(), place.into())
    }
}

/// Runs one test of this binary in a process of its own, to play `part`.
pub(crate) fn run(what: impl Into<What>, part: &str) -> Running {
    let What(test, place) = what.into();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(PART, part)
        .current_dir(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Running { child, output }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait_for_line(&mut self, expected: &str) {
        let found = self.output.by_ref().lines().any(|line| line.unwrap() == expected);
        assert!(found, "the child ended without saying {expected}");
    }

    pub(crate) fn finish(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop((self.child.kill(), self.child.wait()));
    }
}

/// Makes this process an ordinary user's if it is root's.
pub(crate) fn drop_privileges() {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setgid(65534.into()).unwrap();
        nix::unistd::setuid(65534.into()).unwrap();
    }
}

/// The bytes of a canary: a function, so that looking for them does not make a copy.
pub(crate) fn canary(i: usize) -> u8 {
    (i * 167 + i / 7 * 31 + 13).to_le_bytes()[0]
}

/// Counts the places in this process's writable memory where the canary stands for `len` bytes.
pub(crate) fn canaries_in_memory(len: usize) -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut window = vec![0; 1 << 20];
    let mut count = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, rest) = line.split_once('-').unwrap();
        let mut at = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(rest.split_once(' ').unwrap().0, 16).unwrap();
        while at < end {
            let room = usize::try_from(end - at).unwrap().min(window.len());
            let Ok(read) = memory.read_at(&mut window[..room], at) else { break };
            let mut from = 0;
            while let Some(hit) = window[from..read].iter().position(|&b| b == canary(0)) {
                from += hit + 1;
                let candidate = &window[from - 1..read];
                let same = candidate.iter().take(len).enumerate().all(|(i, &b)| b == canary(i));
                count += usize::from(same && candidate.len() >= len);
            }
            window.as_mut_slice().zeroize();
            if read < len {
                break;
            }
            // A copy may lie across two windows, but is not to be counted twice.
            at += (read - (len - 1)) as u64;
        }
    }
    count
}
