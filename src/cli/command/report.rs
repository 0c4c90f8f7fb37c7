//! `report`: what the log, the keys and the policy show of the controls of an audit.
//!
//! All facts come by ways that an admin has anyway: the log, control files, and the tree without its values.
//! The chain of the log is verified first.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Done, ls, verify};
use crate::anomaly::{Detector, Finding, Settings};
use crate::audit::Entry;
use crate::cli::Context;
use crate::cli::args::{Recorded, Report as Args};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::{Tone, text_of};
use crate::cli::recorded;
use crate::cli::when::{self, Direction};
use crate::daemon::compose;
use crate::model::{Attributes, SecretName, Seq, Timestamp};
use crate::policy::Policy;
use crate::report::{
    Chain, EpochFacts, Facts, Keys, Limits, Named, PolicyFacts, Report, SecretFacts, Source, Tally,
    Verdict, html,
};
use crate::system::atomic_file;

pub(super) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let limits = limits(args.limits.as_deref())?;
    let facts = if args.log.replay.is_empty() {
        of_daemon(context, &args.log)?
    } else {
        of_files(&args.log)?
    };
    let report = Report::new(args.framework.into(), &facts, &limits);
    if let Some(path) = &args.html {
        write(path, &html::page(&report, &facts))?;
    }
    show(context, &report, &facts)?;
    if let Some(path) = &args.html {
        context.out.note(format_args!("the page is {}", path.display()));
    }
    Ok(ExitCode::from(u8::from(report.has_failed())))
}

fn limits(path: Option<&Path>) -> Result<Limits, Failure> {
    let Some(path) = path else { return Ok(Limits::default()) };
    let text = read(path)?;
    Limits::parse(&text).map_err(|err| failed(path, &err))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|err| failed(path, &err))
}

fn failed(path: &Path, why: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Config, path.display().to_string(), why.to_string())
}

/// Returns the moment from which on the log is looked at.
pub(super) fn since(log: &Recorded, now: Timestamp) -> Result<Timestamp, Failure> {
    when::parse(&log.since, now, Direction::Ago)
        .map_err(|why| Failure::new(Kind::Config, "--since", why))
}

/// Returns the time of the last line of recorded files.
pub(super) fn end_of(log: &Recorded) -> Result<Timestamp, Failure> {
    let mut end = None;
    recorded::of_files(&log.replay, &mut |entry| end = end.max(Some(entry.time)))?;
    end.ok_or_else(|| Failure::new(Kind::Config, "--replay", "there is no line"))
}

/// Reads a policy file.
pub(super) fn policy(path: &Path) -> Result<Policy, Failure> {
    compose::parse_policy(&read(path)?).map_err(|err| failed(path, &err))
}

/// Asks the daemon for its policy.
pub(super) fn policy_of(client: &Client) -> Result<Policy, Failure> {
    let answer = client.admin(&json!({ "do": "policy-show" }))?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    compose::parse_policy(text("policy"))
        .map_err(|err| Failure::new(Kind::Config, text("path"), err.to_string()))
}

fn of_files(log: &Recorded) -> Result<Facts, Failure> {
    let made = end_of(log)?;
    let since = since(log, made)?;
    let mut tally = Tally::new(since, made);
    let (mut detector, mut found) = (Detector::new(Settings::default()), Vec::new());
    recorded::of_files(&log.replay, &mut |entry: Entry| {
        tally.observe(&entry);
        found.extend(detector.observe(&entry));
    })?;
    found.extend(detector.finish());
    found.retain(|finding| finding.time >= since);
    let secret = |(name, used): (&SecretName, &crate::report::SecretUse)| SecretFacts {
        name: name.clone(),
        attributes: Attributes::default(),
        value_since: used.last_value,
        created: None,
        expires: None,
        rotation_days: None,
        due: None,
        decoy: false,
        revoked: false,
    };
    let secrets: Vec<SecretFacts> = tally.secrets.iter().map(secret).collect();
    let policy = log.policy.as_deref().map(policy).transpose()?;
    Ok(Facts {
        made,
        source: Source::Recorded(
            log.replay.iter().map(|path| path.display().to_string()).collect(),
        ),
        chain: Chain::Unchecked,
        anomalies: Some(found),
        keys: None,
        integrity: None,
        policy: policy.map(|policy| PolicyFacts::new(&policy, &secrets, made)),
        secrets,
        tally,
    })
}

