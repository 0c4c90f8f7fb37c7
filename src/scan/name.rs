//! What a name that something is assigned to says about it: `DB_PASSWORD`, `clientSecret`, `x-api-key`.
//!
//! The last word counts. Behind it only words may follow that say which one it is (`password_prod`), because
//! most others name something about a secret and not the secret (`password_hash`, `token_url`).

/// What a name promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Promise {
    /// An HTTP header or field with credentials in a form of its own.
    Authorization,
    /// A key, of which most are no secrets.
    Key,
    Password,
    /// A key, token or secret that programs use.
    Secret,
}

/// Names are longer only in generated text.
const MAX_WORDS: usize = 16;

pub(super) fn promise(name: &[u8]) -> Option<Promise> {
    let lower = name.to_ascii_lowercase();
    let mut words: Vec<&[u8]> = split(name, &lower).collect();
    if words.len() > MAX_WORDS || words.iter().any(|word| is_other(word)) {
        return None;
    }
    while words.last().is_some_and(|word| tells_which(word)) && words.len() > 1 {
        words.pop();
    }
    let last = words.pop()?;
    let before = words.pop().unwrap_or_default();
    if is_password(last)
        || last == b"word" && before == b"pass"
        || last == b"phrase" && before == b"pass"
    {
        return Some(Promise::Password);
    }
    match last {
        b"auth" | b"authorization" => Some(Promise::Authorization),
        b"key" if before == b"pass" => Some(Promise::Password),
        b"key" if is_key_of_secret(before) => Some(Promise::Secret),
        b"key" | b"keys" => Some(Promise::Key),
        b"secret" | b"secrets" | b"token" | b"credential" | b"credentials" | b"creds" => {
            Some(Promise::Secret)
        }
        _ if ends_as_secret(last) => Some(Promise::Secret),
        _ => None,
    }
}

/// Splits at punctuation and where a capital follows a small letter; `lower` is the name in small letters.
fn split<'a>(name: &'a [u8], lower: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while name.get(at).is_some_and(|byte| !byte.is_ascii_alphanumeric()) {
            at += 1;
        }
        let start = at;
        while let Some(&byte) = name.get(at) {
            let before = at
                .checked_sub(1)
                .filter(|&before| before >= start)
                .and_then(|before| name.get(before));
            let turns = byte.is_ascii_uppercase() && before.is_some_and(u8::is_ascii_lowercase);
            if !byte.is_ascii_alphanumeric() || turns {
                break;
            }
            at += 1;
        }
        lower.get(start..at).filter(|word| !word.is_empty())
    })
}

fn is_password(word: &[u8]) -> bool {
    const OTHERS: [&[u8]; 7] =
        [b"bypass", b"compass", b"encompass", b"surpass", b"trespass", b"overpass", b"underpass"];
    let word = word.trim_ascii_end();
    let stem = word.strip_suffix(b"s").filter(|stem| stem.ends_with(b"word")).unwrap_or(word);
    let stem = stem.trim_suffix_digits();
    [&b"password"[..], b"passwd", b"pwd", b"passphrase", b"passwort", b"passcode", b"passw"]
        .iter()
        .any(|end| stem.ends_with(end))
        || stem.ends_with(b"pass") && !OTHERS.iter().any(|other| stem.ends_with(other))
}

/// Words that say which of several, and change nothing about what it is.
fn tells_which(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 27] = [
        b"prod",
        b"production",
        b"dev",
        b"development",
        b"test",
        b"testing",
        b"staging",
        b"stage",
        b"live",
        b"old",
        b"new",
        b"default",
        b"value",
        b"plain",
        b"plaintext",
        b"text",
        b"string",
        b"str",
        b"main",
        b"primary",
        b"secondary",
        b"backup",
        b"local",
        b"b64",
        b"base64",
        b"current",
        b"raw",
    ];
    WORDS.contains(&word) || word.iter().all(u8::is_ascii_digit)
}

/// Words that make a name one of something that is not secret.
fn is_other(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"public",
        b"pub",
        b"publishable",
        b"hash",
        b"hashed",
        b"checksum",
        b"cache",
        b"etag",
        b"foreign",
        b"sort",
        b"partition",
        b"digest",
        b"fingerprint",
        b"commit",
        b"revision",
        b"md5",
        b"sha1",
        b"sha256",
        b"sha512",
        b"csrf",
        b"xsrf",
        b"index",
        b"i18n",
        b"translation",
        b"label",
        b"placeholder",
        b"monkey",
        b"turkey",
        b"hockey",
        b"keyboard",
        b"license",
        b"licence",
        b"integrity",
        b"next",
        b"page",
        b"pagination",
        b"continuation",
        b"starting",
        b"activation",
        b"lifecycle",
        b"verification",
        b"confirmation",
        b"idempotency",
        b"request",
        b"change",
        b"purchase",
        b"eos",
        b"bos",
        b"pad",
        b"unk",
        b"sep",
        b"cls",
        b"mask",
        b"registry",
        b"output",
        b"input",
        b"result",
        b"invalid",
        b"missing",
    ];
    WORDS.contains(&word)
}

/// Words before `key` that make it a secret one.
fn is_key_of_secret(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 35] = [
        b"api",
        b"access",
        b"private",
        b"secret",
        b"encryption",
        b"signing",
        b"master",
        b"account",
        b"auth",
        b"client",
        b"app",
        b"service",
        b"storage",
        b"shared",
        b"webhook",
        b"crypto",
        b"session",
        b"jwt",
        b"hmac",
        b"consumer",
        b"subscription",
        b"admin",
        b"deploy",
        b"write",
        b"server",
        b"security",
        b"cipher",
        b"aes",
        b"fernet",
        b"cookie",
        b"integration",
        b"authentication",
        b"application",
        b"developer",
        b"root",
    ];
    WORDS.contains(&word)
}

fn ends_as_secret(word: &[u8]) -> bool {
    const ENDS: [&[u8]; 12] = [
        b"apikey",
        b"secretkey",
        b"accesskey",
        b"privatekey",
        b"authkey",
        b"appkey",
        b"authtoken",
        b"accountkey",
        b"accesstoken",
        b"clientsecret",
        b"masterkey",
        b"token",
    ];
    let word = word.trim_suffix_digits();
    ENDS.iter().any(|end| word.ends_with(end)) || word.ends_with(b"secret")
}

trait TrimDigits {
    /// Returns the word without the digits at its end.
    fn trim_suffix_digits(&self) -> &[u8];
}

impl TrimDigits for [u8] {
    fn trim_suffix_digits(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
        self.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_name_counts() {
        let cases = [
            ("password", Some(Promise::Password)),
            ("DB_PASSWORD", Some(Promise::Password)),
            ("spring.datasource.password", Some(Promise::Password)),
            ("userPass2", Some(Promise::Password)),
            ("password_prod", Some(Promise::Password)),
            ("PGPASSWORD", Some(Promise::Password)),
            ("clientSecret", Some(Promise::Secret)),
            ("X-Api-Key", Some(Promise::Secret)),
            ("STRIPE_APIKEY", Some(Promise::Secret)),
            ("_authToken", Some(Promise::Secret)),
            ("Authorization", Some(Promise::Authorization)),
            ("key", Some(Promise::Key)),
            ("password_hash", None),
            ("password_reset_url", None),
            ("token_url", None),
            ("bypass", None),
            ("public_key", None),
            ("secretary", None),
            ("author", None),
            ("monkey", None),
        ];
        for (name, expected) in cases {
            assert_eq!(promise(name.as_bytes()), expected, "{name}");
        }
    }
}
