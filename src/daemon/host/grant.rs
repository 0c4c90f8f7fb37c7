//! The commands of `.control/grant` and `.control/revoke`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::words::{Flag, Number, Span, Text, Words};
use super::{Daemon, Result};
use crate::broker::{Ask, BrokerError};
use crate::daemon::accounts::HostAccounts;
use crate::model::{Caller, GrantId, Level, Pattern};
use crate::policy::{Users, Whom};

/// A command of `.control/grant`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    names: Option<Text<Pattern>>,
    #[serde(default)]
    levels: Words,
    #[serde(rename = "for")]
    lasting: Option<Span>,
    uses: Option<Number>,
    #[serde(default)]
    reason: Box<str>,
    #[serde(default)]
    uid: Words,
    #[serde(default)]
    gid: Words,
    #[serde(default)]
    unit: Words,
    #[serde(default)]
    container: Words,
    #[serde(default)]
    exe: Words,
    #[serde(default)]
    exe_sha256: Words,
    /// Takes it for oneself, in an emergency.
    #[serde(default = "Flag::no")]
    break_glass: Flag,
    /// The grant to be approved, instead of all else.
    approve: Option<Text<GrantId>>,
}

/// A command of `.control/revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    grant: Text<GrantId>,
}

impl Daemon {
    pub(super) fn run_grant(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let command = Grant::deserialize(command).map_err(|error| invalid(&error))?;
        if let Some(Text(id)) = command.approve {
            return Ok(json!(self.broker().approve_grant(caller, id)?));
        }
        let ask = command.ask(&HostAccounts).map_err(BrokerError::Invalid)?;
        Ok(json!(self.broker().grant(caller, ask)?))
    }

    pub(super) fn run_revoke_grant(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let command = Revoke::deserialize(command).map_err(|error| invalid(&error))?;
        Ok(json!(self.broker().revoke_grant(caller, command.grant.0)?))
    }
}

impl Grant {
    fn ask(self, users: &dyn Users) -> std::result::Result<Ask, String> {
        let levels = self.levels.0.iter().map(|word| word.parse::<Level>());
        let levels = levels.collect::<std::result::Result<_, _>>()?;
        let mut whom = Whom::default();
        let facts = [
            ("uid", self.uid),
            ("gid", self.gid),
            ("unit", self.unit),
            ("container", self.container),
            ("exe", self.exe),
            ("exe_sha256", self.exe_sha256),
        ];
        for (key, words) in facts {
            words.0.iter().try_for_each(|word| whom.add(key, word, users))?;
        }
        Ok(Ask {
            names: self.names.ok_or("a grant is for a name or a pattern")?.0,
            levels,
            whom,
            lasting: self.lasting.map(|span| span.0),
            max_uses: self.uses.map(|uses| u32::try_from(uses.0).unwrap_or(u32::MAX)),
            reason: self.reason,
            break_glass: self.break_glass.0,
        })
    }
}

fn invalid(error: &serde_json::Error) -> BrokerError {
    BrokerError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::NumericIds;

    fn ask(command: Value) -> std::result::Result<Ask, String> {
        let command = Grant::deserialize(&command).map_err(|error| error.to_string())?;
        command.ask(&NumericIds)
    }

    #[test]
    fn a_bare_line_and_an_object_ask_for_the_same() {
        let line = json!({
            "names": "prod/*", "levels": "read,write", "for": "15m", "uid": "33,34", "uses": "3",
            "reason": "incident-42", "unit": "nginx.service",
        });
        let object = json!({
            "names": "prod/*", "levels": ["read", "write"], "for": "15m", "uid": [33, 34], "uses": 3,
            "reason": "incident-42", "unit": ["system.slice/nginx.service"],
        });
        let asks = [line, object].map(|command| ask(command).unwrap());
        assert_eq!(format!("{:?}", asks[0]), format!("{:?}", asks[1]));
        assert_eq!(asks[0].lasting, Some(Duration::from_secs(900)));
        assert_eq!(asks[0].whom.to_string(), "uid 33 34, unit system.slice/nginx.service");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = json!({ "names": "a", "levels": "read", "for": "15m", "uid": 33 });
        assert!(ask(good.clone()).is_ok());
        for (key, value) in [
            ("names", json!("a//b")),
            ("levels", json!("all")),
            ("for", json!("soon")),
            ("uid", json!("nobody-here")),
            ("uid", json!({})),
            ("unit", json!("nginx")),
            ("exe", json!("psql")),
            ("uses", json!("many")),
            ("until", json!("tomorrow")),
        ] {
            let mut bad = good.clone();
            bad[key] = value.clone();
            assert!(ask(bad).is_err(), "{key} {value}");
        }
    }
}
