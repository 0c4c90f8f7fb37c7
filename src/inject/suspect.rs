//! Tells by its name, or by its form, whether a setting is a secret.
//!
//! For moving settings that somebody has written down into the store, with a list to look at before:
//! not for finding what is hidden.

/// Words of names that secrets have.
const WORDS: [&str; 18] = [
    "apikey",
    "cookie",
    "credential",
    "credentials",
    "dsn",
    "key",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "private",
    "pw",
    "pwd",
    "salt",
    "secret",
    "secrets",
    "token",
    "tokens",
];

/// Words before `key` with which it is none.
const HARMLESS: [&str; 6] = ["cache", "foreign", "primary", "public", "routing", "sort"];

/// Tells whether the value under this way of names is likely to be a secret.
pub fn is_suspect(path: &[String], value: &[u8]) -> bool {
    let words: Vec<String> = path.iter().flat_map(|name| words(name)).collect();
    let harmless = words.iter().any(|word| HARMLESS.contains(&word.as_str()));
    let named =
        words.iter().any(|word| WORDS.contains(&word.as_str()) && !(harmless && word == "key"));
    named || has_form(value)
}

/// A private key, or a URL with a password in it.
fn has_form(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return true };
    if text.contains("PRIVATE KEY-----") {
        return true;
    }
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

/// Splits a name into lower-case words, `camelCase` too.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in name.chars() {
        let starts = !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower);
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase() || c.is_numeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(path: &str, value: &str) -> bool {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        is_suspect(&path, value.as_bytes())
    }

    #[test]
    fn names_and_forms_of_secrets_are_told_from_others() {
        for path in
            ["DB_PASSWORD", "openaiApiKey", "auth.secret", "secrets.inline.x", "API-TOKEN", "a.pwd"]
        {
            assert!(suspect(path, "x"), "{path}");
        }
        for path in ["PORT", "public_key", "keyboard", "db.host", "primaryKey", "monkey", "bypass"]
        {
            assert!(!suspect(path, "x"), "{path}");
        }
        assert!(suspect("url", "postgres://app:pw@host/db"));
        assert!(suspect("file", "-----BEGIN EC PRIVATE KEY-----\n"));
        for url in ["https://host/a:b@c", "postgres://app@host/db", "postgres://app:@host"] {
            assert!(!suspect("url", url), "{url}");
        }
    }
}
