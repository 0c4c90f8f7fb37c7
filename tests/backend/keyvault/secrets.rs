//! Secrets: their versions with what Azure keeps of each, lists in pages of at most 25, and soft deletion.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::{State, VAULT, now, refused, unique};
use crate::service::Reply;

/// How long a deleted secret is kept, in seconds.
const RETENTION: i64 = 90 * 86_400;

/// A secret with all of its versions, in the order in which they were made.
pub(super) struct Secret {
    /// The name as it was first written.
    name: String,
    versions: Vec<Version>,
    /// How many looks do not see yet that it has come here.
    hidden: usize,
    /// How many looks still see it although it is purged.
    leaving: Option<usize>,
}

struct Version {
    id: String,
    value: String,
    content_type: Value,
    tags: Value,
    enabled: bool,
    created: i64,
    updated: i64,
    exp: Value,
    nbf: Value,
}

impl State {
    pub(super) fn secret(
        &mut self,
        method: &str,
        segments: &[&str],
        query: &BTreeMap<String, String>,
        body: &Value,
    ) -> Reply {
        let needed = match (method, segments) {
            ("GET", ["secrets", name, version]) if !name.is_empty() && *version != "versions" => {
                "get"
            }
            ("GET", ["secrets", _]) => "get",
            ("GET", _) => "list",
            ("PUT" | "PATCH", _) => "set",
            ("DELETE", ["deletedsecrets", ..]) => "purge",
            _ => "delete",
        };
        if self.denied.contains(needed) {
            return refused(403, "Forbidden", Some("ForbiddenByRbac"));
        }
        let key = segments.get(1).map_or_else(String::new, |name| name.to_ascii_lowercase());
        match (method, segments) {
            ("GET", [place @ ("secrets" | "deletedsecrets")]) => self.list(place, query),
            ("GET", ["secrets", _, "versions"]) => self.versions(&key, query),
            ("GET", ["secrets", _]) => self.read(&key, ""),
            ("GET", ["secrets", _, version]) => self.read(&key, version),
            ("PUT", ["secrets", name]) => self.write(&key, name, body),
            ("PATCH", ["secrets", _]) => self.change(&key, "", body),
            ("PATCH", ["secrets", _, version]) => self.change(&key, version, body),
            ("DELETE", ["secrets", _]) => self.delete(&key),
            ("GET", ["deletedsecrets", _]) => self.look_at_deleted(&key),
            ("POST", ["deletedsecrets", _, "recover"]) => self.recover(&key),
            ("DELETE", ["deletedsecrets", _]) => self.purge(&key),
            _ => refused(405, "MethodNotAllowed", None),
        }
    }

