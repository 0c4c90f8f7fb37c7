//! From the text of a policy to a [`Policy`]: roles, bindings, and the index by uid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::model::{Days, Gid, Level, Levels, Pattern, SecretType, Uid, WeeklyHours, time_zone};

use super::condition::{Condition, ContainerRef};
use super::document::{self, Table, Value};
use super::rule::{Names, Rule, Selection};
use super::{Binding, Effect, Grant, Policy, PolicyError, Users, expect};

type Result<T> = std::result::Result<T, PolicyError>;

const RULE_KEYS: [&str; 6] = ["names", "tags", "services", "environments", "types", "levels"];
const BINDING_KEYS: [&str; 15] = [
    "id",
    "role",
    "roles",
    "uid",
    "gid",
    "unit",
    "container",
    "exe",
    "exe_sha256",
    "hours",
    "days",
    "timezone",
    "until",
    "max_uses",
    "after_start",
];

/// A role: rules in the order in which they are written, allows first.
type Role = Vec<(Effect, Arc<Rule>)>;

pub(super) fn policy(text: &str, users: &dyn Users) -> Result<Policy> {
    let document = document::parse(text)?;
    let keys = ["default_level", "role", "binding", "expect"];
    let root = Table::root(text, &document, &keys)?;
    let default_level = match root.value("default_level") {
        Some(value) => value.one_or_more().into_iter().map(Value::parse::<Level>).collect(),
        None => Ok(Levels::NONE),
    }?;
    let mut roles = BTreeMap::new();
    for table in root.tables("role", "a role", &["name", "allow", "deny"])? {
        let name = identifier(table.required("name")?)?;
        if roles.insert(name, role(&table)?).is_some() {
            return Err(table.required("name")?.error(format!("there are two roles {name:?}")));
        }
    }
    let mut labels = BTreeSet::new();
    let mut bindings = Vec::new();
    for table in root.tables("binding", "a binding", &BINDING_KEYS)? {
        let binding = binding(&table, bindings.len() + 1, &roles, users)?;
        if !labels.insert(binding.label.clone()) {
            let message = format!("there are two bindings with the id {:?}", binding.label);
            return Err(table.required("id")?.error(message));
        }
        bindings.push(binding);
    }
    let (by_uid, by_other) = index(&bindings);
    Ok(Policy {
        default_level,
        needs: super::needs_of(&bindings),
        by_attributes: bindings.iter().any(Binding::has_attribute_rules),
        bindings: bindings.into(),
        by_uid,
        by_other,
        expectations: expect::parse(&root, users)?,
        default_label: "default_level".into(),
    })
}

fn role(table: &Table<'_>) -> Result<Role> {
    let mut rules = Role::new();
    for (key, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
        for entry in table.tables(key, "a rule", &RULE_KEYS)? {
            rules.push((effect, Arc::new(rule(&entry)?)));
        }
    }
    if rules.is_empty() {
        return Err(table.error("a role needs at least one rule in `allow` or `deny`"));
    }
    Ok(rules)
}

fn rule(table: &Table<'_>) -> Result<Rule> {
    let levels = table.required("levels")?;
    let rule = Rule {
        names: table.parsed("names", |value| Ok(Names::new(value.parse::<Pattern>()?)))?,
        attributes: Selection {
            tags: table.parsed("tags", text)?,
            services: table.parsed("services", text)?,
            environments: table.parsed("environments", text)?,
            types: table.parsed("types", secret_type)?,
        },
        levels: levels
            .one_or_more()
            .into_iter()
            .map(Value::parse::<Level>)
            .collect::<Result<_>>()?,
    };
    if rule.levels.is_empty() {
        return Err(levels.error("`levels` is empty: use read, write, delete or admin"));
    }
    if rule.names.is_empty() && !rule.is_by_attributes() {
        let message = "a rule must say which secrets: use names, tags, services, environments or \
                       types (names = [\"**\"] is every secret)";
        return Err(table.error(message));
    }
    Ok(rule)
}

fn binding(
    table: &Table<'_>,
    number: usize,
    roles: &BTreeMap<&str, Role>,
    users: &dyn Users,
) -> Result<Binding> {
    let id = table.value("id").map(identifier).transpose()?;
    let label: Arc<str> = id.map_or_else(|| format!("#{number}").into(), Arc::from);
    let max_uses = match table.value("max_uses") {
        Some(value) if id.is_none() => {
            return Err(value.error("`max_uses` needs an `id` in the binding, to count by"));
        }
        Some(value) => Some(value.number(1)?),
        None => None,
    };
    Ok(Binding {
        grants: grants(&label, table, roles)?,
        conditions: conditions(table, users)?,
        line: table.line(),
        label,
        max_uses,
    })
}

