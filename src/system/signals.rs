//! The signals that the daemon answers, as a stream that one thread reads.
//!
//! SIGTERM and SIGINT ask it to stop, SIGHUP to read its files again. Everything is done in the
//! reading thread, so that nothing runs in a signal handler.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Registered};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    Reload,
    Stop,
}

/// The registered signals.
#[derive(Debug)]
pub struct Signals(Registered);

impl Signals {
    /// Takes SIGHUP, SIGINT and SIGTERM over for the whole process, until it is dropped.
    pub fn register() -> io::Result<Self> {
        Ok(Self(Registered::new([SIGHUP, SIGINT, SIGTERM])?))
    }

    /// Returns what ends the iteration from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.0.handle())
    }
}

/// Waits for the next signal; ends once the stopper was used.
impl Iterator for Signals {
    type Item = Asked;

    fn next(&mut self) -> Option<Asked> {
        let signal = self.0.forever().next()?;
        Some(if signal == SIGHUP { Asked::Reload } else { Asked::Stop })
    }
}

/// Ends the wait for signals.
#[derive(Clone, Debug)]
pub struct Stopper(Handle);

impl Stopper {
    /// Makes [`Signals`] end now and ever after.
    pub fn stop(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    #[test]
    fn a_hangup_asks_for_a_reload_a_termination_for_a_stop_and_the_stopper_ends_the_wait() {
        let mut signals = Signals::register().unwrap();
        let stopper = signals.stopper();
        raise(SIGHUP).unwrap();
        assert_eq!(signals.next(), Some(Asked::Reload));
        raise(SIGTERM).unwrap();
        assert_eq!(signals.next(), Some(Asked::Stop));
        stopper.stop();
        assert_eq!(signals.next(), None);
    }
}
