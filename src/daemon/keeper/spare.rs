//! The next server, started before it is needed: it is loaded and linked, and waits for its turn.
//!
//! Until then it has read no file, and has neither journal nor key nor device: what it serves by is as fresh as
//! that of a process that is started at that moment. Only its observer is there already. One that ends before its
//! turn costs nobody anything. An upgrade's first server is started in the same way, beside the one that it follows.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::Event;
use super::helper::HelperSlot;
use super::server::{Program, Server};
use crate::daemon::compose;

/// A server that is started with this waits for its turn before it reads anything. One of an earlier release does
/// not know it, and ends.
pub(in crate::daemon) const FLAG: &str = "--spare";

/// By then a server that takes over has come to what one thread does alone; and the next spare is there before it serves.
const HEAD_START: Duration = Duration::from_millis(5);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Room for one spare.
#[derive(Debug, Default)]
pub(super) struct SpareSlot {
    current: Option<Server>,
    /// When one is to be started.
    due: Option<Instant>,
    /// Spares that have ended before their turn, one after the other.
    failures: u32,
    observer: HelperSlot,
}

impl SpareSlot {
    /// Has one started soon, unless there is one: a server was told to serve, or serves.
    pub(super) fn schedule(&mut self) {
        if self.current.is_none() {
            self.due = Some(Instant::now() + HEAD_START);
        }
    }

    /// Returns how long it is until one is to be started, if one is.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due_in().is_some_and(|left| left.is_zero())
    }

    /// Starts one. Its events have that number.
    pub(super) fn prepare(
        &mut self,
        (program, arguments): (&Program, &[OsString]),
        events: (u64, Sender<Event>),
    ) {
        let arguments = [arguments, &[FLAG.into()]].concat();
        self.due = None;
        match Server::prepare((program, &arguments), events) {
            Ok(server) => self.current = Some(server),
            Err(error) => {
                tracing::warn!(%error, "the next server cannot be started in advance");
                self.try_later();
            }
        }
    }

    /// Returns the spare, if there is one that is alive. Its observer takes the place of another one's.
    pub(super) fn take(&mut self, observer: &mut HelperSlot) -> Option<Server> {
        self.due = None;
        let mut spare = self.current.take()?;
        if spare.is_alive() {
            self.failures = 0;
            observer.take_from(&mut self.observer);
            return Some(spare);
        }
        self.observer.end();
        None
    }

    /// Starts the observer that the process with this number asks for, if that is the spare.
    pub(super) fn observe(&mut self, number: u64, program: &Program, ends: Vec<OwnedFd>) {
        if self.is(number) {
            self.observer.replace(program, &compose::observer_arguments(), ends);
        }
    }

    /// Tells whether the process with this number is the spare.
    pub(super) fn is(&self, number: u64) -> bool {
        self.current.as_ref().is_some_and(|spare| spare.number() == number)
    }

    /// Takes note of the end of the process with this number, and tells whether that is the spare.
    pub(super) fn has_gone(&mut self, number: u64) -> bool {
        let Some(mut spare) = self.current.take_if(|spare| spare.number() == number) else {
            return false;
        };
        self.observer.end();
        match spare.wait() {
            // Whoever is killed could have waited.
            Ok(status) if status.signal().is_some() => {
                tracing::warn!(%status, "the spare server has ended");
                self.try_later();
            }
            Ok(status) => tracing::warn!(%status, "this program does not wait to be a server"),
            Err(error) => tracing::warn!(%error, "the spare server's end was not seen"),
        }
        true
    }

    /// Ends the spare: there is no use for it, or it is another program's.
    pub(super) fn discard(&mut self) {
        self.due = None;
        self.observer.end();
        if let Some(mut spare) = self.current.take() {
            spare.end();
        }
    }

    fn try_later(&mut self) {
        let pause = SHORTEST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        self.due = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        self.failures += 1;
    }
}

impl Drop for SpareSlot {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;

    /// Starts `program` as a spare and, once it has gone in whatever way, tells the slot.
    fn prepare_and_lose(slot: &mut SpareSlot, program: &str, arguments: &[OsString]) {
        let (sender, events) = mpsc::channel();
        let program = Program::open(Path::new(program)).unwrap();
        slot.prepare((&program, arguments), (7, sender));
        let spare = slot.current.as_mut().unwrap();
        if !arguments.is_empty() {
            spare.kill();
        }
        while !matches!(events.recv().unwrap(), Event::Gone(7)) {}
        assert!(slot.has_gone(7));
        assert!(slot.current.is_none());
    }

    #[test]
    fn a_spare_that_is_killed_is_followed_by_another_the_later_the_more_there_were() {
        let mut slot = SpareSlot::default();
        let mut last = Duration::ZERO;
        for _ in 0..3 {
            prepare_and_lose(&mut slot, "/bin/sh", &["-c".into(), "exec sleep 600".into()]);
            let due = slot.due_in().unwrap();
            assert!(!slot.is_due() && due > last, "{due:?} after {last:?}");
            // What is left of it is less than that by the time that the test has taken.
            last = due;
        }
        slot.failures = 40;
        slot.try_later();
        assert!(slot.due_in().unwrap() <= LONGEST_PAUSE);
    }

    #[test]
    fn a_program_that_does_not_wait_is_not_started_again_before_the_next_server_serves() {
        let mut slot = SpareSlot::default();
        prepare_and_lose(&mut slot, "/bin/false", &[]);
        assert_eq!(slot.due_in(), None);
        slot.schedule();
        assert!(slot.due_in().is_some());
    }

    #[test]
    fn one_that_has_ended_is_not_taken() {
        let (sender, events) = mpsc::channel();
        let program = Program::open(Path::new("/bin/false")).unwrap();
        let mut slot = SpareSlot::default();
        slot.prepare((&program, &[]), (7, sender));
        slot.current.as_mut().unwrap().wait().unwrap();
        assert!(slot.take(&mut HelperSlot::default()).is_none());
        // Its end comes afterwards, and is nobody's.
        assert!(matches!(events.recv().unwrap(), Event::Gone(7)));
        assert!(!slot.has_gone(7));
        assert_eq!(slot.due_in(), None);
    }
}
