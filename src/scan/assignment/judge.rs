//! Whether an assigned value is a secret: for passwords by what they are not, for keys by chance.

use super::parse::{Assigned, Form};
use super::{Found, Id, Opinion, header, words};
use crate::scan::candidate::Reason;
use crate::scan::class::{
    is_digit, is_hex, is_letter, is_lower, is_printable, is_token, is_upper, is_word,
};
use crate::scan::confidence::Strength;
use crate::scan::entropy::entropy;
use crate::scan::file_kind::{FileKind, Role};
use crate::scan::name::Promise;
use crate::scan::value::{
    classes, is_constant_name, is_hash_like, is_identifier, is_masked, is_placeholder, is_random,
    is_reference, is_uuid,
};

/// Returns nothing where what was read is no candidate at all.
pub(super) fn judge(text: &[u8], assigned: &Assigned, kind: FileKind) -> Option<Found> {
    let value = text.get(assigned.value.clone())?;
    let name = text.get(assigned.name.clone())?;
    let found = |id, opinion| Some(Found { id, value: assigned.value.clone(), opinion });
    let credentials = assigned.promise == Promise::Authorization;
    if let Some(reason) = is_no_literal(text, assigned, kind).filter(|_| !credentials) {
        return found(Id::Secret, Err(reason));
    }
    match assigned.promise {
        Promise::Authorization => header::judge(text, assigned),
        Promise::Key => found(Id::Secret, key(value)),
        Promise::Password => found(Id::Password, password(name, value, assigned.form, kind)),
        Promise::Secret => found(Id::Secret, secret(value, assigned.form, kind)),
    }
}

/// In a program a value without quotes is an expression, and in a text for people it is a word of a sentence.
fn is_no_literal(text: &[u8], assigned: &Assigned, kind: FileKind) -> Option<Reason> {
    let value = text.get(assigned.value.clone())?;
    if is_call(value) {
        return Some(Reason::Reference);
    }
    let bare = assigned.form != Form::Quoted;
    if bare && memchr::memmem::find(value, b"::").is_some() {
        return Some(Reason::Reference);
    }
    let is_code = kind.role == Role::Code;
    if bare && is_code && (assigned.form == Form::Bare || !is_random(value)) && is_expression(value)
    {
        return Some(Reason::Identifier);
    }
    let joined = text.get(assigned.name.end..assigned.value.start)?;
    let is_prose = matches!(kind.role, Role::Document | Role::Unknown) && joined.contains(&b':');
    (bare && is_prose && goes_on(text.get(assigned.value.end..)?)).then_some(Reason::StopWord)
}

/// Tells whether another word follows on the line.
fn goes_on(rest: &[u8]) -> bool {
    let blanks = rest.iter().take_while(|&&byte| byte == b' ').count();
    blanks > 0 && rest.get(blanks).is_some_and(|&byte| is_letter(byte))
}

fn password(name: &[u8], value: &[u8], form: Form, kind: FileKind) -> Result<Opinion, Reason> {
    usual(value)?;
    if !(6..=128).contains(&value.len()) {
        return Err(Reason::Shape);
    }
    let literal = form == Form::Quoted || kind.role == Role::Config;
    let in_prose = matches!(form, Form::Bare | Form::BareInText) && kind.role != Role::Config;
    if in_prose && (kind.role == Role::Code || is_expression(value)) {
        return Err(Reason::Identifier);
    }
    // A version, or a part of an address.
    if value.contains(&b'.') && value.iter().all(|&byte| is_digit(byte) || byte == b'.') {
        return Err(Reason::Shape);
    }
    // A path of a file or a page.
    let is_path = value.contains(&b'/')
        && value.split(|&byte| matches!(byte, b'/' | b'*')).all(is_identifier);
    if is_path {
        return Err(Reason::Reference);
    }
    // A mapping or a list of YAML, and `{name}` of a template.
    if form != Form::Quoted && matches!(value.first(), Some(b'{' | b'[')) {
        return Err(Reason::Reference);
    }
    if is_constant_name(value) || repeats_name(name, value) {
        return Err(Reason::Identifier);
    }
    if is_hashed(value) {
        return Err(Reason::Hash);
    }
    let mixed = classes(value) >= 2 && !is_identifier(value);
    Ok(Opinion { strength: Strength::Assigned { mixed, literal }, checked: false, floor: 2.0 })
}

fn secret(value: &[u8], form: Form, kind: FileKind) -> Result<Opinion, Reason> {
    usual(value)?;
    // Ten characters have the tokens in the addresses of badges; a backslash has binary data of a test.
    if value.len() < 12 || value.contains(&b'\\') {
        return Err(Reason::Shape);
    }
    let is_path = value.split(|&byte| byte == b'/').all(is_identifier) && !is_random_word(value);
    let is_scoped = memchr::memmem::find(value, b"::").is_some();
    if is_constant_name(value) || is_path || is_scoped {
        return Err(Reason::Identifier);
    }
    let bare = form != Form::Quoted;
    if bare && kind.role != Role::Config && !value.iter().all(|&byte| is_token(byte)) {
        return Err(Reason::Identifier);
    }
    // A short or spoken one must at least be such as nobody calls a thing.
    if !is_random(value) && (bare || classes(value) < 4) {
        return Err(Reason::Identifier);
    }
    let hex = value.iter().all(|&byte| is_hex(byte));
    if hex && value.len() < 20 {
        return Err(Reason::Hash);
    }
    random(value, if hex { 2.6 } else { 2.9 })
}

