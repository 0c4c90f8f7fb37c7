//! Secrets as a layer of settings: `secrets.inline`, and the places where programs look for one. And as
//! what Oneiric's adapters for files and for the environment read.
//!
//! Every key and every value is a double-quoted scalar on one line, so that no reader takes `12345`,
//! `true` or a date for anything but text.

use super::RESERVED;
use crate::inject::document::{Content, Key, Node};
use crate::inject::variable::{Assignment, VariableError, settle, variable_of};
use crate::inject::{Format, FormatError, json, push, yaml};
use crate::model::{Injection, SecretName};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// One secret to publish.
#[derive(Debug)]
pub struct Published<'a> {
    pub name: SecretName,
    pub value: &'a SecretBytes,
    /// Where programs read it besides, and as which variable.
    pub injection: Injection,
}

impl Published<'_> {
    /// Returns the keys that Oneiric asks for, with dashes and with underscores. Errors: `Reserved`.
    fn keys(&self) -> Result<[String; 2], PublishError> {
        let dashed = self.name.as_str().replace(['/', '.', '_'], "-");
        let underscored = dashed.replace('-', "_");
        if RESERVED.contains(&underscored.to_lowercase().as_str()) {
            return Err(PublishError::Reserved(self.name.clone()));
        }
        Ok([dashed, underscored])
    }

    fn text(&self) -> Result<&str, PublishError> {
        std::str::from_utf8(self.value.expose())
            .map_err(|_| PublishError::NoText(self.name.clone()))
    }
}

/// Why a layer cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Form(#[from] FormatError),
    #[error("{0} stands in the way of {1}")]
    InTheWay(String, String),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the value of {0} is not UTF-8, and settings are text")]
    NoText(SecretName),
    #[error("Oneiric has a setting of its own named as {0}; give the secret another name")]
    Reserved(SecretName),
    #[error(transparent)]
    Variable(#[from] VariableError),
}

