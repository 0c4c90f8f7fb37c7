//! Users and passwords in all shapes; what is not replaced stays byte for byte.

use proptest::prelude::*;

use super::*;

#[test]
fn users_and_passwords_are_found_in_each_shape() {
    let cases: [(&str, Shape, Option<&str>, &str); 12] = [
        ("example-value", Shape::Bare, None, "example-value"),
        ("example-value\r\n", Shape::Bare, None, "example-value"),
        ("{braces}", Shape::Bare, None, "{braces}"),
        ("://x@y", Shape::Bare, None, "://x@y"),
        ("postgresql://app:example@db/app", Shape::Url, Some("app"), "example"),
        ("jdbc:mysql://a%40b:p%2Fw%25@h:1/x?y=@#z", Shape::Url, Some("a@b"), "p/w%"),
        ("redis://:example@h/0\n", Shape::Url, None, "example"),
        ("redis://u:with@sign:and:colons@h", Shape::Url, Some("u"), "with@sign:and:colons"),
        (r#"{"username":"app","password":"example"}"#, Shape::Json, Some("app"), "example"),
        (
            " {\n \"user\": \"a\\u00e4\\ud83d\\ude00\", \"password\" : \"q\\\"\\\\\\n\\/\" }\n",
            Shape::Json,
            Some("a\u{e4}\u{1f600}"),
            "q\"\\\n/",
        ),
        (r#"{"password":"p","user":7}"#, Shape::Json, None, "p"),
        (r#"{"x":{"password":"no"},"password":"p"}"#, Shape::Json, None, "p"),
    ];
    for (text, expected, name, plain) in cases {
        let value = secret(text);
        assert_eq!(shape(&value).unwrap(), expected, "{text}");
        assert_eq!(user(&value).as_deref(), name, "{text}");
        assert_eq!(password(&value).unwrap().expose(), plain.as_bytes(), "{text}");
    }
}

#[test]
fn the_password_and_the_user_alone_are_replaced() {
    let cases = [
        ("old\n", None, "new\n"),
        ("p://a:old@h/old?a=old", None, "p://a:n%20%40@h/old?a=old"),
        ("p://a:old@h", Some("b:c"), "p://b%3Ac:n%20%40@h"),
        ("p://:old@h", Some("b"), "p://b:n%20%40@h"),
        (
            r#"{"password": "old", "username":"a"}"#,
            Some("b"),
            r#"{"password": "n @", "username":"b"}"#,
        ),
        (r#"{"user":"a","password":"old"} "#, Some("\""), r#"{"user":"\"","password":"n @"} "#),
    ];
    for (text, user, expected) in cases {
        let new = secret(if user.is_none() && text.starts_with("old") { "new" } else { "n @" });
        let made = with(&secret(text), user, &new).unwrap();
        assert_eq!(std::str::from_utf8(made.expose()).unwrap(), expected);
    }
}

#[test]
fn what_has_no_password_is_refused_and_not_taken_for_one() {
    let cases = [
        ("redis://h:6379/0", ShapeError::NoPassword),
        ("https://token@h/", ShapeError::NoPassword),
        ("postgresql://u:p/w@h/", ShapeError::NoPassword),
        ("p://u:%zz@h", ShapeError::Escape),
        ("p://u:%4@h", ShapeError::Escape),
        (r#"{"token":"x"}"#, ShapeError::NoPassword),
        ("{}", ShapeError::NoPassword),
        (r#"{"password":7}"#, ShapeError::NoPassword),
        (r#"{"password":null}"#, ShapeError::NoPassword),
        (r#"{"password":"a","password":"b"}"#, ShapeError::Malformed),
        (r#"{"password":"a",}"#, ShapeError::Malformed),
        (r#"{"password":"\ud800"}"#, ShapeError::Escape),
        (r#"{"password":"\udc00\ud800"}"#, ShapeError::Escape),
    ];
    for (text, expected) in cases {
        assert_eq!(password(&secret(text)).unwrap_err(), expected, "{text}");
    }
    let new = secret("new");
    for text in ["old", r#"{"password":"old"}"#] {
        assert_eq!(with(&secret(text), Some("b"), &new).unwrap_err(), ShapeError::NoUser);
    }
    let binary = SecretBytes::copy_from(b"\xff").unwrap();
    let object = secret(r#"{"password":"old"}"#);
    assert_eq!(with(&object, None, &binary).unwrap_err(), ShapeError::NotText);
}

proptest! {
    #[test]
    fn a_url_keeps_all_bytes_around_any_password(
        before in "[a-z][a-z0-9+.:-]{0,9}://[A-Za-z0-9._~%-]{0,9}",
        old in "[A-Za-z0-9@:._~!-]{0,20}",
        after in "[a-z0-9.:]{0,9}([/?#][ -~]{0,20})?\n?",
        new in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let value = secret(&format!("{before}:{old}@{after}"));
        let made = with(&value, None, &SecretBytes::copy_from(&new).unwrap()).unwrap();
        let prefix = format!("{before}:");
        let inside = made.expose().strip_prefix(prefix.as_bytes()).unwrap();
        let inside = inside.strip_suffix(format!("@{after}").as_bytes()).unwrap();
        prop_assert!(inside.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(b)));
        let decoded = password(&made).unwrap();
        prop_assert_eq!(decoded.expose(), &*new);
        prop_assert_eq!(user(&made), user(&value));
    }

    #[test]
    fn an_object_keeps_all_bytes_around_any_password_and_user(
        members in prop::collection::vec(("[a-z]{1,5}", any::<String>()), 0..4),
        old in any::<String>(),
        (name, password_text) in (any::<String>(), any::<String>()),
        space in "[ \n\t]{0,3}",
    ) {
        let mut text = format!("{space}{{{space}");
        for (key, value) in &members {
            text.push_str(&format!("\"x{key}\":{space}{},", quoted(value)));
        }
        let before = format!("{text}\"password\"{space}:{space}");
        let middle = format!(",{space}\"username\":");
        let after = format!("{space}}}{space}");
        let value = secret(&format!("{before}{}{middle}{}{after}", quoted(&old), quoted("a")));
        let made = with(&value, Some(&name), &secret(&password_text)).unwrap();
        let made_text = std::str::from_utf8(made.expose()).unwrap();
        let rest = made_text.strip_prefix(&*before).unwrap().strip_suffix(&*after).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(made_text).unwrap();
        prop_assert_eq!(parsed["password"].as_str(), Some(&*password_text));
        prop_assert_eq!(parsed["username"].as_str(), Some(&*name));
        prop_assert!(rest.contains(&*middle));
        for (key, value) in &members {
            let kept = format!("\"x{key}\":{space}{},", quoted(value));
            prop_assert!(made_text.contains(&kept));
        }
        let decoded = password(&made).unwrap();
        prop_assert_eq!(decoded.expose(), password_text.as_bytes());
        prop_assert_eq!(user(&made), (!name.is_empty()).then_some(name));
    }

    #[test]
    fn no_bytes_at_all_make_it_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let value = SecretBytes::copy_from(&bytes).unwrap();
        let (name, plain) = (user(&value), password(&value));
        if let Ok(plain) = plain {
            let again = with(&value, name.as_deref(), &plain).unwrap();
            let decoded = password(&again).unwrap();
            prop_assert_eq!(decoded.expose(), plain.expose());
        }
    }
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes()).unwrap()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}
