//! OCSF 1.5.0: each entry an API Activity (class 6003), and a finding about the log a Detection Finding (2004).
//!
//! A secret is a resource, what is done with it an operation of the API of a service. What OCSF has no word for
//! (rule, unit, group, the chain) stands in `unmapped`, so that nothing of the entry is lost.

use serde_json::{Map, Value, json};

use super::Fault;
use crate::audit::{Action, Entry, Outcome};
use crate::model::Timestamp;

const API_ACTIVITY: (u32, u32) = (6, 6003);
const DETECTION_FINDING: (u32, u32) = (2, 2004);

/// Returns the event of an entry.
pub(super) fn event(entry: &Entry, host: &str) -> Value {
    let is_finding = entry.action == Action::Anomaly;
    let (category, class) = if is_finding { DETECTION_FINDING } else { API_ACTIVITY };
    let activity = if is_finding { 1 } else { activity(entry) };
    let mut event = json!({
        "category_uid": category,
        "class_uid": class,
        "activity_id": activity,
        "type_uid": class * 100 + activity,
        "time": entry.time.as_millisecond(),
        "severity_id": severity(entry),
        "metadata": metadata(&entry.seq.to_string(), entry.time),
        "unmapped": unmapped(entry),
    });
    let Some(fields) = event.as_object_mut() else { return event };
    if let Some(name) = &entry.secret {
        let mut secret = json!({ "name": name, "type": "secret" });
        put(&mut secret, "version", entry.version.map(|version| version.to_string().into()));
        fields.insert("resources".into(), json!([secret]));
    }
    if is_finding {
        let detail = |key: &str| entry.detail.as_ref().and_then(|detail| detail.get(key)).cloned();
        let title = format!(
            "anomaly: {}",
            detail("kind").as_ref().and_then(Value::as_str).unwrap_or("unknown")
        );
        let mut info = json!({ "uid": entry.seq.to_string(), "title": title });
        put(&mut info, "desc", detail("explanation"));
        fields.insert("finding_info".into(), info);
        put(&mut event, "message", detail("explanation"));
        return event;
    }
    if activity == OTHER {
        fields.insert("activity_name".into(), entry.action.as_str().into());
    }
    fields.insert("status_id".into(), if entry.outcome == Outcome::Allowed { 1 } else { 2 }.into());
    fields.insert("status".into(), entry.outcome.as_str().into());
    fields.insert("actor".into(), actor(entry));
    fields.insert("src_endpoint".into(), json!({ "name": host }));
    let mut api = json!({ "operation": entry.action, "service": { "name": "secretfs" } });
    let request = entry.request.map(|number| json!({ "uid": number.to_string() }));
    put(&mut api, "request", request);
    fields.insert("api".into(), api);
    put(&mut event, "status_detail", entry.reason.clone().map(Value::from));
    event
}

/// Returns the event of a fault.
pub(super) fn fault(fault: &Fault<'_>, host: &str) -> Value {
    const NEW: u32 = 1;
    const CRITICAL: u32 = 5;
    let (category, class) = DETECTION_FINDING;
    let uid = format!("fault-{}", fault.id);
    json!({
        "category_uid": category,
        "class_uid": class,
        "activity_id": NEW,
        "type_uid": class * 100 + NEW,
        "time": fault.time.as_millisecond(),
        "severity_id": CRITICAL,
        "metadata": metadata(&uid, fault.time),
        "finding_info": { "uid": uid, "title": "integrity", "desc": fault.what },
        "message": fault.what,
        "unmapped": { "host": host },
    })
}

fn metadata(uid: &str, time: Timestamp) -> Value {
    json!({
        "version": "1.5.0",
        "uid": uid,
        "log_name": "audit",
        "original_time": time.to_string(),
        "product": {
            "name": "secretfs", "vendor_name": "secretfs", "version": env!("CARGO_PKG_VERSION"),
        },
    })
}

