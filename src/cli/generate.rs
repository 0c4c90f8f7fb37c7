//! What `put --generate` can make, in a word.

use crate::generate::{ByteCount, Encoding, Generator, HmacAlgorithm, Password, Prefix, Ssh};
use crate::generate::{SshAlgorithm, Tls};

/// The words, for whoever mistypes one.
const KINDS: &str = "LEN, password[:LEN], api-key[:BYTES], hex[:BYTES], hmac, webhook, \
                                uuid, ssh, ssh-rsa or tls:NAME[,NAME]";

/// The shortest value that may be asked for by its length.
const MIN_LENGTH: usize = 8;

/// Parses a length, or a kind and what it takes behind a colon.
pub(crate) fn parse(text: &str) -> Result<Generator, String> {
    if let Ok(length) = text.parse() {
        return if length < MIN_LENGTH {
            Err(format!("a value of {length} characters: use at least {MIN_LENGTH}"))
        } else {
            Password::url_safe(length).map(Generator::Password)
        };
    }
    let (kind, setting) = match text.split_once(':') {
        Some((kind, setting)) => (kind, Some(setting)),
        None => (text, None),
    };
    let bytes = || match setting {
        Some(text) => ByteCount::try_from(number(text)?),
        None => Ok(ByteCount::default()),
    };
    let generator = match (kind, setting) {
        ("password", None) => Generator::Password(Password::default()),
        ("password", Some(text)) => {
            let length = usize::try_from(number(text)?).unwrap_or(usize::MAX);
            Generator::Password(Password::of_length(length)?)
        }
        ("api-key", _) => Generator::ApiKey { bytes: bytes()? },
        ("hex", _) => Generator::Raw { bytes: bytes()?, encoding: Encoding::Hex },
        ("hmac", None) => {
            Generator::Hmac { algorithm: HmacAlgorithm::default(), encoding: Encoding::default() }
        }
        ("webhook", None) => Generator::Prefixed {
            prefix: Prefix::webhook(),
            bytes: ByteCount::default(),
            encoding: Encoding::Base64,
        },
        ("uuid", None) => Generator::Uuid {},
        ("ssh", None) => Generator::Ssh(Ssh::of(SshAlgorithm::Ed25519)),
        ("ssh-rsa", None) => Generator::Ssh(Ssh::of(SshAlgorithm::Rsa)),
        ("tls", Some(names)) => {
            let names = names.split(',').map(str::to_owned).collect();
            Generator::Tls(Tls::self_signed(names)?)
        }
        _ => return Err(format!("use {KINDS}")),
    };
    Ok(generator)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Inputs;
    use crate::model::Timestamp;

    #[test]
    fn each_word_makes_a_value_of_its_kind() {
        let cases: [(&str, usize, &str); 9] = [
            ("8", 8, ""),
            ("64", 64, ""),
            ("password", 32, ""),
            ("password:20", 20, ""),
            ("api-key:48", 64, ""),
            ("hex:16", 32, ""),
            ("hmac", 43, ""),
            ("webhook", 50, "whsec_"),
            ("uuid", 36, ""),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let inputs = Inputs { current: None, user: None, authority: None, now };
        for (word, length, start) in cases {
            let value = parse(word).unwrap().generate(&inputs).unwrap().value;
            assert_eq!(value.len(), length, "{word}");
            assert!(value.expose().starts_with(start.as_bytes()), "{word}");
        }
        let made = parse("tls:localhost,127.0.0.1").unwrap().generate(&inputs).unwrap();
        assert!(made.value.expose().starts_with(b"-----BEGIN PRIVATE KEY-----"));
        assert!(made.expires.is_some());
        let made = parse("ssh").unwrap().generate(&inputs).unwrap();
        assert!(made.public.unwrap().starts_with("ssh-ed25519 "));
    }

    #[test]
    fn a_length_gives_characters_that_need_no_quoting() {
        let now = Timestamp::UNIX_EPOCH;
        let inputs = Inputs { current: None, user: None, authority: None, now };
        let value = parse("5000").unwrap().generate(&inputs).unwrap().value;
        let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        assert!(value.expose().iter().all(safe));
        assert!(b"-_".iter().all(|byte| value.expose().contains(byte)));
    }

    #[test]
    fn other_words_are_refused_with_those_that_there_are() {
        for bad in ["", "7", "99999", "magic", "tls", "tls:", "tls:a b", "uuid:4", "password:x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("magic").unwrap_err().contains("password[:LEN]"));
    }
}
