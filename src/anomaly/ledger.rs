//! All that is remembered, bounded: of what is too much, that which was seen longest ago is forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Who;
use super::profile::{Caller, Secret, Times};
use crate::model::{SecretName, Timestamp};

/// Callers that are remembered.
const MAX_CALLERS: usize = 5_000;
/// Secrets that are remembered.
const MAX_SECRETS: usize = 20_000;
/// Uses (one caller, one secret) that are remembered.
const MAX_USES: usize = 100_000;

/// What the detectors have learned.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Ledger {
    #[serde(with = "pairs")]
    callers: BTreeMap<Who, Caller>,
    #[serde(with = "pairs")]
    secrets: BTreeMap<SecretName, Secret>,
    /// The last time that a caller used a secret.
    #[serde(with = "pairs")]
    uses: BTreeMap<(SecretName, Who), Timestamp>,
    /// When programs are changed: a fleet has its hours for that.
    pub(super) changes: Times,
}

impl Ledger {
    pub(super) fn caller(&mut self, who: &Who, time: Timestamp) -> &mut Caller {
        if !self.callers.contains_key(who) {
            forget_oldest(&mut self.callers, MAX_CALLERS, |caller| caller.pauses.last);
        }
        self.callers.entry(who.clone()).or_insert_with(|| Caller::begin(time))
    }

    pub(super) fn knows_secret(&self, name: &SecretName) -> bool {
        self.secrets.contains_key(name)
    }

    pub(super) fn secret(&mut self, name: &SecretName, time: Timestamp) -> &mut Secret {
        if !self.secrets.contains_key(name) {
            forget_oldest(&mut self.secrets, MAX_SECRETS, |secret| secret.pauses.last);
        }
        self.secrets.entry(name.clone()).or_insert_with(|| Secret::begin(time))
    }

    /// Remembers that a caller uses a secret. Returns whether it did before.
    pub(super) fn has_used(&mut self, name: &SecretName, who: &Who, time: Timestamp) -> bool {
        let key = (name.clone(), who.clone());
        if let Some(last) = self.uses.get_mut(&key) {
            *last = time;
            return true;
        }
        forget_oldest(&mut self.uses, MAX_USES, |last| *last);
        self.uses.insert(key, time);
        false
    }

    /// A secret has another name: what was learned of it goes along.
    pub(super) fn rename(&mut self, from: &SecretName, to: &SecretName) {
        if let Some(secret) = self.secrets.remove(from) {
            self.secrets.insert(to.clone(), secret);
        }
        let (old, rest) = std::mem::take(&mut self.uses)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|((name, _), _)| name == from);
        self.uses = rest;
        self.uses.extend(old.into_iter().map(|((_, who), last)| ((to.clone(), who), last)));
    }

    /// A secret is gone for good: one that gets its name later is another.
    pub(super) fn forget(&mut self, name: &SecretName) {
        self.secrets.remove(name);
        self.uses.retain(|(used, _), _| used != name);
    }
}

/// Makes room in a full map: an eighth of it goes, so that not every line has to search for the oldest.
fn forget_oldest<K: Ord, V>(map: &mut BTreeMap<K, V>, max: usize, last: impl Fn(&V) -> Timestamp) {
    if map.len() < max {
        return;
    }
    let mut times: Vec<_> = map.values().map(&last).collect();
    let (_, border, _) = times.select_nth_unstable(max / 8);
    let border = *border;
    map.retain(|_, value| last(value) > border);
}

/// Maps as lists of pairs: keys of JSON are texts.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(input: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(input)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Uid;

    #[test]
    fn memory_is_bounded_and_what_was_seen_last_is_kept() {
        let mut ledger = Ledger::default();
        let time = |n: usize| Timestamp::from_second(i64::try_from(n).unwrap()).unwrap();
        for n in 0..MAX_CALLERS * 2 {
            ledger.caller(&Who::user(Uid(u32::try_from(n).unwrap())), time(n));
            assert!(ledger.callers.len() <= MAX_CALLERS);
        }
        let last = Who::user(Uid(u32::try_from(MAX_CALLERS * 2 - 1).unwrap()));
        assert!(ledger.callers.contains_key(&last));
        assert!(ledger.callers.len() >= MAX_CALLERS / 8 * 7 - 1);
    }
}
