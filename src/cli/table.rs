//! Columns of a listing out of JSON objects.

use serde_json::Value;

use super::out::text_of;

/// Returns the named members of an object as one row; what is missing is empty.
pub(crate) fn row(object: &Value, members: &[&str]) -> Vec<String> {
    members.iter().map(|member| object.get(member).map(text_of).unwrap_or_default()).collect()
}

/// Returns a time without its fraction of a second, for people.
pub(crate) fn short_time(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_a_column_whatever_the_object_lacks() {
        let object = serde_json::json!({ "a": 1, "b": null });
        assert_eq!(row(&object, &["b", "a", "c"]), ["", "1", ""]);
        assert_eq!(short_time("2026-01-01T00:00:00.123Z"), "2026-01-01T00:00:00Z");
    }
}