    /// Puts many secrets in at once.
    pub fn fill(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            let body = json!({ "value": "x" });
            self.write(&name, &name, &body);
        }
    }

    /// Makes a secret under a name as others write it.
    pub fn put_as(&mut self, name: &str) {
        self.write(&name.to_ascii_lowercase(), name, &json!({ "value": "x" }));
    }

    /// Changes a secret's current version.
    pub fn change_newest(&mut self, key: &str, body: &Value) {
        self.change(key, "", body);
    }

    /// Returns a secret's current version, as it is answered.
    pub fn newest(&self, key: &str) -> Value {
        let secret = &self.live[key];
        secret.bundle(secret.version("").unwrap())
    }

    /// Returns a secret that is there for whoever looks now.
    fn look(&mut self, key: &str) -> Option<&mut Secret> {
        let secret = self.live.get_mut(key)?;
        if secret.hidden > 0 {
            secret.hidden -= 1;
            return None;
        }
        Some(secret)
    }

    fn read(&mut self, key: &str, version: &str) -> Reply {
        let Some(secret) = self.look(key) else { return not_found() };
        let Some(found) = secret.version(version) else { return not_found() };
        if !found.enabled {
            return refused(403, "Forbidden", Some("SecretDisabled"));
        }
        Reply::json(200, &secret.bundle(found))
    }

    fn write(&mut self, key: &str, name: &str, body: &Value) -> Reply {
        if let Some(deleted) = self.deleted.get(key) {
            let leaving = deleted.leaving.is_some() || deleted.hidden > 0;
            let why =
                if leaving { "ObjectIsBeingDeleted" } else { "ObjectIsDeletedButRecoverable" };
            return refused(409, "Conflict", Some(why));
        }
        let Some(value) = body["value"].as_str().filter(|value| value.len() <= 25 << 10) else {
            return refused(400, "BadParameter", None);
        };
        if !self.clock_stands {
            self.second = now().max(self.second + 1);
        }
        let mut version = Version {
            id: unique(),
            value: value.to_owned(),
            content_type: Value::Null,
            tags: Value::Null,
            enabled: true,
            created: self.second,
            updated: self.second,
            exp: Value::Null,
            nbf: Value::Null,
        };
        if !version.take(body) {
            return refused(400, "BadParameter", None);
        }
        let secret = self.live.entry(key.to_owned()).or_insert_with(|| Secret {
            name: name.to_owned(),
            versions: Vec::new(),
            hidden: 0,
            leaving: None,
        });
        secret.versions.push(version);
        let version = secret.versions.last().unwrap();
        Reply::json(200, &secret.bundle(version))
    }

    fn change(&mut self, key: &str, id: &str, body: &Value) -> Reply {
        self.second = now().max(self.second + 1);
        let second = self.second;
        let Some(secret) = self.look(key) else { return not_found() };
        let mut versions = secret.versions.iter_mut().rev();
        let found = versions.find(|version| id.is_empty() || version.id == id);
        let Some(version) = found else { return not_found() };
        if !version.take(body) {
            return refused(400, "BadParameter", None);
        }
        version.updated = second;
        let id = version.id.clone();
        Reply::json(200, &secret.item(secret.version(&id).unwrap(), true))
    }

    fn delete(&mut self, key: &str) -> Reply {
        if self.look(key).is_none() {
            return not_found();
        }
        let mut secret = self.live.remove(key).unwrap();
        secret.hidden = self.lag;
        let reply = Reply::json(200, &secret.deleted());
        self.deleted.insert(key.to_owned(), secret);
        reply
    }

    fn look_at_deleted(&mut self, key: &str) -> Reply {
        let Some(secret) = self.deleted.get_mut(key) else { return not_found() };
        if secret.hidden > 0 {
            secret.hidden -= 1;
            return not_found();
        }
        match &mut secret.leaving {
            Some(0) => {
                self.deleted.remove(key);
                not_found()
            }
            Some(left) => {
                *left -= 1;
                Reply::json(200, &secret.deleted())
            }
            None => Reply::json(200, &secret.deleted()),
        }
    }

    fn recover(&mut self, key: &str) -> Reply {
        let Some(mut secret) = self.deleted.remove(key) else { return not_found() };
        secret.hidden = self.lag;
        let reply = Reply::json(200, &secret.item(secret.version("").unwrap(), true));
        self.live.insert(key.to_owned(), secret);
        reply
    }

    fn purge(&mut self, key: &str) -> Reply {
        let Some(secret) = self.deleted.get_mut(key) else { return not_found() };
        secret.leaving = Some(self.lag);
        if self.lag == 0 {
            self.deleted.remove(key);
        }
        Reply::status(204, &[])
    }

    fn list(&self, place: &str, query: &BTreeMap<String, String>) -> Reply {
        let Some(size) = page_size(query) else { return refused(400, "BadParameter", None) };
        let secrets = if place == "secrets" { &self.live } else { &self.deleted };
        let after = query.get("$skiptoken").map_or("", String::as_str);
        let mut rest = secrets.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let page: Vec<(&String, &Secret)> = rest.by_ref().take(size).collect();
        let next = rest.next().and(page.last()).map(|(key, _)| (*key).clone());
        let values = page.iter().map(|(_, secret)| {
            let version = secret.version("").unwrap();
            if place == "secrets" { secret.item(version, false) } else { secret.deleted() }
        });
        self.page(place, values.collect(), next, size)
    }

    /// A secret that is not there has no versions, which is no error at Azure.
    fn versions(&mut self, key: &str, query: &BTreeMap<String, String>) -> Reply {
        let Some(size) = page_size(query) else { return refused(400, "BadParameter", None) };
        let Some(secret) = self.look(key) else {
            return Reply::json(200, &json!({ "value": [], "nextLink": null }));
        };
        // By their ids, which is in no order that means anything.
        let mut versions: Vec<&Version> = secret.versions.iter().collect();
        versions.sort_by(|one, other| one.id.cmp(&other.id));
        let after = query.get("$skiptoken").map_or("", String::as_str);
        let mut rest = versions.into_iter().filter(|version| version.id.as_str() > after);
        let page: Vec<&Version> = rest.by_ref().take(size).collect();
        let next = rest.next().and(page.last()).map(|version| version.id.clone());
        let values = page.iter().map(|version| secret.item(version, true)).collect();
        self.page(&format!("secrets/{key}/versions"), values, next, size)
    }

    fn page(&self, place: &str, values: Vec<Value>, next: Option<String>, size: usize) -> Reply {
        let host = self.elsewhere.unwrap_or(VAULT);
        let link = next.map(|next| {
            format!(
                "https://{host}:443/{place}?api-version=7.4&$skiptoken={next}&maxresults={size}"
            )
        });
        Reply::json(200, &json!({ "value": values, "nextLink": link }))
    }
}

