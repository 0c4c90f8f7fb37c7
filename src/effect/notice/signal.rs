//! Sends a signal to the processes that are meant and to no other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal as Number;

use super::{Processes, Signal, SignalName, unit};
use crate::effect::EffectError;
use crate::effect::step::{Outcome, Step, invalid};
use crate::system::{PidFd, procfs};

/// A number and a newline.
const MAX_PIDFILE_BYTES: u64 = 32;

impl Signal {
    pub(super) fn send(&self, step: &Step<'_>) -> Outcome {
        let pids = match &self.process {
            Processes::Unit(name) => return unit::signal(name, self.signal, step),
            Processes::Exe(path) => running(path).map_err(|error| invalid(&error.to_string()))?,
            Processes::PidFile(path) => named_in(path)?.into_iter().collect(),
        };
        let mut sent = 0;
        for pid in pids {
            sent += usize::from(self.send_to(pid)?);
        }
        Ok(match sent {
            0 => "there is no such process".to_owned(),
            sent => format!(
                "{} sent to {sent} process{}",
                self.signal.word(),
                if sent == 1 { "" } else { "es" }
            ),
        })
    }

    /// Tells whether the process was there.
    fn send_to(&self, pid: u32) -> Result<bool, EffectError> {
        let sent = PidFd::of_process(pid).and_then(|process| {
            // The number may be another process's since it was found, and now is this one's for good.
            if let Processes::Exe(path) = &self.process
                && !runs(pid, path)
            {
                return Ok(false);
            }
            process.send_signal(self.signal.number()).map(|()| true)
        });
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(EffectError::Refused(format!("process {pid}: {error}"))),
            Ok(sent) => Ok(sent),
        }
    }
}

impl SignalName {
    /// Returns its name as kill(1) has it.
    pub(super) fn word(self) -> &'static str {
        self.number().as_str().trim_start_matches("SIG")
    }

    fn number(self) -> Number {
        match self {
            Self::Hup => Number::SIGHUP,
            Self::Int => Number::SIGINT,
            Self::Term => Number::SIGTERM,
            Self::Usr1 => Number::SIGUSR1,
            Self::Usr2 => Number::SIGUSR2,
        }
    }
}

/// Returns the processes of this host that run a program, without those that one of them has started: a
/// server tells its workers itself.
fn running(program: &Path) -> io::Result<Vec<u32>> {
    let pids =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found: Vec<u32> = pids.filter(|pid| runs(*pid, program)).collect();
    let is_first = |pid: &u32| procfs::stat(*pid).is_ok_and(|stat| !found.contains(&stat.parent));
    Ok(found.iter().copied().filter(is_first).collect())
}

/// Tells whether a process of this host, and not of a container on it, runs a program.
fn runs(pid: u32, program: &Path) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let Ok(exe) = procfs::exe(pid) else { return false };
    // A program that was replaced since it was started.
    let old = exe.to_str().and_then(|exe| exe.strip_suffix(" (deleted)")).map(PathBuf::from);
    let same = exe == program || old.is_some_and(|old| old == program);
    same && namespace(&pid.to_string())
        .is_ok_and(|theirs| namespace("self").is_ok_and(|ours| ours == theirs))
}

/// Returns the number in a file; a file that is not there belongs to a process that is not there.
fn named_in(path: &Path) -> Result<Option<u32>, EffectError> {
    let bad = |why: String| invalid(&format!("{}: {why}", path.display()));
    let text = match fs::File::open(path) {
        Ok(file) => io::read_to_string(io::Read::take(file, MAX_PIDFILE_BYTES)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| bad(error.to_string()))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
    pid.map(Some).ok_or_else(|| bad("there is no process id in it".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{ChildStdout, Command, Stdio};

    use super::*;
    use crate::effect::mask::Mask;
    use crate::effect::{Notice, Order, Orders, Task, Values};

    /// Starts a copy of a program that says when it hears SIGHUP. It has started another one, which has
    /// started something else; their numbers are returned.
    fn listener(dir: &Path) -> (BufReader<ChildStdout>, PathBuf, Vec<u32>) {
        let shell = dir.join("listener");
        assert!(Command::new("cp").arg("/bin/sh").arg(&shell).status().unwrap().success());
        let script = format!(
            "trap 'echo heard; exit' HUP; {} -c 'trap \"echo wrong\" HUP; sleep 1000 & echo $$ $!; wait' & wait",
            shell.display()
        );
        let mut command = Command::new(&shell);
        let child = command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut said = BufReader::new(child.spawn().unwrap().stdout.unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let started = line.split_whitespace().map(|pid| pid.parse().unwrap());
        (said, shell, started.collect())
    }

    fn send(process: &str) -> Outcome {
        let notice: Notice =
            toml::from_str(&format!("kind = \"signal\"\nsignal = \"SIGHUP\"\n{process}")).unwrap();
        let order = Order {
            rotation: "r1".into(),
            secret: Some("app/key".parse().unwrap()),
            timeout: std::time::Duration::from_secs(20),
            task: Task::Notify(notice.clone()),
        };
        let values = Values::default();
        let mask = Mask::of(&values);
        notice.send(&Step {
            order: &order,
            values: &values,
            mask: &mask,
            orders: &Orders::default(),
        })
    }

    #[test]
    fn the_process_that_runs_a_program_hears_it_and_what_it_has_started_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut said, shell, started) = listener(dir.path());
        let exe = format!("exe = \"{}\"", shell.display());
        assert_eq!(send(&exe).unwrap(), "HUP sent to 1 process");
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "heard\n");
        for pid in started {
            PidFd::of_process(pid).unwrap().send_signal(Number::SIGKILL).unwrap();
        }
        line.clear();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "");
    }

    #[test]
    fn nobody_there_is_no_failure_and_a_file_without_a_number_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let pidfile = format!("pidfile = \"{}\"", path.display());
        assert_eq!(send(&pidfile).unwrap(), "there is no such process");
        for (text, fails) in [("4194304\n", false), ("1\n", true), ("-1\n", true), ("x", true)] {
            fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert_eq!(send(&pidfile).is_err(), fails, "{text}");
        }
        assert_eq!(send("exe = \"/nonexistent\"").unwrap(), "there is no such process");
    }
}
