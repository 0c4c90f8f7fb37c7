//! YAML against values that are known; `tests/oneiric.rs` holds it against PyYAML itself.

use serde_json::{Value, json};

use super::*;

fn loaded(text: &str) -> Value {
    let mut out = SecretBuffer::new();
    parse(text).unwrap().push_json(&mut out).unwrap();
    serde_json::from_slice(out.expose()).unwrap()
}

#[test]
fn plain_scalars_mean_what_yaml_1_1_says() {
    let cases = [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("oFF", json!("oFF")),
        ("~", Value::Null),
        ("", Value::Null),
        ("0777", json!(511)),
        ("08", json!("08")),
        ("0x1F", json!(31)),
        ("-0b11", json!(-3)),
        ("1_000", json!(1000)),
        ("1:30", json!(90)),
        ("+12", json!(12)),
        ("1.", json!(1.0)),
        ("1.5e3", json!("1.5e3")),
        ("1.5e+3", json!(1500.0)),
        ("-.inf", json!("-.inf")),
        ("1:30.5", json!(90.5)),
        ("2024-02-29", json!("2024-02-29")),
        ("2024-2-3 4:05:06.7 -1:30", json!("2024-02-03T04:05:06.700000-01:30")),
        ("2024-02-03T04:05:06Z", json!("2024-02-03T04:05:06+00:00")),
        ("'12'", json!("12")),
        ("!!str 12", json!("12")),
        ("! 12", json!("12")),
        ("!!float 12", json!(12.0)),
        ("123456789012345678901234567890 x", json!("123456789012345678901234567890 x")),
    ];
    for (text, expected) in cases {
        assert_eq!(loaded(&format!("k: {text}")), json!({ "k": expected }), "{text}");
    }
}

#[test]
fn anchors_merges_and_later_keys_are_understood() {
    let text =
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nb2: {y: 4, <<: [*a]}\nd: 1\nd: 2\n1: one\n";
    let expected = json!({
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2},
        "b2": {"x": 1, "y": 4}, "d": 2, "1": "one",
    });
    assert_eq!(loaded(text), expected);
}

#[test]
fn errors_of_yaml_and_what_python_falls_over_are_told_apart() {
    for bad in [
        "a: &x 1\nb: &x 2",
        "a: [",
        "a: *none",
        "--- 1\n--- 2",
        "a: !!python/object:x {}",
        "a: \u{1}",
        "? [x]\n: 1",
        "a: =",
    ] {
        assert!(matches!(parse(bad), Err(ParseError::Syntax { .. })), "{bad:?}");
    }
    for bad in ["a: 2024-13-01", "a: !!int x", "a: 0b_"] {
        assert!(matches!(parse(bad), Err(ParseError::Unfit { .. })), "{bad:?}");
    }
    let deep = "[".repeat(10_000);
    assert!(parse(&deep).is_err());
}

#[test]
fn a_quoted_text_is_the_same_text_again_whatever_it_is() {
    let all: String =
        (0..0x3000).chain([0xfeff, 0xfffe, 0xffff, 0x1_f511]).filter_map(char::from_u32).collect();
    for text in ["", "12345", "true", "null", "2024-01-01", "a, b", "a: b # c", " x ", &all] {
        let mut quoted = SecretBuffer::new();
        push_quoted(&mut quoted, text).unwrap();
        let quoted = String::from_utf8(quoted.expose().to_vec()).unwrap();
        assert!(!quoted.contains('\n'));
        assert_eq!(loaded(&format!("- {quoted}")), json!([text]));
    }
}

#[test]
fn the_place_of_a_value_is_where_it_stands() {
    let text = "\u{e9}: 'a''b'\nc: plain # no\nd:\n  - \"q\\\"x\" # c\ne: | # c | d\n  block\n  more\nf: x\n";
    let node = parse(text).unwrap();
    let mut spans = Vec::new();
    node.texts(&mut |path, _, span| {
        spans.push((path.join("."), text.get(span).unwrap().to_owned()))
    });
    let expected = [
        ("\u{e9}", "'a''b'"),
        ("c", "plain"),
        ("d.0", "\"q\\\"x\""),
        ("e", "| # c | d\n  block\n  more\n"),
        ("f", "x"),
    ];
    assert_eq!(spans, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
}
