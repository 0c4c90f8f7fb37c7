//! What Oneiric's loader takes from the environment: `P_A__B=value` is `a.b`, and a value that looks
//! like a number, a truth value or a list is taken for one.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::inject::document::{Content, Key, Node};
use crate::inject::oneiric::Project;
use crate::system::{MemoryError, SecretBytes};

/// Python's limit on the digits of a whole number; longer ones fall through to floats.
const MAX_DIGITS: usize = 4300;

/// A value as the loader takes it.
#[derive(Debug, PartialEq)]
pub enum Override<'a> {
    Bool(bool),
    Float(f64),
    /// Decimal.
    Int(String),
    List(Vec<&'a str>),
    Text(&'a str),
}

#[expect(clippy::expect_used, reason = "the pattern is a constant, and a test uses it")]
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    let digits = "[0-9](?:_?[0-9])*";
    let pattern = format!(
        r"^(?i)[-+]?(?:(?:{digits}(?:\.(?:{digits})?)?|\.{digits})(?:e[-+]?{digits})?|inf(?:inity)?|nan)$"
    );
    Regex::new(&pattern).expect("a constant pattern")
});

/// Returns what the loader makes of a variable's value.
pub fn coerce(text: &str) -> Override<'_> {
    match text.to_lowercase().as_str() {
        "true" => return Override::Bool(true),
        "false" => return Override::Bool(false),
        _ => {}
    }
    let trimmed = text.trim_matches(is_space);
    if let Some(digits) = int(trimmed) {
        return Override::Int(digits);
    }
    if FLOAT.is_match(trimmed)
        && let Ok(number) = trimmed.replace('_', "").parse::<f64>()
    {
        return Override::Float(number);
    }
    if text.contains(',') {
        return Override::List(text.split(',').map(|item| item.trim_matches(is_space)).collect());
    }
    Override::Text(text)
}

/// Tells whether digits of other scripts may make this a number to Python.
pub(super) fn may_be_foreign_number(text: &str) -> bool {
    let numeric = |c: char| c.is_numeric() || is_space(c) || "+-._eE".contains(c);
    !text.is_ascii() && text.chars().all(numeric)
}

/// White space as Python's `str.strip` has it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Returns a whole number in plain decimal.
fn int(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let single = digits
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let bare = digits.replace('_', "");
    if !single || bare.len() > MAX_DIGITS {
        return None;
    }
    let significant = bare.trim_start_matches('0');
    Some(if significant.is_empty() { "0".into() } else { format!("{sign}{significant}") })
}

/// Variables that are older than the rule, and the setting that each stands for.
const ALIASES: [(&str, [&str; 2]); 2] = [
    ("ACTIVITY_STORE", ["runtime_paths", "domain_activity_path"]),
    ("LOG_LEVEL", ["logging", "level"]),
];

/// Settings that are being put together.
enum Tree {
    Section(Vec<(String, Self)>),
    Value(Node),
}

/// Why the loader would fail over the environment.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error("{0} is a setting below another one that is a value already")]
    BelowValue(String),
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Returns the settings that the environment makes, from variables in the process's own order.
pub fn overrides<'a>(
    project: &Project,
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Arc<Node>, OverrideError> {
    let prefix = project.prefix();
    let mut root: Vec<(String, Tree)> = Vec::new();
    for (variable, text) in environment {
        let Some(suffix) = variable.strip_prefix(&prefix) else { continue };
        let value = Tree::Value(Node::made(content(coerce(text))?));
        if let Some((_, [section, field])) = ALIASES.iter().find(|(alias, _)| *alias == suffix) {
            if let Tree::Section(fields) = entry(&mut root, section) {
                set(fields, field, value);
            }
            continue;
        }
        let lower = suffix.to_lowercase();
        if lower == "profile" {
            match entry(&mut root, "profile") {
                Tree::Section(fields) => set(fields, "name", value),
                other @ Tree::Value(_) => {
                    *other = Tree::Section(vec![("name".into(), value)]);
                }
            }
            continue;
        }
        let (sections, field) =
            lower.rsplit_once("__").map_or((None, lower.as_str()), |(a, b)| (Some(a), b));
        let mut fields = &mut root;
        for section in sections.into_iter().flat_map(|sections| sections.split("__")) {
            match entry(fields, section) {
                Tree::Section(inner) => fields = inner,
                Tree::Value(_) => return Err(OverrideError::BelowValue(variable.to_owned())),
            }
        }
        set(fields, field, value);
    }
    Ok(node(Tree::Section(root)))
}

fn content(value: Override<'_>) -> Result<Content, MemoryError> {
    let text = |text: &str| SecretBytes::copy_from(text.as_bytes()).map(Content::Text);
    Ok(match value {
        Override::Bool(value) => Content::Bool(value),
        Override::Float(value) => Content::Float(value),
        Override::Int(digits) => Content::Int(digits),
        Override::List(items) => {
            let items = items.into_iter().map(|item| Ok(Arc::new(Node::made(text(item)?))));
            Content::List(items.collect::<Result<_, MemoryError>>()?)
        }
        Override::Text(value) => text(value)?,
    })
}

/// Returns what stands under a name; an empty section if nothing does.
fn entry<'a>(fields: &'a mut Vec<(String, Tree)>, name: &str) -> &'a mut Tree {
    let known = fields.iter().position(|(key, _)| key == name);
    let index = known.unwrap_or_else(|| {
        fields.push((name.to_owned(), Tree::Section(Vec::new())));
        fields.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "found, or pushed just now")]
    &mut fields[index].1
}

fn set(fields: &mut Vec<(String, Tree)>, name: &str, value: Tree) {
    *entry(fields, name) = value;
}

fn node(tree: Tree) -> Arc<Node> {
    match tree {
        Tree::Value(value) => value.into(),
        Tree::Section(fields) => {
            let pairs = fields.into_iter().map(|(key, tree)| (Key::Text(key), node(tree)));
            Node::made(Content::Map(pairs.collect())).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SecretBuffer;
    use serde_json::{Value, json};

    fn loaded(variables: &[(&str, &str)]) -> Result<Value, OverrideError> {
        let project: Project = "app".parse().unwrap();
        let mut out = SecretBuffer::new();
        overrides(&project, variables.iter().copied())?.push_json(&mut out).unwrap();
        Ok(serde_json::from_slice(out.expose()).unwrap())
    }

    #[test]
    fn variables_are_settings_by_their_double_underscores() {
        let variables = [
            ("APP_A__B_C__D", "x"),
            ("OTHER_A", "no"),
            ("APP_N", " 1_000 "),
            ("APP_F", "1e3"),
            ("APP_L", "a, b"),
            ("APP_LOG_LEVEL", "DEBUG"),
            ("APP_PROFILE", "serverless"),
            ("APP_T", "TRUE"),
            ("APP_CONFIG", "f.yaml"),
        ];
        let expected = json!({
            "a": {"b_c": {"d": "x"}}, "n": 1000, "f": 1000.0, "l": ["a", "b"],
            "logging": {"level": "DEBUG"}, "profile": {"name": "serverless"}, "t": true, "config": "f.yaml",
        });
        assert_eq!(loaded(&variables).unwrap(), expected);
    }

    #[test]
    fn a_setting_below_a_value_is_an_error_and_a_value_over_a_section_is_not() {
        assert!(loaded(&[("APP_A", "1"), ("APP_A__B", "2")]).is_err());
        assert_eq!(loaded(&[("APP_A__B", "2"), ("APP_A", "1")]).unwrap(), json!({"a": 1}));
    }
}
