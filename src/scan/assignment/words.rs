//! Words that are never secrets, and the examples of the rules.

use super::Id;

/// Words that stand where a password would and are none; in small letters.
const STOP_WORDS: [&str; 62] = [
    "password",
    "passwd",
    "secret",
    "string",
    "boolean",
    "number",
    "true",
    "false",
    "null",
    "none",
    "undefined",
    "required",
    "optional",
    "default",
    "disabled",
    "enabled",
    "admin",
    "username",
    "hidden",
    "visible",
    "text",
    "input",
    "prompt",
    "object",
    "unknown",
    "invalid",
    "missing",
    "empty",
    "confirm",
    "current",
    "forgot",
    "reset",
    "change",
    "update",
    "create",
    "delete",
    "postgres",
    "mysql",
    "function",
    "return",
    "const",
    "static",
    "public",
    "private",
    "override",
    "abstract",
    "nullable",
    "varchar",
    "integer",
    "credentials",
    "bearer",
    "basic",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_token",
    "secret_key",
    "client_secret",
    "generated",
    "randomly",
    "passphrase",
];

pub(super) fn is_stop_word(value: &[u8]) -> bool {
    let trimmed = value.strip_suffix(b"?").or_else(|| value.strip_suffix(b":")).unwrap_or(value);
    STOP_WORDS.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(trimmed))
}

/// Returns texts in which the rule must find something.
pub(super) fn positive(id: Id) -> Vec<Box<str>> {
    let texts: &[&str] = match id {
        Id::Authorization => &[
            "Authorization: Basic YWRtaW46aHVudGVyMi0=",
            "curl -H 'Authorization: Bearer 8fK2mQ9vL4nR8wTz1pXc'",
        ],
        Id::Password => &["password = \"hunter2-x\"", "DB_PASSWORD: 'Tr0ub4dor'"],
        Id::Secret => {
            &["api_key = \"8fK2mQ9vL4nR8wTz1pXc\"", "client_secret: '8fK2mQ9vL4nR8wTz1pXc'"]
        }
        Id::Url => &["https://admin:hunter2-x@host.internal/", "rtsp://app:Tr0ub4dor@camera:554/"],
    };
    texts.iter().map(|&text| text.into()).collect()
}

/// Returns texts in which it must not.
pub(super) fn negative(id: Id) -> Vec<Box<str>> {
    let texts: &[&str] = match id {
        Id::Authorization => &["Authorization: Bearer ${TOKEN}", "Authorization: Basic realm"],
        Id::Password => {
            &["password = \"changeme\"", "password = get_password()", "password: string"]
        }
        Id::Secret => {
            &["api_key = os.environ[\"API_KEY\"]", "token_url = \"8fK2mQ9vL4nR8wTz1pXc\""]
        }
        Id::Url => &["https://user:password@example.com/", "http://host:8080/a@b"],
    };
    texts.iter().map(|&text| text.into()).collect()
}
