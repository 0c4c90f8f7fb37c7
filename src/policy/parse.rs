//! From the text of a policy to a [`Policy`]: roles, bindings, and the index by uid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::model::{Days, Gid, Level, Levels, Pattern, SecretType, Uid, WeeklyHours, time_zone};

use super::condition::{Condition, ContainerRef};
use super::document::{self, Table, Value};
use super::guard::Guard;
use super::rule::{Names, Rule, Selection};
use super::{Binding, Effect, Grant, Policy, PolicyError, Users, expect, fact};

type Result<T> = std::result::Result<T, PolicyError>;

const RULE_KEYS: [&str; 6] = ["names", "tags", "services", "environments", "types", "levels"];
const GUARD_KEYS: [&str; 4] = ["names", "levels", "approvers", "require_mfa"];
const BINDING_KEYS: [&str; 16] = [
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
    "break_glass",
];

/// A role: rules in the order in which they are written, allows first.
type Role = Vec<(Effect, Arc<Rule>)>;

pub(super) fn policy(text: &str, users: &dyn Users) -> Result<Policy> {
    let document = document::parse(text)?;
    let keys = ["default_level", "role", "binding", "guard", "expect"];
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
        bindings.push(Arc::new(binding));
    }
    let guards = root.tables("guard", "a guard", &GUARD_KEYS)?;
    let guards = (1..).zip(&guards).map(|(number, table)| guard(number, table));
    let guards = guards.collect::<Result<Vec<_>>>()?;
    Ok(Policy::of(bindings, default_level, guards.into(), expect::parse(&root, users)?))
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

fn guard(number: usize, table: &Table<'_>) -> Result<Guard> {
    let levels = match table.value("levels") {
        Some(_) => table.parsed("levels", Value::parse::<Level>)?.iter().copied().collect(),
        None => Level::ALL.into_iter().collect(),
    };
    table.required("names")?;
    let approvers = table.value("approvers").map(|value| value.number(1)).transpose()?;
    let require_mfa = table.value("require_mfa").map(Value::flag).transpose()?.unwrap_or_default();
    if approvers.is_none() && !require_mfa {
        return Err(table.error("a guard needs `approvers` or `require_mfa = true`"));
    }
    Ok(Guard {
        number,
        names: table.parsed("names", |value| Ok(Names::new(value.parse::<Pattern>()?)))?,
        levels,
        approvers: approvers.unwrap_or(0),
        require_mfa,
    })
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
    let break_glass = table.value("break_glass");
    if let (Some(value), true) = (break_glass, max_uses.is_some()) {
        return Err(value.error("`break_glass` is for a time: it goes with no `max_uses`"));
    }
    Ok(Binding {
        grants: grants(&label, table, roles)?,
        conditions: conditions(table, users)?,
        line: Some(table.line()),
        label,
        max_uses,
        break_glass: break_glass
            .map(|value| value.duration())
            .transpose()?
            .map(|d| d.unsigned_abs()),
        approvals: 0,
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
    push(&mut all, table.parsed("exe", |value| value.read(fact::exe))?, Condition::Exe);
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
        return id(value).map(Uid);
    }
    value.read(|name| fact::user_by_name(name, users))
}

pub(super) fn gid(value: Value<'_>, users: &dyn Users) -> Result<Gid> {
    if value.is_integer() {
        return id(value).map(Gid);
    }
    value.read(|name| fact::group_by_name(name, users))
}

fn id(value: Value<'_>) -> Result<u32> {
    fact::below_the_highest(value.number(0)?).map_err(|why| value.error(why))
}

pub(super) fn unit(value: Value<'_>) -> Result<Box<str>> {
    value.read(fact::unit)
}

pub(super) fn container(value: Value<'_>) -> Result<ContainerRef> {
    value.read(fact::container)
}

pub(super) fn sha256(value: Value<'_>) -> Result<[u8; 32]> {
    value.read(fact::sha256)
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
