//! The effector of a kept mount: its server, in the sandbox, cannot start a program.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::server::Program;
use crate::daemon::compose;
use crate::daemon::config::Config;
use crate::system::Channel;

/// Room for one effector: a server that asks for another one does without the one before.
#[derive(Debug, Default)]
pub(super) struct EffectorSlot(Option<Child>);

impl EffectorSlot {
    /// Starts an effector with its end of a channel. If that fails the server sees the channel closed.
    pub(super) fn replace(&mut self, program: &Program, config: &Config, ends: Vec<OwnedFd>) {
        self.end();
        let Some(end) = ends.into_iter().next() else { return };
        let mut command = Command::new(program.path());
        command.args(compose::effector_arguments(config)).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        match Channel::of_descriptor(end).and_then(|end| end.spawn_with(command)) {
            Ok(child) => self.0 = Some(child),
            Err(error) => tracing::error!(%error, "the effector cannot be started"),
        }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It fails only for one that has ended.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for EffectorSlot {
    fn drop(&mut self) {
        self.end();
    }
}
