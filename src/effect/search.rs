//! Looking at files in the place of who asks: the order, the process that passes it on, and the one that obeys.
//!
//! Three processes, so that none can be held up by whom it serves. The one that has the order keeps its rights, and
//! ends the other with the time; that one takes the caller's place (`system::stand_in_for`), and then opens files.
//! Neither has a value or a key. What comes back was made with the caller's rights, and is for the caller alone.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::message::{receive_answer, send_search};
use super::{EffectError, Report};
use crate::model::{Gid, Uid};
use crate::system::{Channel, PidFd, SecretBuffer, SecretBytes, stand_in_for};

/// A longer report is none: whoever writes it has to see to that.
pub const MAX_REPORT_BYTES: usize = 1 << 20;
/// How much longer than its time a search may take to say what it has found.
const GRACE: Duration = Duration::from_secs(1);

/// What is to be looked for, and for whom.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Search {
    pub uid: Uid,
    pub gid: Gid,
    /// After which it is to say what it has found.
    pub time: Duration,
    /// For who does the work: nobody between reads it.
    pub what: String,
}

impl Search {
    /// Returns when nobody waits for it any more.
    pub(super) fn ends_after(&self) -> Duration {
        self.time.saturating_add(GRACE)
    }
}

/// A search that was ordered.
#[derive(Debug)]
pub struct Searching(Channel);

impl Searching {
    /// Orders a search over a new channel; `caller` waits until there is an answer.
    pub(super) fn order(channel: Channel, search: &Search, caller: &PidFd) -> io::Result<Self> {
        send_search(&channel, search, caller)?;
        Ok(Self(channel))
    }

    /// Waits for the report. Errors: `TimedOut`, after which it may go on for a while.
    pub fn report(&self, deadline: Instant) -> Result<SecretBytes, EffectError> {
        let lost = |error: io::Error| EffectError::Gone(error.to_string());
        if self.0.await_message(deadline).is_err() {
            return Err(EffectError::TimedOut);
        }
        let died = || EffectError::Gone("it died before it answered".to_owned());
        let Report { value, .. } = receive_answer(&self.0).map_err(lost)?.ok_or_else(died)??;
        value.ok_or_else(died)
    }

    /// Waits until whoever was at it is no more, however long that takes.
    pub fn end(self) {
        while let Ok(Some(_)) = receive_answer(&self.0) {}
    }
}

/// Whether somebody has taken the caller's place.
#[derive(Debug, Deserialize, Serialize)]
enum Entered {
    No(String),
    Yes,
}

/// Has `command` do a search, and waits for its report.
pub(super) fn relay(
    mut command: Command,
    search: &Search,
    caller: OwnedFd,
) -> Result<Report, EffectError> {
    let failed = |error: io::Error| EffectError::Gone(format!("the searching process: {error}"));
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut child, channel) = Channel::spawn_command(command).map_err(failed)?;
    channel.send_along(search, caller.as_fd()).map_err(failed)?;
    drop(caller);
    let mut report = SecretBuffer::new();
    let mut read = || -> io::Result<Entered> {
        let entered = channel.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut chunk = [0; 8192];
        let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        loop {
            let length = output.read(&mut chunk)?;
            let part = chunk.get(..length).unwrap_or_default();
            if part.is_empty() || report.len() + part.len() > MAX_REPORT_BYTES {
                return Ok(entered);
            }
            report.write_at(report.len(), part)?;
        }
    };
    let entered = read();
    // Its work is done, or of no use.
    drop(child.kill());
    drop(child.wait());
    match entered.map_err(failed)? {
        Entered::No(why) => Err(EffectError::Refused(why)),
        Entered::Yes => {
            let value = SecretBytes::copy_from(report.expose())
                .map_err(|error| EffectError::Gone(error.to_string()))?;
            Ok(Report { note: String::new(), value: Some(value) })
        }
    }
}

/// Takes the place of who asks for a search, and has `work` do it. It is given the caller's directory, and what it
/// returns is the report. Call it before there is a second thread.
pub fn search_as_caller(
    channel: Channel,
    work: impl FnOnce(&Search, Option<&std::path::Path>) -> String,
) -> io::Result<()> {
    let Some((search, descriptors)) = channel.receive_along::<Search>()? else { return Ok(()) };
    let caller = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    let stands = match stand_in_for(PidFd::of_descriptor(caller), search.uid, search.gid) {
        Ok(stands) => stands,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            return channel.send(&Entered::No(format!("{error}{}", cause.unwrap_or_default())));
        }
    };
    channel.send(&Entered::Yes)?;
    drop(channel);
    io::Write::write_all(&mut io::stdout(), work(&search, stands.as_deref()).as_bytes())
}
