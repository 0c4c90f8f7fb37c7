//! What lines are found by, as hashes.

use std::borrow::Cow;

use serde::Deserialize;

use crate::audit::reader::Filter;
use crate::audit::{Action, Outcome};
use crate::model::{SecretName, Seq, Timestamp, Uid};

/// A key of an index.
pub(super) type Hash = u64;

/// What an index needs to know of a line.
pub(super) struct Known {
    pub(super) seq: Option<Seq>,
    pub(super) time: Option<Timestamp>,
    pub(super) keys: Vec<Hash>,
}

/// Returns what a line is found by; `None` if it was not understood.
pub(super) fn line_keys(line: &[u8]) -> Option<Known> {
    #[derive(Deserialize)]
    struct Indexed<'a> {
        seq: Seq,
        time: Timestamp,
        action: Action,
        outcome: Outcome,
        #[serde(borrow)]
        secret: Option<Cow<'a, str>>,
        uid: Option<Uid>,
        #[serde(borrow)]
        exe: Option<Cow<'a, str>>,
        #[serde(borrow)]
        unit: Option<Cow<'a, str>>,
    }
    let line: Indexed<'_> = serde_json::from_slice(line).ok()?;
    let mut keys = vec![hash(Field::Action, line.action.as_str())];
    if let Some(secret) = &line.secret {
        keys.push(hash(Field::Secret, secret));
        let above = secret.match_indices('/').filter_map(|(end, _)| secret.get(..end));
        keys.extend(above.map(|directory| hash(Field::Below, directory)));
    }
    keys.extend(line.uid.map(|uid| hash(Field::Uid, &uid.to_string())));
    keys.extend(line.exe.as_deref().map(|exe| hash(Field::Exe, last_part(exe))));
    keys.extend(line.unit.as_deref().map(|unit| hash(Field::Unit, last_part(unit))));
    if line.outcome != Outcome::Allowed {
        keys.push(hash(Field::Outcome, line.outcome.as_str()));
    }
    Some(Known { seq: Some(line.seq), time: Some(line.time), keys })
}

/// Returns the keys that a line must have to be one of those asked for.
pub(super) fn filter_keys(filter: &Filter) -> Vec<Hash> {
    let text =
        |field, text: &Option<String>| text.as_deref().map(|text| hash(field, last_part(text)));
    let secret = filter.secret.as_ref().map(|name| hash(Field::Secret, name.as_str()));
    let uid = filter.uid.map(|uid| hash(Field::Uid, &uid.to_string()));
    // Nearly all lines are of what was allowed.
    let outcome = filter.outcome.filter(|outcome| *outcome != Outcome::Allowed);
    let outcome = outcome.map(|outcome| hash(Field::Outcome, outcome.as_str()));
    let action = filter.action.map(|action| hash(Field::Action, action.as_str()));
    let (exe, unit) = (text(Field::Exe, &filter.exe), text(Field::Unit, &filter.unit));
    [secret, uid, outcome, action, exe, unit].into_iter().flatten().collect()
}

/// Returns the keys of which a line has one if its secret has this name or is below it.
pub(super) fn place_keys(place: &SecretName) -> [Hash; 2] {
    [hash(Field::Secret, place.as_str()), hash(Field::Below, place.as_str())]
}

#[derive(Clone, Copy)]
enum Field {
    Action = 1,
    Below = 2,
    Exe = 3,
    Outcome = 4,
    Secret = 5,
    Uid = 6,
    Unit = 7,
}

/// FNV-1a, which is the same in every build: an index may be older than the program.
fn hash(field: Field, text: &str) -> Hash {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = [field as u8].into_iter().chain(text.bytes());
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