const CREATE: u32 = 1;
const READ: u32 = 2;
const UPDATE: u32 = 3;
const DELETE: u32 = 4;
const OTHER: u32 = 99;

fn activity(entry: &Entry) -> u32 {
    match entry.action {
        Action::BreakGlass
        | Action::CreateDirectory
        | Action::Grant
        | Action::MfaEnrol
        | Action::Quarantine => CREATE,
        Action::Write if entry.version == Some(crate::model::Version::FIRST) => CREATE,
        Action::Append
        | Action::AuditRead
        | Action::Backup
        | Action::Check
        | Action::Read
        | Action::Verify => READ,
        Action::Elevate
        | Action::GrantApprove
        | Action::Promote
        | Action::Rename
        | Action::Restore
        | Action::Rotate
        | Action::SetAttribute
        | Action::Stage
        | Action::Write => UPDATE,
        Action::Delete
        | Action::Destroy
        | Action::GrantEnd
        | Action::GrantRevoke
        | Action::MfaForget
        | Action::Prune
        | Action::QuarantineEnd
        | Action::RemoveDirectory => DELETE,
        Action::Anchor
        | Action::Anomaly
        | Action::BackendConnection
        | Action::Control
        | Action::Forward
        | Action::GrantRequest
        | Action::KeyChange
        | Action::PolicyReload
        | Action::Refusals
        | Action::Seal
        | Action::SegmentClose
        | Action::SegmentOpen
        | Action::Start
        | Action::Stop
        | Action::Unseal => OTHER,
    }
}

/// From 1 (informational) over 2 (low), 3 (medium) and 4 (high) to 5 (critical).
fn severity(entry: &Entry) -> u32 {
    let score = entry.detail.as_ref().filter(|_| entry.action == Action::Anomaly);
    match (score.and_then(|detail| detail.get("score")?.as_f64()), entry.outcome) {
        (Some(score), _) if score >= 1.0 => 5,
        (Some(score), _) if score >= 0.9 => 4,
        (Some(score), _) if score >= 0.7 => 3,
        (Some(_), _) | (None, Outcome::Failed) => 2,
        (None, Outcome::Denied) => 3,
        (None, Outcome::Allowed) => 1,
    }
}

fn actor(entry: &Entry) -> Value {
    let Some(uid) = entry.uid else { return json!({ "app_name": "secretfs" }) };
    let mut user = json!({ "uid": uid.to_string() });
    put(&mut user, "name", entry.user.clone().map(Value::from));
    let mut actor = json!({ "user": user });
    if let Some(pid) = entry.pid {
        let mut process = json!({ "pid": pid });
        put(&mut process, "name", entry.comm.clone().map(Value::from));
        put(
            &mut process,
            "created_time",
            entry.start_time.map(|time| time.as_millisecond().into()),
        );
        put(
            &mut process,
            "file",
            entry.exe.as_deref().map(|exe| file(exe, entry.exe_sha256.as_deref())),
        );
        put(
            &mut process,
            "container",
            entry.container.as_ref().map(|container| json!({ "uid": container })),
        );
        put(&mut actor, "process", Some(process));
    }
    actor
}

fn file(path: &str, digest: Option<&str>) -> Value {
    const REGULAR_FILE: u32 = 1;
    const SHA256: u32 = 3;
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut file = json!({ "name": name, "path": path, "type_id": REGULAR_FILE });
    put(
        &mut file,
        "hashes",
        digest.map(|digest| json!([{ "algorithm_id": SHA256, "value": digest }])),
    );
    file
}

fn unmapped(entry: &Entry) -> Value {
    let mut rest = match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let kept = ["detail", "generation", "gid", "mac", "not_utf8", "prev", "rule", "tid", "unit"];
    rest.retain(|key, value| kept.contains(&key.as_str()) && !value.is_null());
    Value::Object(rest)
}

/// Adds what is known.
fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(fields), Some(value)) = (object.as_object_mut(), value) {
        fields.insert(key.into(), value);
    }
}
