//! The layers of a project's settings, from the lowest up, and what they come to together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroize;

use crate::inject::document::{Content, Key, Node, ParseError};
use crate::inject::oneiric::Project;
use crate::inject::{json, push, yaml};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// Where a setting comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Layer {
    Environment,
    File(PathBuf),
}

/// Returns the files of the layers below the environment, the lowest first.
pub fn files(project: &Project, root: &Path, xdg_config: &Path) -> [PathBuf; 5] {
    let (settings, user) = (root.join("settings"), xdg_config.join(project.as_str()));
    [
        settings.join(format!("{project}.yaml")),
        settings.join(format!("{project}.yml")),
        settings.join("local.yaml"),
        user.join("config.yaml"),
        user.join("local.yaml"),
    ]
}

/// Reads the text of a file as the loader does, by the ending of its name.
pub fn read(path: &Path, text: &str) -> Result<Arc<Node>, ParseError> {
    // Python reads text with all line ends alike.
    let mut unix = text.replace("\r\n", "\n").replace('\r', "\n");
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let node = match ending {
        "yaml" | "yml" => yaml::parse(&unix).map(or_nothing),
        "toml" | "tml" => toml(&unix),
        "json" => json::parse(&unix),
        _ if unix.trim_start().starts_with('{') => json::parse(&unix),
        _ => toml(&unix),
    };
    unix.zeroize();
    node
}

/// What Python takes for nothing is an empty file to the loader.
fn or_nothing(node: Arc<Node>) -> Arc<Node> {
    let nothing = match &node.content {
        Content::Bool(value) => !value,
        Content::Float(value) => *value == 0.0,
        Content::Int(digits) => digits == "0",
        Content::List(items) => items.is_empty(),
        Content::Null => true,
        Content::Text(text) => text.is_empty(),
        Content::Map(_) | Content::Time(_) => false,
    };
    if nothing { Node::made(Content::Map(Vec::new())).into() } else { node }
}

fn toml(text: &str) -> Result<Arc<Node>, ParseError> {
    let table = text.parse::<toml::Table>().map_err(|err| {
        ParseError::at(text, err.span().map_or(0, |span| span.start), err.message().to_owned())
    })?;
    Ok(from_toml(toml::Value::Table(table))?.into())
}

fn from_toml(value: toml::Value) -> Result<Node, MemoryError> {
    Ok(Node::made(match value {
        toml::Value::String(mut text) => {
            let value = SecretBytes::copy_from(text.as_bytes());
            text.zeroize();
            Content::Text(value?)
        }
        toml::Value::Integer(number) => Content::Int(number.to_string()),
        toml::Value::Float(number) => Content::Float(number),
        toml::Value::Boolean(value) => Content::Bool(value),
        toml::Value::Datetime(time) => {
            let text = time.to_string();
            Content::Time(yaml::iso_time(&text).unwrap_or(text))
        }
        toml::Value::Array(items) => {
            let items = items.into_iter().map(|item| from_toml(item).map(Arc::new));
            Content::List(items.collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let pairs = table
                .into_iter()
                .map(|(key, value)| Ok((Key::Text(key), Arc::new(from_toml(value)?))));
            Content::Map(pairs.collect::<Result<_, MemoryError>>()?)
        }
    }))
}

/// Settings put together out of layers.
#[derive(Debug)]
pub struct Merged {
    layers: Vec<Layer>,
    root: Vec<(Key, Tree)>,
}

#[derive(Debug)]
enum Tree {
    /// A value and the number of its layer.
    Leaf(Arc<Node>, usize),
    Section(Vec<(Key, Self)>),
}

/// One value of the settings.
#[derive(Debug)]
pub struct Setting<'a> {
    pub path: Vec<&'a str>,
    pub node: &'a Node,
    pub layer: &'a Layer,
}

/// What the loader would fall over: a layer that is no mapping.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is no mapping of names to settings")]
pub struct NoMapping;

impl Merged {
    /// Returns settings without any layer.
    pub fn new() -> Self {
        Self { layers: Vec::new(), root: Vec::new() }
    }

    /// Puts a layer over those that are there.
    pub fn apply(&mut self, layer: Layer, node: &Node) -> Result<(), NoMapping> {
        let pairs = node.content.as_map().ok_or(NoMapping)?;
        self.layers.push(layer);
        merge(&mut self.root, pairs, self.layers.len() - 1);
        Ok(())
    }

