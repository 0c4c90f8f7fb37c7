//! Going to the background: the command returns when the mount serves, or with the reason why not.
//!
//! A double fork, made while the process has one thread. The child reports over a pipe; when it dies
//! without a word, the pipe's end says so. A passphrase goes to the child over a second pipe, and
//! only after the fork: locked memory is wiped in a forked child, and it must never be in two places.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use daemonize::{Daemonize, Outcome};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::DaemonError;
use crate::system::SecretBytes;

/// On which side of the fork we are.
#[derive(Debug)]
pub enum Side {
    /// The daemon: serve, report, and end the process.
    Daemon {
        report: Report,
        /// The reading end of the pipe with the passphrase.
        passphrase: Option<OwnedFd>,
    },
    /// The command: the daemon serves.
    Command,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    #[error("the daemon ended before it served; its log is {0}")]
    Died(PathBuf),
    #[error("{why}")]
    Failed {
        /// The exit code that the daemon would have had in the foreground.
        code: u8,
        why: String,
    },
    #[error("the daemon could not be started")]
    Fork(#[from] daemonize::Error),
    #[error("the daemon could not be started")]
    Io(#[from] io::Error),
}

/// The daemon's end of the pipe.
#[derive(Debug)]
pub struct Report {
    pipe: File,
    code: fn(&DaemonError) -> u8,
}

impl Report {
    /// Tells the command that the mount serves.
    pub fn ready(mut self) {
        // The command may have been killed meanwhile; the daemon serves all the same.
        drop(self.pipe.write_all(&[READY]));
    }

    /// Tells the command why it does not.
    pub fn failed(self, why: &DaemonError) {
        let code = (self.code)(why);
        self.failed_with(code, &why.chain());
    }

    /// Tells the command what a server has said, and its exit code.
    pub(super) fn failed_with(mut self, code: u8, why: &str) {
        drop(self.pipe.write_all(&[&[code], why.as_bytes()].concat()));
    }
}

/// The exit code of success.
const READY: u8 = 0;

/// A larger log is set aside when a daemon starts.
const LOG_BYTES: u64 = 1 << 20;

/// Forks. On the command's side it returns when the daemon has reported; on the daemon's at once, in
/// a session of its own, with `/` as directory, a umask of 077 and its standard error in `log`. `code`
/// is the exit code that an error has in the foreground; never 0.
pub fn detach(
    log: &Path,
    passphrase: Option<&SecretBytes>,
    code: fn(&DaemonError) -> u8,
) -> Result<Side, BackgroundError> {
    let errors = open_log(log)?;
    let (report_in, report_out) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let (phrase_in, phrase_out) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let fork = Daemonize::new().umask(0o077).stdout(errors.try_clone()?).stderr(errors).execute();
    match fork {
        Outcome::Child(result) => {
            result?;
            drop((report_in, phrase_out));
            let passphrase = passphrase.map(|_| phrase_in);
            let report = Report { pipe: report_out.into(), code };
            Ok(Side::Daemon { report, passphrase })
        }
        Outcome::Parent(result) => {
            result?;
            drop((report_out, phrase_in));
            if let Some(passphrase) = passphrase {
                // A child that has died already makes this fail; its report tells more.
                drop(File::from(phrase_out).write_all(passphrase.expose()));
            }
            wait(File::from(report_in), log).map(|()| Side::Command)
        }
    }
}

fn wait(mut report: File, log: &Path) -> Result<(), BackgroundError> {
    let mut said = Vec::new();
    report.read_to_end(&mut said)?;
    match said.as_slice() {
        [] => Err(BackgroundError::Died(log.into())),
        [READY] => Ok(()),
        [code, why @ ..] => Err(BackgroundError::Failed {
            code: *code,
            why: String::from_utf8_lossy(why).into_owned(),
        }),
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES) {
        fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(write: impl FnOnce(Report)) -> Result<(), BackgroundError> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        write(Report { pipe: writer.into(), code: |_| 7 });
        wait(reader.into(), Path::new("/var/log/x"))
    }

    #[test]
    fn the_command_learns_that_it_serves_why_it_does_not_or_that_it_died() {
        assert!(reported(Report::ready).is_ok());
        let error = DaemonError::NoStore("/s".into());
        let why = reported(|report| report.failed(&error)).unwrap_err();
        assert_eq!(why.to_string(), "there is no store in /s");
        assert!(matches!(why, BackgroundError::Failed { code: 7, .. }));
        assert!(matches!(reported(drop), Err(BackgroundError::Died(_))));
    }

    #[test]
    fn a_large_log_is_set_aside_and_a_small_one_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        open_log(&path).unwrap().write_all(b"first").unwrap();
        open_log(&path).unwrap().set_len(LOG_BYTES + 1).unwrap();
        open_log(&path).unwrap().write_all(b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(dir.path().join("daemon.log.old")).unwrap().len(), LOG_BYTES + 1);
    }
}