fn grants(label: &str, table: &Table<'_>, roles: &BTreeMap<&str, Role>) -> Result<Box<[Grant]>> {
    let named = match (table.value("role"), table.value("roles")) {
        (Some(_), Some(both)) => {
            return Err(both.error("use either `role` or `roles` in a binding"));
        }
        (None, None) => return Err(table.error("a binding needs `role` or `roles`")),
        (Some(_), None) => table.list("role")?,
        (None, Some(_)) => table.list("roles")?,
    };
    let mut grants = Vec::new();
    for value in named {
        let name = value.string()?;
        let rules = roles.get(name).ok_or_else(|| {
            let known: Vec<&str> = roles.keys().copied().collect();
            value.error(format!("there is no role {name:?}; the roles are: {}", known.join(", ")))
        })?;
        let (mut allows, mut denies) = (0_usize, 0_usize);
        for (effect, rule) in rules {
            let (word, count) = match effect {
                Effect::Allow => ("allow", &mut allows),
                Effect::Deny => ("deny", &mut denies),
            };
            *count += 1;
            let label = format!("{label}: {name} {word} {count}").into();
            grants.push(Grant { label, effect: *effect, rule: rule.clone() });
        }
    }
    Ok(grants.into())
}

/// Collects the conditions, the cheapest to check first.
fn conditions(table: &Table<'_>, users: &dyn Users) -> Result<Box<[Condition]>> {
    let mut all = Vec::new();
    let uids = table.parsed("uid", |value| uid(value, users))?;
    let gids = table.parsed("gid", |value| gid(value, users))?;
    let units = table.parsed("unit", unit)?;
    let containers = table.parsed("container", container)?;
    let names_whom =
        !(uids.is_empty() && gids.is_empty() && units.is_empty() && containers.is_empty());
    if !names_whom {
        let message = "a binding must say whom by uid, gid, unit or container";
        return Err(match table.value("exe").or(table.value("exe_sha256")) {
            Some(exe) => exe.error(format!("{message}: exe alone can be forged")),
            None => table.error(message),
        });
    }
    push(&mut all, uids, Condition::Uid);
    push(&mut all, gids, Condition::Gid);
    push(&mut all, units, Condition::Unit);
    push(&mut all, containers, Condition::Container);
    push(&mut all, table.parsed("exe", exe)?, Condition::Exe);
    push(&mut all, table.parsed("exe_sha256", sha256)?, Condition::ExeSha256);
    if let Some(value) = table.value("until") {
        all.push(Condition::Until(value.timestamp()?));
    }
    if let Some(value) = table.value("after_start") {
        all.push(Condition::AfterStart(value.duration()?));
    }
    all.extend(schedule(table)?.map(Condition::Schedule));
    Ok(all.into())
}

fn push<T>(all: &mut Vec<Condition>, list: Box<[T]>, condition: fn(Box<[T]>) -> Condition) {
    if !list.is_empty() {
        all.push(condition(list));
    }
}

fn schedule(table: &Table<'_>) -> Result<Option<WeeklyHours>> {
    let hours = table.parsed("hours", Value::parse)?;
    let days = table.parsed("days", Value::parse::<Days>)?;
    if hours.is_empty() && days.is_empty() {
        return match table.value("timezone") {
            Some(zone) => Err(zone.error("`timezone` needs `hours` or `days`")),
            None => Ok(None),
        };
    }
    let zone = match table.value("timezone") {
        None => TimeZone::system(),
        Some(value) => time_zone(value.string()?).map_err(|why| value.error(why))?,
    };
    let days = if days.is_empty() { Days::ALL } else { days.into_iter().collect() };
    Ok(Some(WeeklyHours::new(zone, hours, days)))
}

pub(super) fn uid(value: Value<'_>, users: &dyn Users) -> Result<Uid> {
    if value.is_integer() {
        return below_the_highest(value).map(Uid);
    }
    let name = value.string()?;
    let unknown = || value.error(format!("there is no user {name:?} here: use a user or a uid"));
    users.uid_of(name).ok_or_else(unknown)
}

pub(super) fn gid(value: Value<'_>, users: &dyn Users) -> Result<Gid> {
    if value.is_integer() {
        return below_the_highest(value).map(Gid);
    }
    let name = value.string()?;
    let unknown = || value.error(format!("there is no group {name:?} here: use a group or a gid"));
    users.gid_of(name).ok_or_else(unknown)
}

/// The highest number is "no id" to the kernel, and what an id without a mapping may become.
fn below_the_highest(value: Value<'_>) -> Result<u32> {
    let number = value.number(0)?;
    if number == u32::MAX {
        return Err(value.error(format!("{number} stands for no id at all")));
    }
    Ok(number)
}

