//! One daemon a store: a lock on a file beside it, which also says who has it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock, held until it is dropped or the process ends in any way.
#[derive(Debug)]
pub struct StoreLock {
    _held: Flock<File>,
}

/// What a daemon holds the lock for, before the mountpoint.
pub(super) const SERVING: &str = "serving";

/// Tries again for a moment while another process has what it wants: the kernel frees what a process
/// holds as it ends, one thing after the other.
pub(super) fn patiently<T, E>(
    mut take: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + LAST_MOMENTS;
    loop {
        match take() {
            Err(error) if is_held(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            taken => return taken,
        }
    }
}

const LAST_MOMENTS: Duration = Duration::from_millis(500);

/// Why the store is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another secretfs uses the store in {state_dir}: {holder}")]
    Held { state_dir: PathBuf, holder: String },
    #[error("the lock {path} cannot be taken")]
    Io { path: PathBuf, source: io::Error },
}

impl StoreLock {
    /// Takes the lock as [`take`](Self::take) does, if need be of a process that is just ending, as a
    /// server is whose keeper was killed.
    pub fn take_over(state_dir: &Path, doing: &str) -> Result<Self, LockError> {
        patiently(|| Self::take(state_dir, doing), |error| matches!(error, LockError::Held { .. }))
    }

    /// Takes the lock of the store in `state_dir`; `doing` tells others what it is held for.
    pub fn take(state_dir: &Path, doing: &str) -> Result<Self, LockError> {
        let path = state_dir.join("lock");
        let fail = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(LockError::Held { state_dir: state_dir.into(), holder: holder(&file) });
            }
            Err((_, errno)) => return Err(fail(errno.into())),
        };
        // In one piece over what another has left, and cut only where that was longer: callers may be waiting for
        // this process, and to cut a file may take ext4 milliseconds.
        let text = format!("process {} {doing}", std::process::id());
        held.write_all_at(text.as_bytes(), 0).map_err(fail)?;
        let length = text.len() as u64;
        if held.metadata().map_err(fail)?.len() != length {
            held.set_len(length).map_err(fail)?;
        }
        Ok(Self { _held: held })
    }
}

/// Waits until the daemon that serves a store at `mountpoint` has let go of it. Returns at once where
/// none does, or the lock cannot be looked at. Errors: who still holds it after `at_most`.
pub fn wait_until_released(
    state_dir: &Path,
    mountpoint: &Path,
    at_most: Duration,
) -> Result<(), LockError> {
    let deadline = Instant::now() + at_most;
    let mut first = None;
    loop {
        let Ok(file) = File::open(state_dir.join("lock")) else { return Ok(()) };
        let Ok(again) = file.try_clone() else { return Ok(()) };
        let holder = holder(&again);
        let serves = holder.ends_with(&format!(" {SERVING} {}", mountpoint.display()));
        // Another text is another daemon's, which has begun since.
        if !serves || *first.get_or_insert_with(|| holder.clone()) != holder {
            return Ok(());
        }
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(LockError::Held { state_dir: state_dir.into(), holder });
            }
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// Returns the pid of the daemon that serves a store, as its lock says.
pub fn serving_pid(state_dir: &Path) -> Option<u32> {
    let file = File::open(state_dir.join("lock")).ok()?;
    let again = file.try_clone().ok()?;
    // A lock that can be had was left by a process that is gone.
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => holder(&again).split(' ').nth(1)?.parse().ok(),
        Ok(_) | Err(_) => None,
    }
}

/// The text is only for people; who holds the lock is the kernel's business.
fn holder(file: &File) -> String {
    let mut text = String::new();
    match file.take(200).read_to_string(&mut text) {
        Ok(1..) => text,
        _ => "a process that did not say what for".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_one_is_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = StoreLock::take(dir.path(), "serving /secrets").unwrap();
        let message = StoreLock::take(dir.path(), "again").unwrap_err().to_string();
        let expected = format!("process {} serving /secrets", std::process::id());
        assert!(message.contains(&expected), "{message}");
        drop(first);
        // A shorter text leaves nothing of the longer one before it.
        for doing in ["again", "serving /secrets/elsewhere", "again"] {
            let held = StoreLock::take(dir.path(), doing).unwrap();
            let text = std::fs::read_to_string(dir.path().join("lock")).unwrap();
            assert_eq!(text, format!("process {} {doing}", std::process::id()));
            drop(held);
        }
    }

    #[test]
    fn who_waits_for_the_end_of_a_daemon_is_told_of_it_or_that_it_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let (here, soon) = (Path::new("/secrets"), Duration::from_millis(10));
        let released = |mountpoint, at_most| wait_until_released(dir.path(), mountpoint, at_most);
        released(here, Duration::ZERO).unwrap();
        let held = StoreLock::take(dir.path(), "serving /secrets").unwrap();
        assert_eq!(serving_pid(dir.path()), Some(std::process::id()));
        let late = released(here, soon).unwrap_err().to_string();
        assert!(late.contains("serving /secrets"), "{late}");
        released(Path::new("/other"), soon).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| released(here, Duration::from_secs(20)));
            drop(held);
            waiter.join().unwrap().unwrap();
        });
        assert_eq!(serving_pid(dir.path()), None);
    }
}
