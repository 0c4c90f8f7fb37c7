//! The helpers of a kept mount: its server, in the sandbox, cannot start a program.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::server::Program;
use crate::system::Channel;

/// Room for one helper: a server that asks for another one does without the one before.
#[derive(Debug, Default)]
pub(super) struct HelperSlot {
    current: Option<Child>,
    /// Killed, and not seen to end yet: one that was in the middle of a touch ends once there is a server again.
    ending: Vec<Child>,
}

impl HelperSlot {
    /// Starts the program as a helper with its end of a channel. If that fails the server sees the channel
    /// closed. Never waits.
    pub(super) fn replace(
        &mut self,
        program: &Program,
        arguments: &[OsString],
        ends: Vec<OwnedFd>,
    ) {
        self.end();
        let Some(end) = ends.into_iter().next() else { return };
        let mut command = Command::new(program.path());
        command.args(arguments).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        match Channel::of_descriptor(end).and_then(|end| end.spawn_with(command)) {
            Ok(child) => self.current = Some(child),
            Err(error) => tracing::error!(%error, ?arguments, "a helper cannot be started"),
        }
    }

    /// Takes over what another slot has, in the place of what is here.
    pub(super) fn take_from(&mut self, other: &mut Self) {
        self.end();
        self.current = other.current.take();
        self.ending.append(&mut other.ending);
    }

    /// Ends it. Never waits.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.current.take() {
            // It fails only for one that has ended.
            drop(child.kill());
            self.ending.push(child);
        }
        self.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for HelperSlot {
    fn drop(&mut self) {
        self.end();
    }
}
