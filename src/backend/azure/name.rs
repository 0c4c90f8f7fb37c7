//! Names: a path on the mount, and the letters, digits and dashes that Azure takes, in which it does not tell
//! small letters from capitals.
//!
//! Small letters, digits and single dashes are themselves, and a slash is two dashes. What else a path may have is
//! three dashes and a letter: `p` a dot, `u` an underscore, `m` a dash beside a slash or another dash, and `c` turns
//! capitals on, or off again, from the next letter on. So dashes always come in runs of known lengths, no two
//! paths have one name, and names by others that fit no path are none of ours.

use crate::backend::{BackendError, Result};
use crate::model::SecretName;

/// The longest name that Azure takes.
const MAX_CHARS: usize = 127;

/// Returns a path's name at Azure.
pub(super) fn encode(path: &str) -> Result<String> {
    path.parse::<SecretName>().map_err(|error| BackendError::Invalid(error.to_string()))?;
    let mut name = String::with_capacity(path.len());
    let mut capitals = false;
    let bytes = path.as_bytes();
    for (index, &byte) in bytes.iter().enumerate() {
        if byte.is_ascii_alphabetic() && byte.is_ascii_uppercase() != capitals {
            capitals = !capitals;
            name.push_str("---c");
        }
        match byte {
            b'/' => name.push_str("--"),
            b'-' if is_beside_dashes(bytes, index) => name.push_str("---m"),
            b'.' => name.push_str("---p"),
            b'_' => name.push_str("---u"),
            plain => name.push(plain.to_ascii_lowercase().into()),
        }
    }
    if name.len() > MAX_CHARS {
        return Err(BackendError::Invalid(format!(
            "the name takes {} characters at Azure, which has {MAX_CHARS}",
            name.len()
        )));
    }
    Ok(name)
}

/// Returns the path of a name at Azure; `None` if it is none of a path's.
pub(super) fn decode(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let mut path = String::with_capacity(name.len());
    let mut capitals = false;
    let mut rest = name.as_str();
    while !rest.is_empty() {
        let (plain, after) = rest.split_at(rest.find('-').unwrap_or(rest.len()));
        let plain = if capitals { plain.to_ascii_uppercase() } else { plain.to_owned() };
        path.push_str(&plain);
        rest = after.trim_start_matches('-');
        let (before, is_escape) = match after.len() - rest.len() {
            0 => ("", false),
            1 => ("-", false),
            2 => ("/", false),
            3 => ("", true),
            4 => ("-", true),
            5 => ("/", true),
            _ => return None,
        };
        path.push_str(before);
        if is_escape {
            let mut letters = rest.chars();
            match letters.next()? {
                'c' => capitals = !capitals,
                'm' => path.push('-'),
                'p' => path.push('.'),
                'u' => path.push('_'),
                _ => return None,
            }
            rest = letters.as_str();
        }
    }
    // What another name stands for already would be listed twice and read once.
    (encode(&path).ok()? == name).then_some(path)
}

fn is_beside_dashes(bytes: &[u8], index: usize) -> bool {
    let is_one = |index: Option<usize>| {
        let byte = index.and_then(|index| bytes.get(index));
        matches!(byte, Some(b'-' | b'/'))
    };
    is_one(index.checked_sub(1)) || is_one(index.checked_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_and_others_are_as_documented() {
        for (path, name) in [
            ("password", "password"),
            ("db-password-1", "db-password-1"),
            ("-a-", "-a-"),
            ("prod/db/password", "prod--db--password"),
            ("tls.key", "tls---pkey"),
            ("API_KEY", "---capi---ukey"),
            ("Upper/lower.v1", "---cu---cpper--lower---pv1"),
            ("a--b", "a---m---mb"),
            ("a-/b", "a---m--b"),
            ("a/-b", "a-----mb"),
            ("a-.b", "a----pb"),
        ] {
            assert_eq!(encode(path).unwrap(), name);
            assert_eq!(decode(name).as_deref(), Some(path));
        }
        assert_eq!(decode("Prod--DB").as_deref(), Some("prod/db"), "capitals mean nothing there");
    }

    #[test]
    fn names_that_fit_no_path_are_left_alone() {
        for name in ["", "--", "a--", "--a", "a------b", "a---", "a---x", "a---cb---c", "a---mb"] {
            assert_eq!(decode(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_or_no_path_is_invalid() {
        assert!(encode(&"a".repeat(MAX_CHARS)).is_ok());
        for bad in ["a".repeat(MAX_CHARS + 1), "_".repeat(40), "a//b".into(), "a b".into()] {
            assert!(matches!(encode(&bad), Err(BackendError::Invalid(_))), "{bad}");
        }
    }

    /// Few characters, so that two paths are often nearly the same.
    fn paths() -> impl Strategy<Value = String> {
        let characters = prop::sample::select(b"aAbBcmpuU0-._/".to_vec());
        prop::collection::vec(characters, 1..12)
            .prop_map(|bytes| bytes.into_iter().map(char::from).collect::<String>())
            .prop_filter("a path", |path| path.parse::<SecretName>().is_ok())
    }

    proptest! {
        #[test]
        fn every_path_has_a_name_and_comes_back(path in paths()) {
            let name = encode(&path).unwrap();
            prop_assert!(name.len() <= MAX_CHARS);
            let is_small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            prop_assert!(name.bytes().all(is_small));
            prop_assert_eq!(decode(&name.to_ascii_uppercase()), Some(path));
        }

        #[test]
        fn no_two_paths_have_one_name(one in paths(), other in paths()) {
            prop_assume!(one != other);
            prop_assert!(!encode(&one).unwrap().eq_ignore_ascii_case(&encode(&other).unwrap()));
        }

        #[test]
        fn no_two_names_are_one_path(one in "[acmpu-]{1,12}", other in "[acmpu-]{1,12}") {
            prop_assume!(one != other);
            if let (Some(one), Some(other)) = (decode(&one), decode(&other)) {
                prop_assert_ne!(one, other);
            }
        }
    }
}
