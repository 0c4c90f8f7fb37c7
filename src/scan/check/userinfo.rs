//! Passwords beside a user: in URLs, connection strings, command lines and basic authentication.

use super::Verdict;
use super::base64::decode;

/// What documents write where a password belongs.
const STAND_INS: [&[u8]; 24] = [
    b"changeme",
    b"demo",
    b"dummy",
    b"example",
    b"foobared",
    b"mypass",
    b"mypassword",
    b"pass",
    b"passwd",
    b"password",
    b"pasword",
    b"placeholder",
    b"pw",
    b"pwd",
    b"redacted",
    b"s3cr3t",
    b"secret",
    b"some_password",
    b"somepassword",
    b"token",
    b"user",
    b"xxx",
    b"your_password",
    b"yourpassword",
];

/// A password at a place where one is certain to stand, or a word that stands for one.
pub(super) fn password(value: &[u8]) -> Verdict {
    let quoted = value.trim_ascii().strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Verdict::possible(!is_stand_in(quoted.unwrap_or(value)))
}

/// A password where as well a word may stand: with digits or marks among the letters.
pub(super) fn literal(value: &[u8]) -> Verdict {
    let letters =
        value.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_' | b'.'));
    Verdict::possible(!letters && !is_stand_in(value))
}

/// The password of a URL: also none if it is a variable of a template.
pub(super) fn url_password(value: &[u8]) -> Verdict {
    // `$` and braces would be percent-encoded in a URL; in templates they are not.
    let template = value.starts_with(b"$")
        || value.iter().any(|byte| matches!(byte, b'{' | b'}' | b'(' | b'['));
    let masked = value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.'));
    Verdict::possible(!template && !masked && !is_stand_in(value))
}

/// Base64 of `user:password`.
pub(super) fn basic_auth(value: &[u8]) -> Verdict {
    let plain = decode(value).filter(|plain| plain.iter().all(|byte| matches!(byte, b' '..=b'~')));
    let Some(plain) = plain else { return Verdict::Invalid };
    let Some(colon) = plain.iter().position(|&byte| byte == b':') else { return Verdict::Invalid };
    let (user, password) = plain.split_at(colon);
    let password = password.get(1..).unwrap_or_default();
    Verdict::proof(!user.is_empty() && password.len() >= 3 && !is_stand_in(password))
}

fn is_stand_in(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    STAND_INS.binary_search(&lower.as_slice()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_words_of_documents_are_no_passwords() {
        assert!(STAND_INS.is_sorted());
        for value in ["password", "PASS", "yourpassword", "changeme"] {
            assert_eq!(password(value.as_bytes()), Verdict::Invalid, "{value}");
        }
        assert_eq!(password(b"hunter2"), Verdict::Unknown);
        assert_eq!(password(b"\"PASSWORD\""), Verdict::Invalid);
        assert_eq!(literal(b"archive-name"), Verdict::Invalid);
        assert_eq!(literal(b"hunter2"), Verdict::Unknown);
    }

    #[test]
    fn a_template_is_no_password_of_a_url() {
        for value in ["${PW}", "$PW", "{password}", "****", "xxx"] {
            assert_eq!(url_password(value.as_bytes()), Verdict::Invalid, "{value}");
        }
        assert_eq!(url_password(b"p%40ss-9"), Verdict::Unknown);
    }

    #[test]
    fn basic_authentication_decodes_to_user_and_password() {
        assert_eq!(basic_auth(STANDARD.encode("deploy:hunter2").as_bytes()), Verdict::Valid);
        assert_eq!(basic_auth(STANDARD.encode("user:password").as_bytes()), Verdict::Invalid);
        assert_eq!(basic_auth(b"d41d8cd98f00b204e9800998ecf8427e"), Verdict::Invalid);
    }
}
