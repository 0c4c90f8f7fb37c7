//! `oneiric`: the settings that Oneiric's loader comes to, and secrets put where it looks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Done;
use crate::cli::Context;
use crate::cli::args::{LayerName, Oneiric, OneiricLoad, OneiricPlace, OneiricSync};
use crate::cli::error::{Failure, Kind};
use crate::cli::import::{Found, name_for, store};
use crate::cli::names;
use crate::cli::plaintext;
use crate::cli::snapshot::Snapshot;
use crate::daemon::config::Environment;
use crate::inject::document::{Content, Node, ParseError};
use crate::inject::oneiric::layers::{self, Layer, Merged};
use crate::inject::oneiric::{Published, overrides, publish};
use crate::inject::suspect::is_suspect;
use crate::model::SecretName;
use crate::system::{SecretBuffer, SecretBytes, atomic_file};

/// The first line of a file that `sync` has written.
const OURS: &str = "# Written by secretfs oneiric sync.\n";

pub(super) fn run(context: &Context, args: &Oneiric) -> Done {
    match args {
        Oneiric::Load(args) => load(context, args),
        Oneiric::Sync(args) => sync(context, args),
    }
}

fn load(context: &Context, args: &OneiricLoad) -> Done {
    let merged = merged(context, &args.place)?;
    if args.explain {
        return explain(context, &merged);
    }
    if args.import {
        return import(context, args, &merged);
    }
    let text = merged.to_json().map_err(|err| failed("the settings", err.to_string()))?;
    context.out.bytes(text.expose())
}

/// Reads the layers as Oneiric does: a file that is no YAML is passed over, and said.
fn merged(context: &Context, place: &OneiricPlace) -> Result<Merged, Failure> {
    let mut merged = Merged::new();
    let mut apply = |layer: Layer, node: &Node| {
        let shown = shown(&layer);
        merged.apply(layer, node).map_err(|err| failed(&shown, err.to_string()))
    };
    for path in layers::files(&place.project, &place.root, &xdg(context, place)) {
        let Some(text) = read(&path)? else { continue };
        match parse(&path, &text) {
            Ok(node) => apply(Layer::File(path), &node)?,
            Err(err @ ParseError::Syntax { .. }) => {
                context
                    .out
                    .note(format_args!("{}: left out, as Oneiric does: {err}", path.display()));
            }
            Err(err) => return Err(failed(&path.display().to_string(), err.to_string())),
        }
    }
    let environment = Environment::in_order();
    let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let node = overrides(&place.project, variables)
        .map_err(|err| failed("the environment", err.to_string()))?;
    apply(Layer::Environment, &node)?;
    let variable = format!("{}CONFIG", place.project.prefix());
    if let Some(named) = context.environment.value(&variable) {
        let path = place.root.join(named);
        match read(&path)? {
            None => context.out.note(format_args!("{variable}: there is no such file")),
            Some(text) => {
                let node = parse(&path, &text)
                    .map_err(|err| failed(&path.display().to_string(), err.to_string()))?;
                apply(Layer::File(path), &node)?;
            }
        }
    }
    Ok(merged)
}

fn explain(context: &Context, merged: &Merged) -> Done {
    let settings = merged.settings();
    let rows = settings.iter().map(|setting| (setting.path.join("."), shown(setting.layer)));
    let rows: Vec<(String, String)> = rows.collect();
    let document: Vec<_> =
        rows.iter().map(|(setting, layer)| json!({ "setting": setting, "layer": layer })).collect();
    context.out.json(&json!(document))?;
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(a, b)| vec![a, b]).collect();
    context.out.table(&["setting", "layer"], &rows)
}

/// Stores what is a secret: all of `secrets.inline`, and what is one by its name.
fn import(context: &Context, args: &OneiricLoad, merged: &Merged) -> Done {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for setting in merged.settings() {
        let Content::Text(value) = &setting.node.content else { continue };
        let path: Vec<String> = setting.path.iter().map(|key| (*key).to_owned()).collect();
        let (inline, name) = match setting.path.as_slice() {
            ["secrets", "inline", rest @ ..] => (true, rest),
            whole => (false, whole),
        };
        // Oneiric's own settings for secrets say where they are, and are none.
        let own = setting.path.first() == Some(&"secrets") && !inline;
        let wanted = inline || (!own && is_suspect(&path, value.expose()));
        if !wanted || value.is_empty() {
            continue;
        }
        let name: Vec<String> = name.iter().map(|key| (*key).to_owned()).collect();
        let name = name_for(args.storing.dir.as_ref(), &name)?;
        let value = SecretBytes::copy_from(value.expose())
            .map_err(|err| failed("memory", err.to_string()))?;
        // The dashed and the underscored spelling are one secret.
        if !seen.insert((name.clone(), inline)) {
            continue;
        }
        found.push(Found { name, value, from: path.join(".") });
    }
    if found.is_empty() {
        return Err(failed("the settings", "there is no secret in them".into()));
    }
    store(context, &context.client()?, &found, &args.storing)
}

