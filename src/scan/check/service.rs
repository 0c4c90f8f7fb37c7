//! Tokens of services that have a structure but no check digits.

use super::Verdict;
use super::base64::decode;
use super::classes;

/// `xoxb-TEAM-BOT-SECRET`: team and user are numbers, the secret is drawn by chance.
pub(super) fn slack(token: &[u8]) -> Verdict {
    let mut parts = token.rsplit(|&byte| byte == b'-');
    let secret = parts.next().unwrap_or_default();
    let is_number = |part: &[u8]| part.len() >= 9 && part.iter().all(u8::is_ascii_digit);
    let ids = parts.filter(|part| is_number(part) && part.first() != Some(&b'0')).count();
    if !secret.iter().any(u8::is_ascii_digit) && classes::changes(secret) * 8 < secret.len() {
        return Verdict::Invalid;
    }
    Verdict::hint(ids >= 1 && secret.len() >= 24)
}

/// `sk_live_`: newer keys hold the account, which begins with `51`, and are 99 or 107 characters long.
pub(super) fn stripe(token: &[u8]) -> Verdict {
    let body = token.rsplit(|&byte| byte == b'_').next().unwrap_or_default();
    if body.iter().all(u8::is_ascii_lowercase) || body.iter().all(u8::is_ascii_digit) {
        return Verdict::Invalid;
    }
    Verdict::hint(body.starts_with(b"51") && (90..=110).contains(&body.len()))
}

/// `ID:SECRET`: the number of a bot does not begin with a zero.
pub(super) fn telegram(token: &[u8]) -> Verdict {
    Verdict::possible(token.first() != Some(&b'0'))
}

/// `USER.TIME.MAC`: the first part is the number of the bot's user in base64.
pub(super) fn discord(token: &[u8]) -> Verdict {
    let user = token.split(|&byte| byte == b'.').next().unwrap_or_default();
    let is_number = |bytes: Vec<u8>| bytes.len() >= 17 && bytes.iter().all(u8::is_ascii_digit);
    if decode(user).is_some_and(is_number) {
        return Verdict::Valid;
    }
    // Names of modules have dots too; they are not drawn by chance.
    Verdict::possible(classes::changes(user) * 6 >= user.len())
}

/// Base64 of `ID:SECRET`, as Elasticsearch wants its API keys.
pub(super) fn elastic(token: &[u8]) -> Verdict {
    let Some(plain) = decode(token) else { return Verdict::Invalid };
    let is_part = |part: &[u8]| {
        part.len() >= 16
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let mut parts = plain.split(|&byte| byte == b':');
    let (id, secret, more) = (parts.next(), parts.next(), parts.next());
    Verdict::proof(id.is_some_and(is_part) && secret.is_some_and(is_part) && more.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    #[test]
    fn a_token_of_slack_names_a_team() {
        let token = |ids: &str, secret: &str| slack(["xoxb", ids, secret].join("-").as_bytes());
        assert_eq!(token("123456789012-123456789012", "a1B2c3D4e5F6g7H8i9J0k1L2"), Verdict::Valid);
        assert_eq!(token("123456789012", "abcdefghijklmnopqrstuvwx"), Verdict::Invalid);
        assert_eq!(token("1", "a1B2c3D4e5F6g7H8i9J0k1L2"), Verdict::Unknown);
    }

    #[test]
    fn a_newer_key_of_stripe_holds_its_account() {
        let key = |body: &str| stripe(format!("sk{}{body}", "_live_").as_bytes());
        assert_eq!(key(&format!("51{}", "aB3".repeat(33))), Verdict::Valid);
        assert_eq!(key(&"aB3".repeat(8)), Verdict::Unknown);
        assert_eq!(key("abcdefghijklmnopqrstuvwx"), Verdict::Invalid);
    }

    #[test]
    fn a_bot_of_discord_has_a_number() {
        let token =
            format!("{}.GabcDE.{}", URL_SAFE_NO_PAD.encode("123456789012345678"), "x".repeat(38));
        assert_eq!(discord(token.as_bytes()), Verdict::Valid);
        assert_eq!(discord(b"ModulesOfTheApplication.abcdef.etcetera"), Verdict::Invalid);
    }

    #[test]
    fn a_key_of_elastic_is_two_words() {
        assert_eq!(
            elastic(STANDARD.encode("VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw").as_bytes()),
            Verdict::Valid
        );
        assert_eq!(elastic(STANDARD.encode([7_u8; 43]).as_bytes()), Verdict::Invalid);
        assert_eq!(telegram(b"0123456789:AA"), Verdict::Invalid);
    }
}
