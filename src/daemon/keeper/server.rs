//! One server process as its keeper sees it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use super::message::{FromServer, Launch, ToServer};
use super::{Event, Kept};
use crate::system::{Channel, duplicate_descriptor};

/// A program that is held open: what is executed is what was checked, whatever becomes of the path.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    /// Returns the program that this process runs.
    pub(super) fn own() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// Opens a program.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // Whatever its number is: a child has its channel at a certain one.
        duplicate_descriptor(file.as_raw_fd()).map(Self)
    }

    /// Returns a path that leads to it in a child of this process.
    pub(super) fn path(&self) -> PathBuf {
        // The child has the same descriptors until it executes.
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// A process that is a server, or is to become one.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    channel: Arc<Channel>,
    number: u64,
}

impl Server {
    /// Starts a program, which waits for [`launch`](Self::launch). What it says comes as events with its `number`,
    /// and after the last one that it is gone.
    pub(super) fn prepare(
        (program, arguments): (&Program, &[OsString]),
        (number, events): (u64, Sender<Event>),
    ) -> io::Result<Self> {
        let mut command = Command::new(program.path());
        command.args(arguments);
        let (child, channel) = Channel::spawn_command(command)?;
        let server = Self { child, channel: Arc::new(channel), number };
        let channel = Arc::clone(&server.channel);
        thread::Builder::new().name("server".into()).spawn(move || {
            while let Ok(Some((said, descriptors))) = channel.receive_along::<FromServer>() {
                if events.send(Event::Said(number, said, descriptors)).is_err() {
                    return;
                }
            }
            drop(events.send(Event::Gone(number)));
        })?;
        Ok(server)
    }

    /// Has it become the server.
    pub(super) fn launch(&self, launch: Launch, kept: &Kept, passphrase: Option<BorrowedFd<'_>>) {
        let mut descriptors = vec![kept.journal.memory().as_fd(), kept.key.memory().as_fd()];
        descriptors.extend(passphrase);
        let told = self
            .channel
            .send(&ToServer::Launch(launch))
            .and_then(|()| self.channel.send_descriptors(&descriptors));
        if let Err(error) = told {
            // It has died already, and is found gone.
            tracing::warn!(%error, "the server was not told how to start");
        }
    }

    /// Returns the number that its events have.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Tells whether it has not ended yet. Never waits.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it something; one that is dying does not hear it.
    pub(super) fn tell(&self, message: &ToServer) {
        if let Err(error) = self.channel.try_send(message) {
            tracing::debug!(%error, ?message, "the server was not told");
        }
    }

    /// Hands the device over.
    pub(super) fn hand_over(&self, device: &OwnedFd) {
        self.tell(&ToServer::Mounted);
        if let Err(error) = self.channel.send_descriptors(&[device.as_fd()]) {
            tracing::debug!(%error, "the server did not get the device");
        }
    }

    /// Kills it, for whatever it still does.
    pub(super) fn kill(&mut self) {
        // It fails only for one that has ended.
        drop(self.child.kill());
    }

    /// Kills it and waits for its end.
    pub(super) fn end(&mut self) {
        self.kill();
        if let Err(error) = self.wait() {
            tracing::warn!(%error, "the server's end was not seen");
        }
    }

    /// Waits for its end: then all that it held is free.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}