    /// Returns every value with the way to it.
    pub fn settings(&self) -> Vec<Setting<'_>> {
        let mut found = Vec::new();
        self.collect(&self.root, &mut Vec::new(), &mut found);
        found
    }

    fn collect<'a>(
        &'a self,
        pairs: &'a [(Key, Tree)],
        path: &mut Vec<&'a str>,
        found: &mut Vec<Setting<'a>>,
    ) {
        for (key, tree) in pairs {
            path.push(key.as_str());
            match tree {
                Tree::Section(pairs) => self.collect(pairs, path, found),
                Tree::Leaf(node, layer) => {
                    found.extend(self.layers.get(*layer).map(|layer| Setting {
                        path: path.clone(),
                        node,
                        layer,
                    }));
                }
            }
            path.pop();
        }
    }

    /// Returns the settings as one line of JSON.
    pub fn to_json(&self) -> Result<SecretBytes, MemoryError> {
        let mut out = SecretBuffer::new();
        push_section(&mut out, &self.root)?;
        push(&mut out, b"\n")?;
        Ok(out.into_bytes())
    }
}

impl Default for Merged {
    fn default() -> Self {
        Self::new()
    }
}

/// Sections are merged, and everything else is replaced.
fn merge(base: &mut Vec<(Key, Tree)>, over: &[(Key, Arc<Node>)], layer: usize) {
    for (key, node) in over {
        let known = base.iter_mut().find(|(known, _)| known == key);
        match (known, &node.content) {
            (Some((_, Tree::Section(base))), Content::Map(over)) => merge(base, over, layer),
            (Some((_, tree)), _) => *tree = fresh(node, layer),
            (None, _) => base.push((key.clone(), fresh(node, layer))),
        }
    }
}

fn fresh(node: &Arc<Node>, layer: usize) -> Tree {
    let Some(pairs) = node.content.as_map() else { return Tree::Leaf(Arc::clone(node), layer) };
    let mut section = Vec::new();
    merge(&mut section, pairs, layer);
    Tree::Section(section)
}

fn push_section(out: &mut SecretBuffer, pairs: &[(Key, Tree)]) -> Result<(), MemoryError> {
    push(out, b"{")?;
    for (index, (key, tree)) in pairs.iter().enumerate() {
        push(out, if index > 0 { b", " } else { b"" })?;
        json::push_string(out, key.as_str())?;
        push(out, b": ")?;
        match tree {
            Tree::Leaf(node, _) => node.push_json(out)?,
            Tree::Section(pairs) => push_section(out, pairs)?,
        }
    }
    push(out, b"}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn merged(layers: &[(&str, &str)]) -> Merged {
        let mut merged = Merged::new();
        for (name, text) in layers {
            let path = Path::new(name);
            merged.apply(Layer::File(path.into()), &read(path, text).unwrap()).unwrap();
        }
        merged
    }

    #[test]
    fn sections_merge_and_values_lists_and_nulls_replace() {
        let merged = merged(&[
            ("a.yaml", "s: {x: 1, y: {z: old}}\nl: [1, 2]\nn: {k: 1}\n"),
            ("b.toml", "l = [3]\n[s]\ny = { w = 2.5, t = 2024-01-02T03:04:05Z }\n"),
            ("c.json", "{\"n\": null, \"s\": {\"x\": {\"deep\": true}}}"),
        ]);
        let document: Value = serde_json::from_slice(merged.to_json().unwrap().expose()).unwrap();
        let y = json!({"z": "old", "w": 2.5, "t": "2024-01-02T03:04:05+00:00"});
        assert_eq!(document, json!({"s": {"x": {"deep": true}, "y": y}, "l": [3], "n": null}));
        let origin = |path: &str| {
            let settings = merged.settings();
            let found = settings.into_iter().find(|setting| setting.path.join(".") == path);
            found.map(|setting| setting.layer.clone())
        };
        assert_eq!(origin("s.y.z"), Some(Layer::File("a.yaml".into())));
        assert_eq!(origin("s.x.deep"), Some(Layer::File("c.json".into())));
        assert_eq!(origin("l"), Some(Layer::File("b.toml".into())));
    }

    #[test]
    fn an_empty_file_is_no_layer_and_a_list_is_an_error() {
        let path = Path::new("a.yaml");
        for nothing in ["", "# x", "false", "0", "[]", "''"] {
            let node = read(path, nothing).unwrap();
            assert!(Merged::new().apply(Layer::Environment, &node).is_ok(), "{nothing}");
        }
        let list = read(path, "[1]").unwrap();
        assert_eq!(Merged::new().apply(Layer::Environment, &list), Err(NoMapping));
    }
}
