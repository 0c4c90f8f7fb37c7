//! The effector's own processes: one that starts another for each order, and does nothing else.
//!
//! A process an order, because an order may hang anywhere, also where no library has a time limit, and
//! then it is killed with all that it has started. With it goes every copy of a value that was made on the
//! way. The first process maps no value at all.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getppid};
use parking_lot::Mutex;

use super::mask::Mask;
use super::message::{Wanted, receive_order, send_answer};
use super::permit::Orders;
use super::search::relay;
use super::step::Step;
use super::{EffectError, KeyOrder, Order, Report, Task, Values, Verifier};
use crate::system::{Channel, SecretBytes, die_with_parent, harden_process};

/// Starts a process for each order until the other end is closed. `program` is called with `arguments` and
/// has to call [`carry_out_one`].
pub fn serve(channel: &Channel, program: &Path, arguments: &[&OsStr]) -> io::Result<()> {
    harden_process()?;
    loop {
        let ends = match channel.receive_descriptors() {
            Ok(ends) => ends,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        for end in ends {
            let mut command = Command::new(program);
            command.args(arguments).env_clear().current_dir("/").process_group(0);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            // Started by this thread, which lives as long as the process: it is what they die with.
            match Channel::of_descriptor(end).and_then(|end| end.spawn_with(command)) {
                Ok(child) => reap(child)?,
                // Whoever has ordered sees the end of the channel.
                Err(error) => tracing::error!(%error, "no process for an order"),
            }
        }
    }
}

/// Waits for the end of a process in a thread. One that was killed has not ended what it had started.
fn reap(mut child: Child) -> io::Result<()> {
    let wait = move || {
        let pid = Pid::from_raw(child.id().cast_signed());
        // As long as it is not reaped, its number is no other group's.
        let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        if matches!(ended, Ok(WaitStatus::Signaled(..))) {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        drop(child.wait());
    };
    thread::Builder::new().name("reaper".to_owned()).spawn(wait).map(drop)
}

/// Seals the value, or opens what is in the order, once it is sure that the configuration has it.
pub type AskService =
    dyn Fn(&KeyOrder, Option<&SecretBytes>) -> Result<SecretBytes, EffectError> + Sync;

/// Carries out the order that comes over a channel, and answers. `orders` are the files that say what may be
/// ordered. `search` is run for a search, and has to call [`search_as_caller`](super::search_as_caller).
pub fn carry_out_one(
    channel: Channel,
    orders: &Orders,
    search: Command,
    ask_service: &AskService,
) -> io::Result<()> {
    harden_process()?;
    die_with_parent(getppid().as_raw().cast_unsigned())?;
    let Some(wanted) = receive_order(&channel)? else { return Ok(()) };
    let answering = Arc::new(Answering { channel, answered: Mutex::new(false) });
    let time = match &wanted {
        Wanted::Order(order, _) => time_for(order),
        Wanted::Search(order, _) => order.ends_after(),
        Wanted::Key(order, _) => order.time,
    };
    watch(&answering, Instant::now() + time)?;
    let outcome = match wanted {
        Wanted::Order(order, values) => carry_out(&order, &values, orders),
        // No file says who may ask: whoever does gets no more than is theirs.
        Wanted::Search(order, caller) => relay(search, &order, caller),
        Wanted::Key(order, value) => ask_service(&order, value.as_ref())
            .map(|value| Report { note: String::new(), value: Some(value) }),
    };
    answering.answer(outcome)
}

fn carry_out(order: &Order, values: &Values, orders: &Orders) -> Result<Report, EffectError> {
    let mask = Mask::of(values);
    let done = orders.check(&order.task).and_then(|()| {
        let mount = orders.mountpoint.as_deref();
        Step { order, values, mask: &mask, mount }.carry_out()
    });
    match done {
        Ok(report) => Ok(Report { note: mask.text(&report.note), ..report }),
        Err(error) => Err(mask.error(error)),
    }
}

/// Returns how long an order may take: a command may have less time than its step.
fn time_for(order: &Order) -> Duration {
    use super::{ExecTarget, Notice, Target};
    let command = match &order.task {
        Task::Generate(command)
        | Task::Notify(Notice::Command(command))
        | Task::Set(Target::Exec(ExecTarget { command, .. }))
        | Task::Finish(Target::Exec(ExecTarget { command, .. }))
        | Task::Undo(Target::Exec(ExecTarget { command, .. }))
        | Task::Verify { target: Some(Target::Exec(ExecTarget { command, .. })), .. } => {
            Some(command)
        }
        Task::Verify { verifier: Verifier::Exec(verifier), .. } => Some(&verifier.command),
        Task::Finish(_)
        | Task::Notify(_)
        | Task::Place(_)
        | Task::Set(_)
        | Task::TakeAway(_)
        | Task::Undo(_)
        | Task::Verify { .. } => None,
    };
    let own = command.and_then(super::Command::timeout);
    own.map_or(order.timeout, |own| own.min(order.timeout))
}

/// The channel over which one answer goes.
struct Answering {
    channel: Channel,
    answered: Mutex<bool>,
}

impl Answering {
    fn answer(&self, outcome: Result<Report, EffectError>) -> io::Result<()> {
        let mut answered = self.answered.lock();
        if std::mem::replace(&mut *answered, true) {
            return Ok(());
        }
        send_answer(&self.channel, outcome)
    }
}

/// Ends this process and all that it has started when the time is up or nobody wants the answer any more.
fn watch(answering: &Arc<Answering>, deadline: Instant) -> io::Result<()> {
    let answering = Arc::clone(answering);
    let end = move || {
        // Nothing else is ever sent: what comes is the end.
        let is_late = answering.channel.await_message(deadline).is_err();
        let mut answered = answering.answered.lock();
        if std::mem::replace(&mut *answered, true) {
            // What a program has left running on purpose goes on.
            return;
        }
        if is_late {
            // It fails only for those who have gone.
            drop(send_answer(&answering.channel, Err(EffectError::TimedOut)));
        }
        // The group is this process's own: see `serve`.
        let _ = killpg(Pid::from_raw(0), Signal::SIGKILL);
    };
    thread::Builder::new().name("deadline".to_owned()).spawn(end).map(drop)
}
