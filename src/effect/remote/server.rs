//! The process that speaks to a service: it makes the calls that it is sent, each in a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::message::{Call, Opened, Reply, Request, receive, send};
use crate::backend::{Backend, BackendError, Deadline, Fetched};
use crate::system::{Channel, SecretBytes};

/// How long it may take to say what a service can do.
const BEGINNING: Duration = Duration::from_secs(2);

/// Says what the service can do, and makes calls until the channel is closed.
pub(in crate::effect) fn serve_backend(
    channel: &Channel,
    backend: Result<Arc<dyn Backend>, BackendError>,
) -> io::Result<()> {
    // A client knows it without asking its service.
    let opened: Opened = backend
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|it| it.abilities(Deadline::within(BEGINNING)));
    channel.send(&opened)?;
    let (Ok(backend), Ok(_)) = (backend, opened) else { return Ok(()) };
    loop {
        let ends = match channel.receive_descriptors() {
            Ok(ends) => ends,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        for end in ends {
            let end = Channel::of_descriptor(end)?;
            let backend = Arc::clone(&backend);
            let answer = move || {
                // Whoever has called sees the end of the channel.
                if let Err(error) = answer(&end, &*backend) {
                    tracing::warn!(%error, "a call of a backend is not answered");
                }
            };
            thread::Builder::new().name("call".into()).spawn(answer)?;
        }
    }
}

fn answer(channel: &Channel, backend: &dyn Backend) -> io::Result<()> {
    let Some((Request { call, time }, value)) = receive::<Request>(channel)? else {
        return Ok(());
    };
    let (reply, value) = match make(backend, call, value, Deadline::within(time)) {
        Ok((reply, value)) => (Ok(reply), value),
        Err(error) => (Err(error), None),
    };
    send::<Result<Reply, BackendError>>(channel, &reply, value.as_ref())
}

fn make(
    backend: &dyn Backend,
    call: Call,
    value: Option<SecretBytes>,
    deadline: Deadline,
) -> Result<(Reply, Option<SecretBytes>), BackendError> {
    let reply = match call {
        Call::Delete { name } => backend.delete(&name, deadline).map(|()| Reply::Done)?,
        Call::Describe { name } => Reply::Description(backend.describe(&name, deadline)?),
        Call::Destroy { name } => backend.destroy(&name, deadline).map(|()| Reply::Done)?,
        Call::Get { name, which } => {
            let fetched = backend.get(&name, &which, deadline)?;
            let Fetched { version, value, created, expires } = fetched;
            return Ok((Reply::Fetched { version, created, expires }, Some(value)));
        }
        Call::List { page } => Reply::Page(backend.list(page.as_ref(), deadline)?),
        Call::Put { name, put } => {
            let value = value.ok_or_else(|| BackendError::Invalid("there is no value".into()))?;
            Reply::Version(backend.put(&name, &value, &put, deadline)?)
        }
        Call::Restore { name } => backend.restore(&name, deadline).map(|()| Reply::Done)?,
        Call::Stage { name, stage, to } => {
            backend.stage(&name, &stage, &to, deadline).map(|()| Reply::Done)?
        }
        Call::Tag { name, tags } => backend.tag(&name, &tags, deadline).map(|()| Reply::Done)?,
        Call::Versions { name } => Reply::Versions(backend.versions(&name, deadline)?),
    };
    Ok((reply, None))
}