fn sync(context: &Context, args: &OneiricSync) -> Done {
    if args.at.is_some() && args.names.len() != 1 {
        return Err(Failure::new(Kind::Config, "--at", "one setting is for one secret"));
    }
    let client = context.client()?;
    let names: BTreeSet<SecretName> = if args.all {
        names::below(&client, None)?.into_iter().collect()
    } else {
        args.names.iter().cloned().collect()
    };
    let path = layer_path(context, args);
    let shown = path.display().to_string();
    let before = before(&path, args.force)?;
    let snapshot = Snapshot::read(&client, &names)?;
    let mut secrets = Vec::new();
    for name in &names {
        let Some(value) = snapshot.value(name) else { continue };
        let mut injection = names::injection(&client, name)?;
        injection.oneiric_path = args.at.clone().or(injection.oneiric_path);
        secrets.push(Published { name: name.clone(), value, injection });
    }
    let layer =
        publish(before.as_deref(), &secrets).map_err(|err| failed(&shown, err.to_string()))?;
    let mut text = SecretBuffer::new();
    let written =
        text.write_at(0, OURS.as_bytes()).and_then(|()| text.write_at(text.len(), layer.expose()));
    written.map_err(|err| failed(&shown, err.to_string()))?;
    let fail = |err: std::io::Error| failed(&shown, err.to_string());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    atomic_file::replace(&path, text.expose(), 0o600).map_err(fail)?;
    let document = json!({ "file": shown, "secrets": names });
    context.out.done(format_args!("{shown} has {} of them", secrets.len()), &document)
}

fn layer_path(context: &Context, args: &OneiricSync) -> PathBuf {
    let [settings, _, settings_local, config, local] =
        layers::files(&args.place.project, &args.place.root, &xdg(context, &args.place));
    match args.layer {
        LayerName::Settings => settings,
        LayerName::SettingsLocal => settings_local,
        LayerName::Xdg => config,
        LayerName::XdgLocal => local,
    }
}

/// Returns what is in the file now, unless it is somebody else's.
fn before(path: &Path, force: bool) -> Result<Option<std::sync::Arc<Node>>, Failure> {
    let Some(text) = read(path)? else { return Ok(None) };
    let shown = path.display().to_string();
    if !force && !text.expose().starts_with(OURS.as_bytes()) {
        return Err(failed(&shown, "somebody else has written it".into())
            .hint("--force keeps its settings, and not its comments"));
    }
    let node = parse(path, &text).map_err(|err| failed(&shown, err.to_string()))?;
    if node.content.as_map().is_none() {
        return Err(failed(&shown, "it is no mapping of names to settings".into()));
    }
    Ok(Some(node))
}

fn read(path: &Path) -> Result<Option<SecretBytes>, Failure> {
    // As the loader: what is not there is no layer, what cannot be read is an error.
    if !path.exists() { Ok(None) } else { plaintext::read_file(path).map(Some) }
}

fn parse(path: &Path, text: &SecretBytes) -> Result<std::sync::Arc<Node>, ParseError> {
    match std::str::from_utf8(text.expose()) {
        Ok(text) => layers::read(path, text),
        Err(_) => {
            Err(ParseError::Unfit { line: 1, column: 1, why: "the file is not UTF-8".into() })
        }
    }
}

/// Returns the user's configuration as Oneiric finds it: relative paths are the program's.
fn xdg(context: &Context, place: &OneiricPlace) -> PathBuf {
    let home = context.environment.home();
    match context.environment.set_value("XDG_CONFIG_HOME").map(Path::new) {
        None => home.join(".config"),
        Some(path) => match path.strip_prefix("~") {
            Ok(rest) => home.join(rest),
            Err(_) => place.root.join(path),
        },
    }
}

fn shown(layer: &Layer) -> String {
    match layer {
        Layer::Environment => "the environment".into(),
        Layer::File(path) => path.display().to_string(),
    }
}

fn failed(what: &str, why: String) -> Failure {
    Failure::new(Kind::Injection, what, why)
}