fn of_daemon(context: &Context, log: &Recorded) -> Result<Facts, Failure> {
    let client = context.client()?;
    let made = compose::clock().now();
    let since = since(log, made)?;
    let chain = chain(&verify::check(context, &client, "audit-verify")?);
    let keys = keys(&client.admin(&json!({ "do": "key-status" }))?);
    let status = client.read_text(".control/status")?;
    let status = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let mut seen = Seen { tally: Tally::new(since, made), found: Vec::new(), unreadable: 0 };
    let unreadable = recorded::of_daemon(&client, &mut |entry| seen.observe(&entry))?;
    let Seen { mut tally, mut found, .. } = seen;
    tally.unreadable = seen.unreadable + unreadable;
    found.retain(|finding| finding.time >= since && finding.time <= made);
    let secrets = secrets(&client)?;
    let policy = PolicyFacts::new(&policy_of(&client)?, &secrets, made);
    Ok(Facts {
        made,
        source: Source::Daemon {
            mountpoint: client.mount.mountpoint.display().to_string(),
            version: status("version").unwrap_or_default(),
        },
        chain,
        tally,
        anomalies: Some(found),
        keys: Some(keys),
        integrity: status("integrity"),
        secrets,
        policy: Some(policy),
    })
}

/// What is taken from the daemon's log.
struct Seen {
    tally: Tally,
    /// Every finding that is on record: the daemon itself keeps the newest alone.
    found: Vec<Finding>,
    /// Findings that are not understood.
    unreadable: u64,
}

impl Seen {
    fn observe(&mut self, entry: &Entry) {
        self.tally.observe(entry);
        match Finding::recorded(entry) {
            Some(Ok(finding)) => self.found.push(finding),
            Some(Err(_)) => self.unreadable += 1,
            None => {}
        }
    }
}

fn chain(found: &Value) -> Chain {
    let number = |value: Option<&Value>| Seq(value.and_then(Value::as_u64).unwrap_or_default());
    if found.get("ok").and_then(Value::as_bool) != Some(true) {
        let why = found.get("error").map(text_of).unwrap_or_default();
        return Chain::Broken { why };
    }
    let notes = found.get("notes").and_then(Value::as_array).into_iter().flatten();
    Chain::Whole {
        first: number(found.get("first")),
        head: number(found.pointer("/head/seq")),
        notes: notes.map(text_of).collect(),
    }
}

fn keys(status: &Value) -> Keys {
    let list = |key: &str| status.get(key).and_then(Value::as_array).into_iter().flatten();
    let epoch = |epoch: &Value| {
        let number = |key: &str| epoch.get(key).and_then(Value::as_u64);
        Some(EpochFacts {
            epoch: crate::model::Epoch(u32::try_from(number("epoch")?).ok()?),
            active: epoch.get("active").and_then(Value::as_bool)?,
            created: time(epoch, "created")?,
            sealed: number("sealed_under_it")?,
        })
    };
    Keys {
        cipher: status.get("cipher").map(text_of).unwrap_or_default(),
        sources: list("sources").map(text_of).collect(),
        epochs: list("epochs").filter_map(epoch).collect(),
    }
}

