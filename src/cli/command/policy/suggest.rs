//! `policy suggest`: the least rules that would have allowed what the log shows, and what nobody used.
//!
//! What comes out is a policy: proposals as TOML, everything else as comments. It is for a person to read and
//! to cut, and changes nothing.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::Done;
use crate::anomaly::{Finding, Kind};
use crate::audit::{Action, Entry, Outcome};
use crate::cli::Context;
use crate::cli::args::PolicySuggest;
use crate::cli::client::Client;
use crate::cli::command::report::{end_of, policy, policy_of, since};
use crate::cli::error::Failure;
use crate::cli::out::text_of;
use crate::cli::recorded;
use crate::daemon::compose;
use crate::model::{Level, SecretName, Timestamp};
use crate::policy::{Access, AccessOf, Lease, Narrowing, Policy, Suggested, Suggestion};

/// What the log shows.
struct Seen {
    since: Timestamp,
    until: Timestamp,
    /// The first line that there is.
    first: Option<Timestamp>,
    accesses: u64,
    /// Accesses by grants for a time, which are left out.
    by_grants: u64,
    /// Changes of attributes, of which the log does not say which.
    attributes: u64,
    suggestion: Suggestion,
    /// The decoys that somebody asked for: nothing needs them, so no rule is for them.
    decoys: BTreeSet<SecretName>,
    /// What the log calls the rules that decided.
    rules: BTreeSet<String>,
}

pub(super) fn run(context: &Context, args: &PolicySuggest) -> Done {
    let log = &args.log;
    if !log.replay.is_empty() {
        let until = end_of(log)?;
        let mut seen = Seen::new(since(log, until)?, until);
        recorded::of_files(&log.replay, &mut |entry| seen.observe(&entry, args.with_grants))?;
        let policy = log.policy.as_deref().map(policy).transpose()?;
        return show(context, args, &mut seen, (policy.as_ref(), &[]));
    }
    let client = context.client()?;
    let now = compose::clock().now();
    let mut seen = Seen::new(since(log, now)?, now);
    recorded::of_daemon(&client, &mut |entry| seen.observe(&entry, args.with_grants))?;
    show(context, args, &mut seen, (Some(&policy_of(&client)?), &unused_grants(&client)?))
}

impl Seen {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            since,
            until,
            first: None,
            accesses: 0,
            by_grants: 0,
            attributes: 0,
            suggestion: Suggestion::default(),
            decoys: BTreeSet::new(),
            rules: BTreeSet::new(),
        }
    }

    fn observe(&mut self, entry: &Entry, with_grants: bool) {
        self.first.get_or_insert(entry.time);
        if entry.time < self.since || entry.time > self.until {
            return;
        }
        if let Some(Ok(Finding { kind: Kind::Decoy, secret: Some(decoy), .. })) =
            Finding::recorded(entry)
        {
            self.decoys.insert(decoy);
        }
        let rule = entry.rule.as_deref();
        self.rules.extend(rule.map(str::to_owned));
        let is_by_grant = rule.is_some_and(Lease::is_label);
        let accesses = accesses(entry);
        if accesses.is_empty() || (is_by_grant && !with_grants) {
            self.by_grants += u64::from(!accesses.is_empty());
            return;
        }
        self.accesses += 1;
        self.attributes += u64::from(entry.action == Action::SetAttribute);
        accesses.into_iter().for_each(|access| self.suggestion.observe(access));
    }

    /// Returns the rules for what was seen, but for decoys.
    fn suggest(&mut self, narrowing: Narrowing) -> Suggested {
        self.suggestion.leave_out(&self.decoys);
        self.suggestion.suggest(narrowing)
    }

    fn days(&self) -> i64 {
        let first = self.first.map_or(self.until, |first| first.max(self.since));
        self.until.duration_since(first).as_hours() / 24
    }
}

