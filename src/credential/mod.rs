//! A user name and a password inside a value, and the value with others in their place.
//!
//! A value has one of three shapes, told by looking at it: a URL with userinfo
//! (`postgresql://app:example@db/app`), a JSON object with `password` (and `username` or `user`), or
//! else the password itself. Only the bytes of the two parts are replaced; the rest stays as it was.
//! What looks like a URL or an object and has no password is an error, not a password: otherwise a
//! rotation would put a bare password in the place of the whole.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use crate::system::{MemoryError, SecretBuffer, SecretBytes};

mod json;
#[cfg(test)]
mod tests;
mod url;

/// Returns the user name in a value, if it holds one.
pub fn user(value: &SecretBytes) -> Option<String> {
    let layout = Layout::of(value.expose()).ok()?;
    let user = layout.encoding.decode(part(value, &layout.user?)).ok()?;
    let user = std::str::from_utf8(user.expose()).ok()?;
    (!user.is_empty()).then(|| user.to_owned())
}

/// Returns the password in a value, decoded.
pub fn password(value: &SecretBytes) -> Result<SecretBytes, ShapeError> {
    let layout = Layout::of(value.expose())?;
    layout.encoding.decode(part(value, &layout.password))
}

/// Returns the value with another password, and with another user if one is given.
pub fn with(
    value: &SecretBytes,
    user: Option<&str>,
    password: &SecretBytes,
) -> Result<SecretBytes, ShapeError> {
    let layout = Layout::of(value.expose())?;
    let mut parts = vec![(layout.password, password.expose())];
    if let Some(user) = user {
        parts.push((layout.user.ok_or(ShapeError::NoUser)?, user.as_bytes()));
    }
    parts.sort_unstable_by_key(|(place, _)| place.start);
    let mut made = SecretBuffer::new();
    let mut copied = 0;
    for (place, plain) in parts {
        push(&mut made, part(value, &(copied..place.start)))?;
        layout.encoding.encode(plain, &mut made)?;
        copied = place.end;
    }
    push(&mut made, part(value, &(copied..value.len())))?;
    Ok(made.into_bytes())
}

/// Returns what shape a value has.
pub fn shape(value: &SecretBytes) -> Result<Shape, ShapeError> {
    Ok(match Layout::of(value.expose())?.encoding {
        Encoding::Bare => Shape::Bare,
        Encoding::Json => Shape::Json,
        Encoding::Url => Shape::Url,
    })
}

/// What a value with a password is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    Bare,
    Json,
    Url,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare password",
            Self::Json => "JSON object",
            Self::Url => "URL",
        })
    }
}

/// Why a value has no user or password that could be read or replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ShapeError {
    #[error("the value has an escape sequence that means nothing")]
    Escape,
    #[error("the value looks like a JSON object, but is none or names a key twice")]
    Malformed,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the value is a URL or a JSON object, but there is no password in it")]
    NoPassword,
    #[error("there is no place for a user name in the value: use a URL or a JSON object")]
    NoUser,
    #[error("what is put into a JSON object must be UTF-8")]
    NotText,
}

/// Where the two parts stand in a value, and how they are written there.
struct Layout {
    encoding: Encoding,
    user: Option<Range<usize>>,
    password: Range<usize>,
}

#[derive(Clone, Copy)]
enum Encoding {
    Bare,
    Json,
    Url,
}

impl Layout {
    fn of(value: &[u8]) -> Result<Self, ShapeError> {
        if url::is_url(value) {
            return url::layout(value);
        }
        if json::is_object(value) {
            return json::layout(value);
        }
        // Files end in a newline that no program takes for a part of the password.
        let password = value.strip_suffix(b"\n").unwrap_or(value);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        Ok(Self { encoding: Encoding::Bare, user: None, password: 0..password.len() })
    }
}

impl Encoding {
    fn decode(self, encoded: &[u8]) -> Result<SecretBytes, ShapeError> {
        match self {
            Self::Bare => Ok(SecretBytes::copy_from(encoded)?),
            Self::Json => json::decode(encoded),
            Self::Url => url::decode(encoded),
        }
    }

    fn encode(self, plain: &[u8], into: &mut SecretBuffer) -> Result<(), ShapeError> {
        match self {
            Self::Bare => Ok(push(into, plain)?),
            Self::Json => json::encode(plain, into),
            Self::Url => url::encode(plain, into),
        }
    }
}

fn part<'a>(value: &'a SecretBytes, place: &Range<usize>) -> &'a [u8] {
    value.expose().get(place.clone()).unwrap_or_default()
}

fn push(buffer: &mut SecretBuffer, bytes: &[u8]) -> Result<(), MemoryError> {
    buffer.write_at(buffer.len(), bytes)
}
