//! A process that answers EIO to whatever the kernel asks, while no server can be had.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use super::server::Program;
use crate::fs::Journal;
use crate::system::Channel;

/// The hidden subcommand.
pub(super) const SUBCOMMAND: &str = "refuse";

/// The process; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Refusal {
    child: Child,
    channel: Channel,
}

impl Refusal {
    /// Starts it.
    pub(super) fn start(
        program: &Program,
        device: &OwnedFd,
        journal: &Journal,
    ) -> io::Result<Self> {
        let (child, channel) = Channel::spawn(&program.path(), &[SUBCOMMAND])?;
        let refusal = Self { child, channel };
        let descriptors = [device.as_fd(), journal.memory().as_fd()];
        refusal.channel.send_descriptors(&descriptors)?;
        Ok(refusal)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        // What it has read and not answered is sent again to the next server.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