/// Most keys are no secrets: of maps, caches, rows, tests of ciphers.
fn key(value: &[u8]) -> Result<Opinion, Reason> {
    usual(value)?;
    if is_uuid(value) {
        return Err(Reason::Uuid);
    }
    // A part of it may be a hash: `linux-deps-0f3a...`, `uploads/0f3a....png`.
    let is_digest = |part: &[u8]| part.len() >= 12 && part.iter().all(|&byte| is_hex(byte));
    let mut parts = value.split(|&byte| !is_letter(byte) && !is_digit(byte));
    if value.iter().all(|&byte| is_hex(byte) || byte == b'-') || parts.any(is_digest) {
        return Err(Reason::Hash);
    }
    let longest = value.split(|&byte| !is_letter(byte) && !is_digit(byte)).map(<[u8]>::len).max();
    if value.len() < 20
        || longest.unwrap_or(0) < 12
        || !value.iter().all(|&byte| is_token(byte))
        || classes(value) < 3
        || !is_random(value)
    {
        return Err(Reason::Shape);
    }
    random(value, 3.6)
}

/// Letters alone, and yet none that anybody would call a thing by.
fn is_random_word(value: &[u8]) -> bool {
    let begins = |pair: &[u8]| matches!(pair, [one, two] if is_lower(*one) && is_upper(*two));
    let begun = value.windows(2).filter(|pair| begins(pair)).count();
    value.iter().all(|&byte| is_letter(byte)) && begun * 4 >= value.len()
}

fn random(value: &[u8], floor: f64) -> Result<Opinion, Reason> {
    if entropy(value) < floor {
        return Err(Reason::Entropy);
    }
    Ok(Opinion { strength: Strength::Random, checked: false, floor })
}

/// What every value must pass.
pub(super) fn usual(value: &[u8]) -> Result<(), Reason> {
    if value.iter().any(|&byte| byte.is_ascii_whitespace() || (byte < 0x80 && !is_printable(byte)))
    {
        return Err(Reason::Shape);
    }
    if is_reference(value) {
        return Err(Reason::Reference);
    }
    if is_placeholder(value) || is_masked(value) {
        return Err(Reason::Placeholder);
    }
    if words::is_stop_word(value) {
        return Err(Reason::StopWord);
    }
    Ok(())
}

/// `user.password`, `*value`, `a + b`: what stands unquoted in a program.
fn is_expression(value: &[u8]) -> bool {
    let digits = value.iter().filter(|&&byte| is_digit(byte)).count();
    // A variable may have a digit, but not first, and not many.
    let named = value.iter().all(|&byte| is_word(byte) || byte == b'.')
        && !value.first().is_some_and(|&byte| is_digit(byte))
        && digits * 4 <= value.len();
    let operator = value
        .iter()
        .any(|byte| matches!(byte, b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b','));
    named || operator || matches!(value.first(), Some(b'*' | b'&' | b'$' | b'!' | b'-' | b'+'))
}

/// `getPassword()`, `args[0]`, `Token![x]`, `key.clone(`.
fn is_call(value: &[u8]) -> bool {
    let Some(at) = value.iter().position(|byte| matches!(byte, b'(' | b'[')) else { return false };
    let (before, after) = value.split_at(at);
    let named = before.first().is_some_and(|&byte| is_letter(byte) || byte == b'_')
        && before
            .iter()
            .all(|&byte| is_word(byte) || matches!(byte, b'.' | b':' | b'!' | b'>' | b'-'));
    let argument = after.get(1).is_none_or(|&byte| {
        is_letter(byte) || matches!(byte, b'&' | b'*' | b'"' | b'\'' | b'_' | b'-')
    });
    named && (argument || after.contains(&b')') || after.contains(&b']'))
}

/// `password = "password"`, `db_password: my-db-password`: the name again.
fn repeats_name(name: &[u8], value: &[u8]) -> bool {
    let letters = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().filter(|&&byte| is_letter(byte)).map(u8::to_ascii_lowercase).collect()
    };
    let only_letters =
        value.iter().all(|&byte| is_letter(byte) || matches!(byte, b'_' | b'-' | b'.'));
    let (name, value) = (letters(name), letters(value));
    only_letters
        && (memchr::memmem::find(&name, &value).is_some()
            || [&b"password"[..], b"passwd", b"passphrase", b"passwort"]
                .iter()
                .any(|word| memchr::memmem::find(&value, word).is_some()))
}

/// Hashed or encrypted already.
fn is_hashed(value: &[u8]) -> bool {
    const STARTS: [&[u8]; 17] = [
        b"$2a$",
        b"$2b$",
        b"$2y$",
        b"$1$",
        b"$5$",
        b"$6$",
        b"$apr1$",
        b"$argon2",
        b"pbkdf2",
        b"{bcrypt}",
        b"{SSHA}",
        b"{cipher}",
        b"ENC(",
        b"ENC[",
        b"sha256",
        b"md5:",
        b"SCRAM-SHA",
    ];
    STARTS.iter().any(|start| value.starts_with(start)) || is_hash_like(value) && value.len() >= 40
}