/// Returns what a line takes, one level at a time; nothing where no rule decided.
fn accesses(entry: &Entry) -> Vec<Access> {
    let Some(uid) = entry.uid else { return Vec::new() };
    // Where bytes were no UTF-8, the text is not what was decided by.
    let known = |key: &str, text: &Option<String>| {
        text.clone().filter(|_| !entry.not_utf8.iter().any(|not| not == key))
    };
    let who = AccessOf {
        uid,
        unit: known("unit", &entry.unit),
        container: known("container", &entry.container),
        exe: known("exe", &entry.exe),
    };
    let allowed = entry.outcome != Outcome::Denied;
    let on = |name: Option<&SecretName>, level: Option<Level>| Access {
        who: who.clone(),
        name: name.cloned(),
        level,
        allowed,
    };
    let Some(levels) = levels_of(entry.action) else {
        return Vec::new();
    };
    let name = entry.secret.as_ref();
    match (levels, name) {
        (Takes::Nothing, Some(_)) => vec![on(name, None)],
        (Takes::Levels(levels), Some(_)) => {
            let mut all: Vec<Access> = levels.iter().map(|level| on(name, Some(*level))).collect();
            let target = entry.reason.as_deref().and_then(|reason| reason.strip_prefix("to "));
            let target = target.filter(|_| entry.action == Action::Rename);
            if let Some(target) = target.and_then(|target| target.parse::<SecretName>().ok()) {
                all.push(on(Some(&target), Some(Level::Write)));
            }
            all
        }
        // Without a rule it was something that anybody may ask for.
        (Takes::Store, None) if entry.rule.is_some() || !allowed => {
            vec![on(None, Some(Level::Admin))]
        }
        (Takes::Nothing | Takes::Levels(_) | Takes::Store, None) | (Takes::Store, Some(_)) => {
            Vec::new()
        }
    }
}

