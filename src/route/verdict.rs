//! What a service has just said of a name, remembered for a moment: it is not asked again for what it has not.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::UpstreamError;
use crate::model::SecretName;

/// For how long readers are told what has just failed, before it is tried again.
pub(super) const REMEMBERED: Duration = Duration::from_secs(1);
/// Names of which something is remembered.
const MAX_VERDICTS: usize = 10_000;

/// What is remembered of a name.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Failing(UpstreamError),
    NotThere,
}

/// What is remembered of all names, each until its own time since the host's start, which nobody sets back.
#[derive(Debug, Default)]
pub(super) struct Verdicts(HashMap<SecretName, (Verdict, Duration)>);

impl Verdicts {
    pub(super) fn remember(
        &mut self,
        name: &SecretName,
        verdict: Verdict,
        (now, until): (Duration, Duration),
    ) {
        if self.0.len() >= MAX_VERDICTS {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() >= MAX_VERDICTS {
            self.0.clear();
        }
        self.0.insert(name.clone(), (verdict, until));
    }

    pub(super) fn of(&self, name: &SecretName, now: Duration) -> Option<Verdict> {
        let (verdict, until) = self.0.get(name)?;
        (*until > now).then(|| verdict.clone())
    }

    pub(super) fn forget(&mut self, name: &SecretName) {
        self.0.remove(name);
    }
}
