//! Whether an assigned value is a secret: for passwords by what they are not, for keys by chance.

use super::parse::{Assigned, Form};
use super::{Found, Id, Opinion, header, words};
use crate::scan::candidate::Reason;
use crate::scan::class::{is_digit, is_hex, is_letter, is_printable, is_token};
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
    match assigned.promise {
        Promise::Authorization => header::judge(text, assigned),
        Promise::Key => found(Id::Secret, key(value)),
        Promise::Password => found(Id::Password, password(name, value, assigned.form, kind)),
        Promise::Secret => found(Id::Secret, secret(value, assigned.form, kind)),
    }
}

fn password(name: &[u8], value: &[u8], form: Form, kind: FileKind) -> Result<Opinion, Reason> {
    usual(value)?;
    if !(6..=128).contains(&value.len()) {
        return Err(Reason::Shape);
    }
    let literal = form == Form::Quoted || kind.role == Role::Config;
    match form {
        Form::Quoted | Form::Attached => {}
        Form::Bare if kind.role == Role::Code => return Err(Reason::Identifier),
        Form::Bare | Form::BareInText if kind.role != Role::Config && is_expression(value) => {
            return Err(Reason::Identifier);
        }
        Form::Bare | Form::BareInText => {}
    }
    // A mapping or a list of YAML, and `{name}` of a template.
    let opens = matches!(value.first(), Some(b'{' | b'['));
    if form != Form::Quoted && (opens || is_call(value)) {
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
    if value.len() < 10 {
        return Err(Reason::Shape);
    }
    let is_path = value.split(|&byte| byte == b'/').all(is_identifier);
    if is_constant_name(value) || is_path || !value.iter().any(|&byte| is_digit(byte)) {
        return Err(Reason::Identifier);
    }
    let bare = form != Form::Quoted;
    if bare
        && (kind.role == Role::Code && form == Form::Bare
            || !value.iter().all(|&byte| is_token(byte)))
    {
        return Err(Reason::Identifier);
    }
    // A short or spoken one must at least be such as nobody calls a thing.
    if !is_random(value) && (bare || classes(value) < 4) {
        return Err(Reason::Identifier);
    }
    random(value, if value.iter().all(|&byte| is_hex(byte)) { 2.6 } else { 2.9 })
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
    let symbols = value.iter().filter(|&&byte| !is_letter(byte) && !is_digit(byte)).count();
    if value.len() < 20 || symbols * 6 > value.len() || classes(value) < 3 || !is_random(value) {
        return Err(Reason::Shape);
    }
    random(value, 3.6)
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

/// `user.password`, `getPassword()`, `args[0]`: what stands unquoted in a program.
fn is_expression(value: &[u8]) -> bool {
    is_call(value)
        || value.iter().all(|&byte| {
            is_letter(byte)
                || is_digit(byte)
                || matches!(byte, b'_' | b'.' | b':' | b'*' | b'&' | b'-' | b'>')
        }) && {
            // A variable may have a digit, but not first, and not many.
            let digits = value.iter().filter(|&&byte| is_digit(byte)).count();
            value.first().is_some_and(|&byte| !is_digit(byte)) && digits * 4 <= value.len()
        }
}

fn is_call(value: &[u8]) -> bool {
    let opens = value.iter().position(|byte| matches!(byte, b'(' | b'['));
    opens.is_some_and(|at| {
        let before = value.get(..at).unwrap_or_default();
        let after = value.get(at..).unwrap_or_default();
        let named = !before.is_empty() && is_identifier(before);
        named
            && (after.contains(&b')')
                || after.contains(&b']')
                || after.len() == 1
                || after.get(1).is_some_and(|b| is_letter(*b)))
    })
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
