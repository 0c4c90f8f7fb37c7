//! The commands of `.control/admin` about quarantines.

use serde_json::{Value, json};

use super::words::{Number, Span};
use super::{Daemon, Result};
use crate::broker::{BrokerError, Quarantine};
use crate::model::{Caller, Uid};

impl Daemon {
    pub(super) fn run_quarantine(
        &self,
        caller: &Caller,
        uid: Number,
        lasting: &Span,
        reason: &str,
    ) -> Result<Value> {
        let begun = self.alerts.quarantine(Some(caller), user(uid)?, lasting.0, (reason, None))?;
        Ok(shown(&begun))
    }

    pub(super) fn run_quarantine_lift(&self, caller: &Caller, uid: Number) -> Result<Value> {
        Ok(shown(&self.alerts.lift(caller, user(uid)?)?))
    }

    pub(super) fn run_quarantine_list(&self, caller: &Caller) -> Result<Value> {
        self.admit(caller, "quarantine-list")?;
        Ok(self.broker().quarantines().iter().map(shown).collect())
    }
}

fn user(Number(number): Number) -> Result<Uid> {
    let uid = u32::try_from(number);
    uid.map(Uid).map_err(|_| BrokerError::Invalid(format!("{number} is no uid")))
}

fn shown(quarantine: &Quarantine) -> Value {
    let Quarantine { uid, term, reason, cause } = quarantine;
    json!({ "uid": uid, "until": term.end().to_string(), "reason": reason, "cause": cause })
}
