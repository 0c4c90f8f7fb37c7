//! What a policy file expects of itself, for `secretfs policy test`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{
    Attributes, Caller, Container, Exe, Gid, Level, Levels, Process, SecretName, SecretType,
    Timestamp, Uid, Uptime,
};

use super::document::{Table, Value};
use super::{Context, Explanation, NothingUsed, Policy, PolicyError, Target, Users, parse};

type Result<T> = std::result::Result<T, PolicyError>;

const KEYS: [&str; 8] =
    ["caller", "at", "secret", "type", "tags", "service", "environment", "levels"];
const CALLER_KEYS: [&str; 9] =
    ["uid", "gid", "groups", "unit", "container", "exe", "exe_sha256", "started_ago", "elevated"];

/// A question with the answer that the policy's author wants.
#[derive(Debug)]
pub(super) struct Expectation {
    line: usize,
    caller: Caller,
    started_ago: Option<jiff::SignedDuration>,
    elevated: bool,
    at: Option<Timestamp>,
    secret: SecretName,
    attributes: Attributes,
    levels: Levels,
}

/// Whether one expectation holds.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectationResult {
    /// Where it stands in the file, from 1.
    pub line: usize,
    pub secret: String,
    pub expected: Vec<Level>,
    pub found: Vec<Level>,
    pub passed: bool,
    /// Why it is as it was found; only for one that failed.
    pub explanation: Option<Explanation>,
}

impl Expectation {
    pub(super) fn run(&self, policy: &Policy, now: Timestamp) -> ExpectationResult {
        let now = self.at.unwrap_or(now);
        let context = Context {
            now,
            uptime: Uptime::UNKNOWN,
            elevated: self.elevated,
            quarantined: false,
            uses: &NothingUsed,
        };
        let mut caller = self.caller.clone();
        if let (Some(process), Some(ago)) = (&mut caller.process, self.started_ago) {
            Arc::make_mut(process).started = now.saturating_sub(ago).unwrap_or(Timestamp::MIN);
        }
        let target = Target::Secret { name: &self.secret, attributes: Some(&self.attributes) };
        let found = policy.decided(&caller, target, &context);
        let passed = found == self.levels;
        ExpectationResult {
            line: self.line,
            secret: self.secret.to_string(),
            expected: self.levels.iter().collect(),
            found: found.iter().collect(),
            passed,
            explanation: (!passed).then(|| policy.explain(&caller, target, &context)),
        }
    }
}

pub(super) fn parse(root: &Table<'_>, users: &dyn Users) -> Result<Arc<[Expectation]>> {
    let tables = root.tables("expect", "an expectation", &KEYS)?;
    tables.iter().map(|table| expectation(table, users)).collect()
}

fn expectation(table: &Table<'_>, users: &dyn Users) -> Result<Expectation> {
    let who = table.required("caller")?.table("a caller", &CALLER_KEYS)?;
    let levels = table.required("levels")?.array("a level")?;
    let levels: Levels = levels.into_iter().map(Value::parse::<Level>).collect::<Result<_>>()?;
    let only_admin: Levels = [Level::Admin].into_iter().collect();
    let optional_text = |key| table.value(key).map(parse::text).transpose();
    let mut tags = table.parsed("tags", parse::text)?.into_vec();
    tags.sort();
    tags.dedup();
    Ok(Expectation {
        line: table.line(),
        caller: caller(&who, users)?,
        started_ago: who.value("started_ago").map(Value::duration).transpose()?,
        elevated: who.value("elevated").map(Value::flag).transpose()?.unwrap_or_default(),
        at: table.value("at").map(Value::timestamp).transpose()?,
        secret: table.required("secret")?.parse()?,
        attributes: Attributes {
            secret_type: match table.value("type") {
                Some(value) => parse::secret_type(value)?,
                None => SecretType::default(),
            },
            service: optional_text("service")?,
            environment: optional_text("environment")?,
            tags,
        },
        // `admin` alone stands for all that it implies; beside others it is one of a list.
        levels: if levels == only_admin { Level::ALL.into_iter().collect() } else { levels },
    })
}

fn caller(table: &Table<'_>, users: &dyn Users) -> Result<Caller> {
    let uid: Uid = parse::uid(table.required("uid")?, users)?;
    let gid = match table.value("gid") {
        Some(value) => parse::gid(value, users)?,
        None => Gid(uid.0),
    };
    let groups = match table.value("groups") {
        Some(value) => value.array("a group")?,
        None => Vec::new(),
    };
    let groups: Vec<Gid> =
        groups.into_iter().map(|value| parse::gid(value, users)).collect::<Result<_>>()?;
    let path = table.value("exe").map(Value::string).transpose()?;
    let sha256 = table.value("exe_sha256").map(parse::sha256).transpose()?;
    let exe = (path.is_some() || sha256.is_some())
        .then(|| Exe { path: PathBuf::from(path.unwrap_or_default()), sha256 });
    let unit = table.value("unit").map(parse::unit).transpose()?;
    let container = table.value("container").map(parse::container).transpose()?;
    let has_process = exe.is_some()
        || unit.is_some()
        || container.is_some()
        || table.value("started_ago").is_some();
    let process = Process {
        pid: 1,
        // Without `started_ago` the process is an old one.
        started: Timestamp::MIN,
        comm: Vec::new(),
        exe: exe.clone(),
        unit,
        container: container.map(|c| Container { runtime: c.runtime, id: c.id }),
    };
    Ok(Caller {
        finder: None,
        request: None,
        uid,
        gid,
        groups: Some(groups.into()),
        tid: None,
        process: has_process.then(|| Arc::new(process)),
        exe_now: exe.map(Arc::new),
        session: None,
        for_unit: false,
    })
}
