//! Control files that show a text made when they are opened.

use std::fmt::Write;

use super::{Held, Host, Text};
use crate::broker::{Broker, BrokerError, Share};
use crate::fs::error::Result;
use crate::model::Caller;

/// What of the status everybody may see.
const PUBLIC_STATUS: [&str; 4] = ["health", "version", "mode", "mountpoint"];

/// Returns the text for a caller.
pub(in crate::fs) fn text(
    text: Text,
    broker: &Broker,
    host: &dyn Host,
    caller: &Caller,
    held: impl Fn() -> Held,
) -> Result<String> {
    match text {
        // Counts, and how far the log has come, tell what others do.
        Text::Anomalies
        | Text::AuditHead
        | Text::AuditTotals
        | Text::Injections
        | Text::Metrics
            if !broker.is_admin(caller) =>
        {
            Err(BrokerError::Denied.into())
        }
        Text::Anomalies => Ok(host.anomalies()),
        Text::AuditHead => Ok(format!("{:#}\n", broker.audit_head())),
        Text::AuditTotals => Ok(broker.audit_totals()? + "\n"),
        Text::Injections => Ok(host.injections()),
        Text::Metrics => Ok(host.metrics(&held())),
        Text::Status => {
            let mut pairs = host.status();
            if !broker.is_admin(caller) {
                pairs.retain(|(key, _)| PUBLIC_STATUS.contains(&key.as_str()));
            }
            Ok(lines(pairs))
        }
        Text::Version => Ok(format!("version: {}\n", env!("CARGO_PKG_VERSION"))),
        Text::Whoami => {
            let mut pairs = whoami(caller, broker.is_admin(caller));
            let elevated = broker.elevated_until(caller);
            pairs.extend(elevated.map(|until| ("elevated until".to_owned(), until.to_string())));
            // Nothing is known of it while the store is sealed.
            if let Ok(share) = broker.share(caller.uid) {
                pairs.extend(made(share, broker));
            }
            Ok(lines(pairs))
        }
    }
}

fn lines(pairs: Vec<(String, String)>) -> String {
    pairs.into_iter().fold(String::new(), |mut text, (key, value)| {
        // Writing to a string cannot fail.
        writeln!(text, "{key}: {value}").unwrap_or_default();
        text
    })
}

/// Returns what the daemon takes the caller for; what a rule could bind and it does not know is not
/// shown.
fn whoami(caller: &Caller, admin: bool) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("uid".to_owned(), caller.uid.to_string()),
        ("gid".to_owned(), caller.gid.to_string()),
    ];
    let mut push = |key: &str, value: Option<String>| {
        pairs.extend(value.map(|value| (key.to_owned(), value)));
    };
    push(
        "groups",
        caller
            .groups
            .as_ref()
            .map(|groups| groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    );
    let process = caller.process.as_deref();
    push("pid", process.map(|process| process.pid.to_string()));
    push("comm", process.map(|process| process.comm.escape_ascii().to_string()));
    let exe = caller.exe_now.as_deref().or_else(|| process?.exe.as_ref());
    push("exe", exe.map(|exe| exe.path.as_os_str().as_encoded_bytes().escape_ascii().to_string()));
    push("unit", process.and_then(|process| process.unit.as_deref().map(str::to_owned)));
    let container = process.and_then(|process| process.container.as_ref());
    push("container", container.map(|c| format!("{}:{}", c.runtime, c.id)));
    push("session", caller.session.map(|session| session.to_string()));
    push("admin", Some(if admin { "yes" } else { "no" }.to_owned()));
    pairs
}

/// Returns how much of its share the caller's uid has made.
fn made(share: Share, broker: &Broker) -> [(String, String); 2] {
    let limits = broker.limits();
    let of = |made: u64, limit: Option<u64>| match limit {
        Some(limit) => format!("{made} of {limit}"),
        None => made.to_string(),
    };
    [
        ("secrets made".to_owned(), of(share.secrets, limits.secrets_per_uid)),
        ("directories made".to_owned(), of(share.directories, limits.directories_per_uid)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Gid, Uid};

    #[test]
    fn whoami_shows_what_is_known_and_is_silent_on_the_rest() {
        let caller = Caller::with_ids(Uid(1000), Gid(100));
        assert_eq!(lines(whoami(&caller, false)), "uid: 1000\ngid: 100\nadmin: no\n");
    }
}