/// Completes a bare unit name to its cgroup path, as systemd chooses it by default.
pub(super) fn unit(value: Value<'_>) -> Result<Box<str>> {
    let name = value.string()?;
    if let Some(end) = [".service", ".scope"].into_iter().find(|end| name.ends_with(end)) {
        let is_clean = !name.starts_with('/') && name.split('/').all(|part| !part.is_empty());
        if is_clean && name.len() > end.len() {
            return Ok(match (name.contains('/'), name.split_once('@')) {
                (true, _) => name.into(),
                (false, Some((template, _))) if !template.is_empty() => {
                    let slice = template.replace('-', "\\x2d");
                    format!("system.slice/system-{slice}.slice/{name}").into()
                }
                (false, _) => format!("system.slice/{name}").into(),
            });
        }
    }
    Err(value.error(format!(
        "{name:?} is no unit: use \"nginx.service\" or a cgroup path such as \
         \"system.slice/nginx.service\""
    )))
}

pub(super) fn container(value: Value<'_>) -> Result<ContainerRef> {
    let text = value.string()?;
    let (runtime, id) = text.split_once(':').unwrap_or((text, ""));
    let is_hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let error = match runtime {
        "containerd" | "crio" | "docker" | "podman" => {
            let is_id = is_hex && (ContainerRef::MIN_ID_DIGITS..=64).contains(&id.len());
            (!is_id).then(|| {
                format!(
                    "{runtime} puts the id into the cgroup, not the name: use at least {} of its \
                     hexadecimal digits, as in \"{runtime}:0123456789ab\"",
                    ContainerRef::MIN_ID_DIGITS
                )
            })
        }
        "lxc" | "nspawn" => id.is_empty().then(|| format!("use \"{runtime}:NAME\"")),
        _ => Some(format!(
            "{text:?} is no container: use RUNTIME:ID with docker, podman, containerd, crio, \
             nspawn or lxc"
        )),
    };
    match error {
        Some(message) => Err(value.error(message)),
        None => Ok(ContainerRef { runtime: runtime.into(), id: id.into() }),
    }
}

fn exe(value: Value<'_>) -> Result<std::ffi::OsString> {
    let path = value.string()?;
    if !path.starts_with('/') {
        return Err(value.error(format!("{path:?} is no absolute path")));
    }
    Ok(path.into())
}

pub(super) fn sha256(value: Value<'_>) -> Result<[u8; 32]> {
    let text = value.string()?;
    let error = || value.error("expected a SHA-256 in 64 hexadecimal digits");
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(error());
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        let digits = text.get(at..at + 2).ok_or_else(error)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
    }
    Ok(digest)
}

pub(super) fn secret_type(value: Value<'_>) -> Result<SecretType> {
    let text = value.string()?;
    SecretType::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let known: Vec<&str> = SecretType::ALL.into_iter().map(SecretType::as_str).collect();
        value.error(format!("{text:?} is no type of secret: use {}", known.join(", ")))
    })
}

pub(super) fn text(value: Value<'_>) -> Result<Box<str>> {
    match value.string()? {
        "" => Err(value.error("expected a word, found an empty string")),
        text => Ok(text.into()),
    }
}

/// Names of roles and bindings: they stand in audit lines and are counted by.
fn identifier(value: Value<'_>) -> Result<&str> {
    let text = value.string()?;
    let is_clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if text.is_empty() || text.len() > 64 || !is_clean {
        let message = format!("{text:?} is no name: use up to 64 of A-Z a-z 0-9 . _ -");
        return Err(value.error(message));
    }
    Ok(text)
}

type ByUid = Box<[(Uid, Box<[usize]>)]>;

fn index(bindings: &[Binding]) -> (ByUid, Box<[usize]>) {
    let uids = |binding: &Binding| {
        binding.conditions.iter().find_map(|condition| {
            if let Condition::Uid(uids) = condition { Some(uids.to_vec()) } else { None }
        })
    };
    let wanted: Vec<Option<Vec<Uid>>> = bindings.iter().map(uids).collect();
    let named: BTreeSet<Uid> = wanted.iter().flatten().flatten().copied().collect();
    let select = |fits: &dyn Fn(&Option<Vec<Uid>>) -> bool| {
        wanted.iter().enumerate().filter(|(_, uids)| fits(uids)).map(|(index, _)| index).collect()
    };
    let of =
        |uid: Uid| select(&|wanted| wanted.as_ref().is_none_or(|wanted| wanted.contains(&uid)));
    let by_uid = named.into_iter().map(|uid| (uid, of(uid))).collect();
    (by_uid, select(&Option::is_none))
}