/// What an action takes.
enum Takes {
    /// Any level: only that it was refused is told.
    Nothing,
    Levels(&'static [Level]),
    Store,
}

fn levels_of(action: Action) -> Option<Takes> {
    let levels: &[Level] = match action {
        Action::Check => return Some(Takes::Nothing),
        Action::AuditRead
        | Action::Backup
        | Action::Control
        | Action::Grant
        | Action::GrantApprove
        | Action::GrantRevoke
        | Action::KeyChange
        | Action::MfaForget
        | Action::PolicyReload
        | Action::Seal
        | Action::Verify => return Some(Takes::Store),
        Action::Read => &[Level::Read],
        Action::Append | Action::Rotate | Action::SetAttribute | Action::Write => &[Level::Write],
        Action::Promote | Action::Stage => &[Level::Admin],
        Action::Delete | Action::Destroy | Action::Rename => &[Level::Delete],
        Action::Restore => &[Level::Delete, Level::Write],
        // The log's own, what anybody may ask for, and directories, which follow the secrets in them.
        Action::Anchor
        | Action::Anomaly
        | Action::BackendConnection
        | Action::BreakGlass
        | Action::CreateDirectory
        | Action::Elevate
        | Action::Forward
        | Action::GrantEnd
        | Action::GrantRequest
        | Action::MfaEnrol
        | Action::Prune
        | Action::Quarantine
        | Action::QuarantineEnd
        | Action::Refusals
        | Action::RemoveDirectory
        | Action::SegmentClose
        | Action::SegmentOpen
        | Action::Start
        | Action::Stop
        | Action::Unseal => return None,
    };
    Some(Takes::Levels(levels))
}

/// Returns the grants in force that nobody has used, as `ID: LEVELS on NAMES for WHOM`.
fn unused_grants(client: &Client) -> Result<Vec<String>, Failure> {
    let mut unused = Vec::new();
    for (id, _) in client.list(".control/grants")? {
        // Over since the listing.
        let Ok(text) = fs::read(client.path(&format!(".control/grants/{id}"))) else { continue };
        let Ok(grant) = serde_json::from_slice::<Value>(&text) else { continue };
        if grant.get("used").and_then(Value::as_u64) != Some(0) {
            continue;
        }
        let text = |key: &str| grant.get(key).map(text_of).unwrap_or_default();
        let levels = grant.get("levels").and_then(Value::as_array).into_iter().flatten();
        let levels = levels.map(text_of).collect::<Vec<_>>().join(", ");
        unused.push(format!(
            "{id}: {levels} on {} for {}, until {}",
            text("names"),
            text("whom"),
            text("until")
        ));
    }
    Ok(unused)
}

fn show(
    context: &Context,
    args: &PolicySuggest,
    seen: &mut Seen,
    (policy, grants): (Option<&Policy>, &[String]),
) -> Done {
    let narrowing = if args.exact { Narrowing::ByWhatPasses } else { Narrowing::Never };
    let suggested = seen.suggest(narrowing);
    let rules = policy.map(Policy::rules).unwrap_or_default();
    let unused: Vec<_> = rules
        .iter()
        .filter(|rule| !rule.break_glass && !seen.rules.contains(&*rule.label))
        .collect();
    if context.out.is_json() {
        let unused = unused
            .iter()
            .map(|rule| json!({ "rule": &*rule.label, "line": rule.line, "allows": rule.text }));
        return context.out.json(&json!({
            "policy": suggested.toml,
            "since": seen.since.to_string(),
            "until": seen.until.to_string(),
            "days": seen.days(),
            "accesses": seen.accesses,
            "by_grants": seen.by_grants,
            "decoys": seen.decoys,
            "bindings": suggested.bindings,
            "roles": suggested.roles,
            "contradicted": suggested.contradicted,
            "deleted": suggested.deleted,
            "unused_rules": policy.map(|_| unused.collect::<Vec<_>>()),
            "unused_grants": grants,
        }));
    }
    let comment = |text: String| context.out.line(format_args!("# {text}"));
    let date = |time: Timestamp| time.strftime("%F").to_string();
    comment(format!(
        "The least rules for {} accesses of {} to {}, of which the log covers {} days. Read them before you use them:",
        seen.accesses,
        date(seen.since),
        date(seen.until),
        seen.days()
    ))?;
    comment("what happens once a year is not in them, and who did wrong is.".into())?;
    if seen.by_grants > 0 {
        comment(format!(
            "Accesses by grants for a time are left out: {} (see --with-grants).",
            seen.by_grants
        ))?;
    }
    if seen.attributes > 0 {
        comment(format!(
            "Changes of attributes ({}) are taken for `write`; tags, type, service, environment and some others need `admin`.",
            seen.attributes
        ))?;
    }
    let decoys: Vec<String> = seen.decoys.iter().map(ToString::to_string).collect();
    list(context, "These are decoys, and left out:", &decoys)?;
    list(
        context,
        "These refusals would not be repeated, for nothing told their callers apart:",
        &suggested.contradicted,
    )?;
    list(
        context,
        "The programs of these callers were deleted or replaced while they ran. Put the path in, without the mark, for their next start:",
        &suggested.deleted,
    )?;
    let line = |rule: &&crate::policy::RuleSurvey| {
        let line = rule.line.map(|line| format!(" (line {line})")).unwrap_or_default();
        format!("{}{line}: {}", rule.label, rule.text)
    };
    let unused: Vec<String> = unused.iter().map(line).collect();
    list(context, "Nobody used these rules of the policy:", &unused)?;
    list(context, "Nobody used these grants:", grants)?;
    if suggested.toml.is_empty() {
        return comment("No access was allowed, so no rule is needed.".into());
    }
    context.out.line("")?;
    suggested.toml.lines().try_for_each(|line| context.out.line(line))
}

fn list(context: &Context, what: &str, lines: &[String]) -> Done {
    if lines.is_empty() {
        return Ok(());
    }
    context.out.line(format_args!("# {what}"))?;
    // The printer escapes line ends, so that no text of the log is a rule of the policy.
    lines.iter().try_for_each(|line| context.out.line(format_args!("#   {line}")))
}