/// Returns everything about every secret but its value.
fn secrets(client: &Client) -> Result<Vec<SecretFacts>, Failure> {
    let reply = client.control("rotate", br#"{"due": true}"#)?;
    let due = reply.get("due").and_then(Value::as_array).into_iter().flatten();
    let due: std::collections::BTreeMap<String, Timestamp> =
        due.filter_map(|due| Some((due.get("secret").map(text_of)?, time(due, "at")?))).collect();
    let names = ls::names(client)?;
    // Gone since the listing is left out; of what is damaged, nothing is known but the name.
    let metas = names.into_iter().filter_map(|name| match client.meta(&name) {
        Ok(meta) => Some((meta, name)),
        Err(failure) if failure.kind == Kind::SecretNotFound => None,
        Err(_) => Some((Value::Null, name)),
    });
    let secret = |(meta, name): (Value, SecretName)| {
        let text = |key: &str| meta.get(key).and_then(Value::as_str);
        let tags = meta.get("tags").and_then(Value::as_array).into_iter().flatten();
        let versions = meta.get("versions").and_then(Value::as_array).into_iter().flatten();
        let current = meta.get("version").cloned().unwrap_or_default();
        let mut of_current = versions.filter(|version| version.get("version") == Some(&current));
        SecretFacts {
            attributes: Attributes {
                secret_type: text("type").and_then(|kind| kind.parse().ok()).unwrap_or_default(),
                service: text("service").map(Into::into),
                environment: text("environment").map(Into::into),
                tags: tags.map(|tag| text_of(tag).into()).collect(),
            },
            value_since: of_current.next().and_then(|version| time(version, "created")),
            created: time(&meta, "created"),
            expires: time(&meta, "expires"),
            rotation_days: meta
                .get("rotation_days")
                .and_then(Value::as_u64)
                .and_then(|days| days.try_into().ok()),
            due: due.get(name.as_str()).copied(),
            decoy: client.attribute(&name, "decoy").as_deref() == Some("yes"),
            revoked: text("status") == Some("revoked"),
            name,
        }
    };
    Ok(metas.map(secret).collect())
}

fn time(object: &Value, key: &str) -> Option<Timestamp> {
    object.get(key)?.as_str()?.parse().ok()
}

/// Writes a page that its owner alone can read: it names secrets and who reads them.
fn write(path: &Path, page: &str) -> Done {
    atomic_file::replace(path, page.as_bytes(), 0o600).map_err(|err| failed(path, &err))
}

fn show(context: &Context, report: &Report, facts: &Facts) -> Done {
    let out = &context.out;
    if out.is_json() {
        let mut document = serde_json::to_value(report).unwrap_or_default();
        if let Some(object) = document.as_object_mut() {
            object.insert("counts".into(), serde_json::to_value(&facts.tally).unwrap_or_default());
        }
        return out.json(&document);
    }
    let plain = context.environment.value("NO_COLOR").is_some_and(|value| !value.is_empty());
    let tone = |text: &str| match text {
        _ if plain => None,
        "fail" => Some(Tone::Bad),
        "not evidenced" => Some(Tone::Open),
        "pass" => Some(Tone::Good),
        _ => None,
    };
    if out.is_terminal() {
        let period = |time: Timestamp| time.strftime("%F").to_string();
        out.line(format_args!(
            "{}, {} to {}, made of {}",
            report.title,
            period(report.since),
            period(report.made),
            report.source
        ))?;
        out.line(report.disclaimer)?;
        out.line("")?;
    }
    let mut rows = Vec::new();
    for (number, Named { title, outcome, .. }) in (1..).zip(&report.findings) {
        let said = format!("{title}: failed. {}", outcome.said);
        rows.push(row(&format!("finding {number}"), outcome.verdict, &said));
    }
    for control in &report.controls {
        rows.push(row(&control.id, control.verdict, &control.title));
        let checks = control.checks.iter().filter_map(|check| find(report, check));
        rows.extend(
            checks.map(|named| row(named.check, named.outcome.verdict, &named.outcome.said)),
        );
    }
    out.toned_table(&["control", "result", "what was found"], &rows, tone)
}

fn find<'a>(report: &'a Report, check: &str) -> Option<&'a Named> {
    report.checks.iter().find(|named| named.check == check)
}

fn row(what: &str, verdict: Verdict, said: &str) -> Vec<String> {
    vec![what.to_owned(), verdict.as_str().to_owned(), said.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_on_record_is_judged_however_many_there_are() {
        let moment = |text: &str| text.parse::<Timestamp>().unwrap();
        let (since, made) = (moment("2026-11-01T00:00:00Z"), moment("2026-11-28T12:00:00Z"));
        let mut seen = Seen { tally: Tally::new(since, made), found: Vec::new(), unreadable: 0 };
        let anomaly = |seq: u64, detail: Value| -> Entry {
            let line = json!({
                "seq": seq, "time": "2026-11-02T00:00:00Z", "action": "anomaly", "outcome": "allowed",
                "detail": detail, "prev": "", "mac": "",
            });
            serde_json::from_value(line).unwrap()
        };
        let finding = |kind: &str| {
            json!({
                "time": "2026-11-02T00:00:00Z", "kind": kind, "score": 1.0, "secret": null,
                "caller": { "uid": 7, "exe": null, "place": null }, "explanation": "", "lines": 1, "seqs": [1],
            })
        };
        seen.observe(&anomaly(1, finding("decoy")));
        (2..=1200).for_each(|seq| seen.observe(&anomaly(seq, finding("burst"))));
        seen.observe(&anomaly(1201, json!({ "kind": "of another version" })));
        assert_eq!((seen.found.len(), seen.unreadable), (1200, 1));
        assert_eq!(seen.found[0].kind, crate::anomaly::Kind::Decoy);
    }
}
