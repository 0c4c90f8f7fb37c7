//! Texts that are too long for a datagram, shortened so that their receivers can still read them.
//!
//! JSON stays JSON and CEF stays CEF, and each says that something is left out: what is merely cut would be
//! thrown away by whoever parses it.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::clip;

/// What stands in the place of what was left out.
const MARK: &str = "[shortened]";

/// Returns a text of at most `max_bytes`, the same one if it is short enough.
pub(super) fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let shorter = if text.starts_with('{') {
        json(text, max_bytes)
    } else if text.starts_with("CEF:") {
        cef(text, max_bytes)
    } else {
        None
    };
    Cow::Owned(shorter.unwrap_or_else(|| {
        let room = max_bytes.saturating_sub(MARK.len());
        clip(&format!("{}{MARK}", clip(text, room)), max_bytes).to_owned()
    }))
}

/// Cuts long strings and lists until the whole is short enough. Its shape stays: a schema may be asked about it.
fn json(text: &str, max_bytes: usize) -> Option<String> {
    let whole: Value = serde_json::from_str(text).ok()?;
    let mut most = max_bytes / 2;
    while most > 0 {
        let mut shorter = whole.clone();
        cut(&mut shorter, most);
        // OCSF has a place for what is not its own.
        let holder = if shorter.get("unmapped").is_some_and(Value::is_object) {
            shorter.get_mut("unmapped")
        } else {
            Some(&mut shorter)
        };
        if let Some(object) = holder.and_then(Value::as_object_mut) {
            object.insert("shortened".to_owned(), json!({ "from_bytes": text.len() }));
        }
        let shorter = shorter.to_string();
        if shorter.len() <= max_bytes {
            return Some(shorter);
        }
        most /= 2;
    }
    None
}

fn cut(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.len() > most => {
            *text = format!("{}{MARK}", clip(text, most));
        }
        Value::Array(items) => {
            items.truncate(most);
            items.iter_mut().for_each(|item| cut(item, most));
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, most)),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// Leaves out the longest pairs. A custom field that we do not use otherwise says so.
fn cef(text: &str, max_bytes: usize) -> Option<String> {
    let (header, extension) = text.split_at(end_of_header(text)?);
    let note = format!("cs6Label=shortened cs6={} bytes", text.len());
    let mut pairs = pairs(extension);
    let mut length = header.len() + extension.len() + 1 + note.len();
    while length > max_bytes {
        let longest =
            (0..pairs.len()).max_by_key(|index| pairs.get(*index).map_or(0, |pair| pair.len()))?;
        length -= pairs.remove(longest).len() + 1;
    }
    let kept: Vec<&str> = pairs.into_iter().chain([&*note]).collect();
    Some(format!("{header}{}", kept.join(" ")))
}

/// Returns where the seventh bar ends that has no `\` before it.
fn end_of_header(text: &str) -> Option<usize> {
    let (mut bars, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        bars += usize::from(byte == b'|' && !escaped);
        if bars == 7 {
            return Some(at + 1);
        }
        escaped = byte == b'\\' && !escaped;
    }
    None
}

/// Splits `key=value key=value`: an `=` in a value is escaped, so a word with a bare one begins a pair.
fn pairs(extension: &str) -> Vec<&str> {
    let begins_pair = |rest: &str| {
        let key = rest.split('=').next().unwrap_or_default();
        key.len() < rest.len()
            && !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let mut pairs = Vec::new();
    let mut rest = extension;
    while !rest.is_empty() {
        let next = rest.match_indices(' ').map(|(at, _)| at);
        let mut ends = next.filter(|at| rest.get(at + 1..).is_some_and(begins_pair));
        let end = ends.next().unwrap_or(rest.len());
        pairs.push(rest.get(..end).unwrap_or_default());
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        assert!(matches!(shorten("{\"a\":1}", 7), Cow::Borrowed("{\"a\":1}")));
    }

    #[test]
    fn json_stays_json_of_the_same_shape_and_says_that_it_is_shortened() {
        let long = "x".repeat(5000);
        let list: Vec<u32> = (0..3000).collect();
        let line = json!({ "seq": 7, "reason": long, "detail": { "seqs": list, "kind": "walk" }, "uid": null });
        let shorter = shorten(&line.to_string(), 1000).into_owned();
        assert!(shorter.len() <= 1000);
        let shorter: Value = serde_json::from_str(&shorter).unwrap();
        assert_eq!((&shorter["seq"], &shorter["detail"]["kind"]), (&json!(7), &json!("walk")));
        assert!(shorter["reason"].as_str().unwrap().ends_with(MARK));
        assert_eq!(shorter["shortened"]["from_bytes"], line.to_string().len());
        let ocsf = json!({ "class_uid": 6003, "unmapped": { "detail": long } }).to_string();
        let shorter: Value = serde_json::from_str(&shorten(&ocsf, 1000)).unwrap();
        assert!(shorter["unmapped"]["shortened"].is_object() && shorter.get("shortened").is_none());
    }

    #[test]
    fn cef_loses_whole_pairs_and_says_so() {
        let long = "y\\=z a ".repeat(500);
        let line = format!(
            "CEF:0|a|b\\|c|1|read|n|3|rt=1 reason={long} fname=prod/a msg=a b cs1Label=rule cs1=r"
        );
        let shorter = shorten(&line, 200).into_owned();
        assert_eq!(
            shorter,
            format!(
                "CEF:0|a|b\\|c|1|read|n|3|rt=1 fname=prod/a msg=a b cs1Label=rule cs1=r \
                 cs6Label=shortened cs6={} bytes",
                line.len()
            )
        );
    }

    #[test]
    fn any_other_text_is_cut_between_characters_and_says_so() {
        let shorter = shorten(&"\u{fffd}".repeat(100), 50).into_owned();
        assert!(shorter.len() <= 50 && shorter.ends_with(MARK));
        assert!(shorten("{torn and long", 12).len() <= 12);
    }
}
