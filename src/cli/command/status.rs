//! `status`: the daemon's own account of itself.

use serde_json::{Map, Value};

use super::Done;
use crate::cli::Context;

pub(super) fn run(context: &Context) -> Done {
    let text = context.client()?.read_text(".control/status")?;
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    context.out.json(&document(&pairs))?;
    let rows: Vec<Vec<String>> =
        pairs.iter().map(|(key, value)| vec![(*key).to_owned(), (*value).to_owned()]).collect();
    context.out.table(&["", ""], &rows)
}

/// Returns the pairs as an object; numbers become numbers, and a key that comes again a list.
pub(super) fn document(pairs: &[(&str, &str)]) -> Value {
    let mut object = Map::new();
    for (key, text) in pairs {
        let value = text.parse::<u64>().map_or_else(|_| Value::from(*text), Value::from);
        let key = (*key).to_owned();
        match object.get_mut(&key) {
            None => {
                object.insert(key, value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_an_object_with_numbers_and_lists() {
        let document = document(&[("a", "1"), ("b", "x"), ("fault", "y"), ("fault", "z")]);
        let expected = serde_json::json!({ "a": 1, "b": "x", "fault": ["y", "z"] });
        assert_eq!(document, expected);
    }
}
