//! Oneiric's settings, from the secrets that whoever opens the file may read.

use std::collections::BTreeSet;

use super::{Layer, MAX_BYTES, Oneiric};
use crate::broker::{Broker, BrokerError, Known};
use crate::fs::error::{FsError, Result};
use crate::inject::oneiric::{PublishError, Published, publish, publish_env, publish_json};
use crate::inject::relative;
use crate::model::{Caller, Level, SecretName};
use crate::system::SecretBytes;

/// Puts a layer together for a caller; `purpose` is for the records. One secret that the form cannot
/// hold fails the whole: a missing setting is worse. What it is made of is noted before it is read.
pub(in crate::fs) fn text(
    broker: &Broker,
    caller: &Caller,
    (oneiric, layer, note): (&Oneiric, &Layer, impl FnOnce(BTreeSet<SecretName>)),
    purpose: &str,
) -> Result<SecretBytes> {
    let dir = oneiric.dir.as_ref();
    let mut known = broker.known(caller, dir)?;
    known.retain(|one| one.levels.allow(Level::Read));
    let names: BTreeSet<SecretName> = known.iter().map(|one| one.name.clone()).collect();
    note(names.clone());
    if names.is_empty() {
        return Err(FsError::Access);
    }
    let values = broker.read_set(caller, &names, (purpose, MAX_BYTES))?;
    let mut secrets = Vec::new();
    for Known { name, injection, .. } in &known {
        let Some(value) = values.get(name) else { continue };
        let name = relative(name, dir).parse().map_err(BrokerError::Name)?;
        secrets.push(Published { name, value, injection: injection.clone() });
    }
    let text = match layer {
        Layer::Env => publish_env(&secrets),
        Layer::Json => publish_json(&secrets),
        Layer::Local(_) | Layer::Settings(_) => publish(None, &secrets),
    };
    let text = text.map_err(|error| refused(purpose, error))?;
    if text.len() as u64 > MAX_BYTES { Err(FsError::TooBig) } else { Ok(text) }
}

/// Says in the daemon's log what the errno cannot.
fn refused(purpose: &str, error: PublishError) -> FsError {
    tracing::warn!(%error, "not rendered {purpose}");
    match error {
        PublishError::Memory(error) => FsError::Memory(error),
        PublishError::Form(_)
        | PublishError::InTheWay(..)
        | PublishError::NoText(_)
        | PublishError::Reserved(_)
        | PublishError::Variable(_) => FsError::Invalid,
    }
}