/// Settings that are being put together: text, or a section of more.
enum Tree<'a> {
    Number(&'static str),
    Section(Vec<(String, Self)>),
    Text(&'a str),
}

/// Returns a layer that holds `base`, what was there before, and the secrets over it.
pub fn publish(
    base: Option<&Node>,
    secrets: &[Published<'_>],
) -> Result<SecretBytes, PublishError> {
    let mut root = Vec::new();
    place(&mut root, "secrets.cache_ttl_seconds", Tree::Number("0"))?;
    for secret in secrets {
        let text = secret.text()?;
        for key in secret.keys()? {
            place(&mut root, &format!("secrets.inline.{key}"), Tree::Text(text))?;
        }
        if let Some(path) = &secret.injection.oneiric_path {
            place(&mut root, path.as_str(), Tree::Text(text))?;
        }
    }
    let mut out = SecretBuffer::new();
    section(&mut out, &root, base, 0)?;
    Ok(out.into_bytes())
}

/// Returns a JSON object for Oneiric's adapter for files: each secret under both of its keys.
pub fn publish_json(secrets: &[Published<'_>]) -> Result<SecretBytes, PublishError> {
    let mut fields = Vec::new();
    for secret in secrets {
        let text = secret.text()?;
        for key in secret.keys()? {
            place(&mut fields, &key, Tree::Text(text))?;
        }
    }
    let mut out = SecretBuffer::new();
    push(&mut out, b"{")?;
    for (index, (key, tree)) in fields.iter().enumerate() {
        let Tree::Text(text) = tree else { continue };
        push(&mut out, if index > 0 { b",\n  " } else { b"\n  " })?;
        json::push_value(&mut out, key.as_bytes())?;
        push(&mut out, b": ")?;
        json::push_value(&mut out, text.as_bytes())?;
    }
    push(&mut out, b"\n}\n")?;
    Ok(out.into_bytes())
}

/// Returns the variables of Oneiric's adapter for the environment, as dotenv.
pub fn publish_env(secrets: &[Published<'_>]) -> Result<SecretBytes, PublishError> {
    let mut assignments = Vec::new();
    for secret in secrets {
        // What the other files refuse has no place in this one either.
        secret.keys()?;
        let own = secret.injection.env_name.as_ref();
        let variable = format!("ONEIRIC_SECRET_{}", variable_of(own, secret.name.as_str()));
        assignments.push(Assignment { variable: variable.parse()?, name: secret.name.clone() });
    }
    let assignments = settle(assignments)?;
    let pairs = assignments.iter().filter_map(|one| {
        let secret = secrets.iter().find(|secret| secret.name == one.name)?;
        Some((&one.variable, secret.value))
    });
    Ok(Format::Dotenv.write(pairs)?)
}

/// Puts a value at a dotted path. The same value may be there already; another one may not.
fn place<'a>(
    root: &mut Vec<(String, Tree<'a>)>,
    path: &str,
    value: Tree<'a>,
) -> Result<(), PublishError> {
    let mut fields = root;
    let (sections, field) = path.rsplit_once('.').map_or((None, path), |(a, b)| (Some(a), b));
    let blocked = |by: &str| PublishError::InTheWay(by.to_owned(), path.to_owned());
    for name in sections.into_iter().flat_map(|sections| sections.split('.')) {
        if !fields.iter().any(|(key, _)| key == name) {
            fields.push((name.to_owned(), Tree::Section(Vec::new())));
        }
        match fields.iter_mut().find(|(key, _)| key == name) {
            Some((_, Tree::Section(inner))) => fields = inner,
            _ => return Err(blocked(name)),
        }
    }
    match (fields.iter().find(|(key, _)| key == field), &value) {
        (None, _) => fields.push((field.to_owned(), value)),
        (Some((_, Tree::Text(old))), Tree::Text(new)) if old == new => {}
        (Some((key, _)), _) => return Err(blocked(key)),
    }
    Ok(())
}

/// Writes a section: what is published, and what was there before and is not replaced.
fn section(
    out: &mut SecretBuffer,
    fields: &[(String, Tree<'_>)],
    base: Option<&Node>,
    depth: usize,
) -> Result<(), PublishError> {
    let before = base.and_then(|base| base.content.as_map()).unwrap_or_default();
    for (key, tree) in fields {
        push_key(out, key, depth)?;
        match tree {
            Tree::Number(digits) => {
                push(out, b" ")?;
                push(out, digits.as_bytes())?;
                push(out, b"\n")?;
            }
            Tree::Text(text) => {
                push(out, b" ")?;
                yaml::push_quoted(out, text)?;
                push(out, b"\n")?;
            }
            Tree::Section(fields) => {
                push(out, b"\n")?;
                let known = before.iter().find(|(known, _)| known.as_str() == key);
                section(out, fields, known.map(|(_, node)| &**node), depth + 1)?;
            }
        }
    }
    for (key, node) in before {
        if fields.iter().any(|(field, _)| field == key.as_str()) {
            continue;
        }
        match key {
            Key::Text(text) => push_key(out, text, depth)?,
            Key::Other(word) => {
                push(out, "  ".repeat(depth).as_bytes())?;
                push(out, word.as_bytes())?;
                push(out, b":")?;
            }
        }
        // JSON's flow style is YAML, and its strings are double-quoted scalars.
        push(out, b" ")?;
        push_flow(out, node)?;
        push(out, b"\n")?;
    }
    Ok(())
}

fn push_key(out: &mut SecretBuffer, key: &str, depth: usize) -> Result<(), MemoryError> {
    push(out, "  ".repeat(depth).as_bytes())?;
    yaml::push_quoted(out, key)?;
    push(out, b":")
}

/// Writes what was there before on one line.
fn push_flow(out: &mut SecretBuffer, node: &Node) -> Result<(), PublishError> {
    match &node.content {
        Content::List(items) => {
            push(out, b"[")?;
            for (index, item) in items.iter().enumerate() {
                push(out, if index > 0 { b", " } else { b"" })?;
                push_flow(out, item)?;
            }
            push(out, b"]")?;
        }
        Content::Map(pairs) => {
            push(out, b"{")?;
            for (index, (key, value)) in pairs.iter().enumerate() {
                push(out, if index > 0 { b", " } else { b"" })?;
                match key {
                    Key::Text(text) => yaml::push_quoted(out, text)?,
                    Key::Other(word) => push(out, word.as_bytes())?,
                }
                push(out, b": ")?;
                push_flow(out, value)?;
            }
            push(out, b"}")?;
        }
        Content::Text(text) => {
            // It was read from UTF-8.
            yaml::push_quoted(out, &String::from_utf8_lossy(text.expose()))?;
        }
        Content::Float(value) if value.is_nan() => push(out, b".nan")?,
        Content::Float(value) if value.is_infinite() => {
            push(out, if *value > 0.0 { b".inf" } else { b"-.inf" })?;
        }
        Content::Float(value) => push(out, format!("!!float {value}").as_bytes())?,
        Content::Time(text) => push(out, text.as_bytes())?,
        Content::Bool(_) | Content::Int(_) | Content::Null => node.push_json(out)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn published(
        base: &str,
        secrets: &[(&str, &str, Option<&str>)],
    ) -> Result<Value, PublishError> {
        let parsed: Vec<_> = secrets
            .iter()
            .map(|(name, value, path)| {
                (
                    name.parse::<SecretName>().unwrap(),
                    SecretBytes::copy_from(value.as_bytes()).unwrap(),
                    *path,
                )
            })
            .collect();
        let secrets: Vec<_> = parsed
            .iter()
            .map(|(name, value, path)| {
                let oneiric_path = path.map(|path| path.parse().unwrap());
                let injection = Injection { oneiric_path, ..Injection::default() };
                Published { name: name.clone(), value, injection }
            })
            .collect();
        let base = yaml::parse(base).unwrap();
        let text = publish(Some(&base), &secrets)?;
        let text = std::str::from_utf8(text.expose()).unwrap();
        let mut out = SecretBuffer::new();
        yaml::parse(text).unwrap().push_json(&mut out).unwrap();
        Ok(serde_json::from_slice(out.expose()).unwrap())
    }

    #[test]
    fn a_secret_is_published_in_both_spellings_and_where_it_is_read() {
        let base = "# c\nsecrets: {provider: file, inline: {other: x}}\nauth: {user: u, n: 1.5}\nl: [1, '2']\n";
        let document = published(base, &[("prod/api.key", "12345", Some("auth.secret"))]).unwrap();
        let expected = json!({
            "secrets": {
                "cache_ttl_seconds": 0, "provider": "file",
                "inline": {"prod-api-key": "12345", "prod_api_key": "12345", "other": "x"},
            },
            "auth": {"secret": "12345", "user": "u", "n": 1.5}, "l": [1, "2"],
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn two_secrets_do_not_share_a_place() {
        assert!(published("", &[("a.b", "1", None), ("a-b", "2", None)]).is_err());
        assert!(published("", &[("a", "1", Some("x.y")), ("b", "2", Some("x"))]).is_err());
        assert!(published("", &[("provider", "1", None)]).is_err(), "Oneiric's own");
    }
}