impl Secret {
    /// Returns a version; the current one without an id.
    fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().rev().find(|version| id.is_empty() || version.id == id)
    }

    fn item(&self, version: &Version, with_version: bool) -> Value {
        let mut id = format!("https://{VAULT}/secrets/{}", self.name);
        if with_version {
            id += &format!("/{}", version.id);
        }
        let mut attributes = json!({
            "enabled": version.enabled, "created": version.created, "updated": version.updated,
            "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90,
        });
        let mut item = Map::from_iter([("id".to_owned(), json!(id))]);
        for (name, value) in [("exp", &version.exp), ("nbf", &version.nbf)] {
            if !value.is_null() {
                attributes[name] = value.clone();
            }
        }
        for (name, value) in [("contentType", &version.content_type), ("tags", &version.tags)] {
            if !value.is_null() {
                item.insert(name.to_owned(), value.clone());
            }
        }
        item.insert("attributes".to_owned(), attributes);
        Value::Object(item)
    }

    fn bundle(&self, version: &Version) -> Value {
        let mut bundle = self.item(version, true);
        bundle["value"] = json!(version.value);
        bundle
    }

    fn deleted(&self) -> Value {
        let mut deleted = self.item(self.version("").unwrap(), true);
        deleted["recoveryId"] = json!(format!("https://{VAULT}/deletedsecrets/{}", self.name));
        deleted["deletedDate"] = json!(now());
        deleted["scheduledPurgeDate"] = json!(now() + RETENTION);
        deleted
    }
}

impl Version {
    /// Takes what a request gives, and leaves what it does not. Azure takes at most 15 tags.
    fn take(&mut self, body: &Value) -> bool {
        let attributes = &body["attributes"];
        if let Some(enabled) = attributes["enabled"].as_bool() {
            self.enabled = enabled;
        }
        for (to, given) in [
            (&mut self.exp, &attributes["exp"]),
            (&mut self.nbf, &attributes["nbf"]),
            (&mut self.content_type, &body["contentType"]),
            (&mut self.tags, &body["tags"]),
        ] {
            if !given.is_null() {
                *to = given.clone();
            }
        }
        self.tags.as_object().is_none_or(|tags| tags.len() <= 15)
    }
}

fn page_size(query: &BTreeMap<String, String>) -> Option<usize> {
    let asked = query.get("maxresults").map_or(Ok(25), |size| size.parse());
    asked.ok().filter(|size| (1..=25).contains(size))
}

fn not_found() -> Reply {
    refused(404, "SecretNotFound", None)
}
