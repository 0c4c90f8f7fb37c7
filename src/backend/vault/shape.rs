//! A secret of Vault is a JSON object of fields, and a file is bytes: how the one is shown as the other.
//!
//! A lone field `value` with a text is those bytes, and a lone field `base64` is the bytes behind it. Anything else
//! is shown as the object. What is put comes back the same: an object is stored as fields, and Vault gives it back
//! with its keys sorted and without spaces; other text becomes `value`, and what is no text `base64`. So does an
//! object that would itself be taken for one of these two.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::strange;
use crate::backend::{BackendError, Result};
use crate::inject::base64;
use crate::inject::document::Content;
use crate::inject::json::{self, push_string};
use crate::system::{SecretBuffer, SecretBytes};

/// The fields of a secret, as they are written.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Fields<'a>(#[serde(borrow)] BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Reads an object; `None` if the text is none.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Returns a field: a text as its bytes, anything else as it is written.
    pub(super) fn field(&self, name: &str) -> Result<SecretBytes> {
        let raw = self.0.get(name).ok_or(BackendError::NotFound)?.get();
        match text(raw)? {
            Some(text) => Ok(text),
            None => Ok(SecretBytes::copy_from(raw.as_bytes())?),
        }
    }

    /// Returns the lone field that stands for the whole, if there is one, with its name.
    fn lone(&self) -> Option<(&str, &RawValue)> {
        let (name, raw) = self.0.iter().next()?;
        let is_lone = self.0.len() == 1 && matches!(&**name, "value" | "base64");
        (is_lone && raw.get().starts_with('"')).then_some((&**name, *raw))
    }
}

/// Returns a secret as a file has it. `object` is the text of its object.
pub(super) fn file(object: &str) -> Result<SecretBytes> {
    let fields = Fields::parse(object).ok_or_else(strange)?;
    if let Some((name, raw)) = fields.lone()
        && let Some(text) = text(raw.get())?
    {
        if name == "value" {
            return Ok(text);
        }
        if let Some(bytes) = decoded(text.expose()) {
            return bytes;
        }
    }
    Ok(SecretBytes::copy_from(object.as_bytes())?)
}

/// Returns the object that a file is stored as.
pub(super) fn object(file: &SecretBytes) -> Result<SecretBytes> {
    let Ok(text) = std::str::from_utf8(file.expose()) else {
        let encoded = base64::encode(file.expose())?;
        let encoded = std::str::from_utf8(encoded.expose()).map_err(|_| strange())?;
        return one("base64", encoded);
    };
    match Fields::parse(text) {
        Some(fields) if !fields.0.is_empty() && fields.lone().is_none() => {
            Ok(SecretBytes::copy_from(text.as_bytes())?)
        }
        Some(_) | None => one("value", text),
    }
}

/// Returns an object with one field, which is a text.
pub(super) fn one(name: &str, text: &str) -> Result<SecretBytes> {
    let mut made = SecretBuffer::new();
    made.write_at(0, b"{")?;
    push_string(&mut made, name)?;
    made.write_at(made.len(), b":")?;
    push_string(&mut made, text)?;
    made.write_at(made.len(), b"}")?;
    Ok(made.into_bytes())
}

/// Decodes a JSON string in locked memory; `None` if it is another value.
fn text(raw: &str) -> Result<Option<SecretBytes>> {
    if !raw.starts_with('"') {
        return Ok(None);
    }
    let node = json::parse(raw).map_err(|_| strange())?;
    match &node.content {
        Content::Text(text) => Ok(Some(SecretBytes::copy_from(text.expose())?)),
        Content::Bool(_)
        | Content::Float(_)
        | Content::Int(_)
        | Content::List(_)
        | Content::Map(_)
        | Content::Null
        | Content::Time(_) => Ok(None),
    }
}

fn decoded(text: &[u8]) -> Option<Result<SecretBytes>> {
    let decode = |room: &mut [u8]| -> Result<usize> {
        let decoded = Base64::decode(text, room).map_err(|_| strange())?;
        Ok(decoded.len())
    };
    // Not every text under that name is one: it is then shown as the object that it is.
    SecretBytes::with_len(text.len(), decode).map(Ok).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(object: &str) -> Vec<u8> {
        file(object).unwrap().expose().to_vec()
    }

    fn stored(file: &[u8]) -> String {
        let object = object(&SecretBytes::copy_from(file).unwrap()).unwrap();
        String::from_utf8(object.expose().to_vec()).unwrap()
    }

    #[test]
    fn a_lone_value_is_the_file_and_anything_else_is_the_object() {
        assert_eq!(shown(r#"{"value":"a\n\"b\""}"#), b"a\n\"b\"");
        assert_eq!(shown(r#"{"base64":"/w=="}"#), b"\xff");
        for object in [
            r#"{"password":"x","user":"y"}"#,
            r#"{"value":"x","user":"y"}"#,
            r#"{"password":"x"}"#,
            r#"{"value":7}"#,
            r#"{"base64":"no base64"}"#,
            "{}",
        ] {
            assert_eq!(shown(object), object.as_bytes());
        }
        assert!(file("null").is_err() && file("[1]").is_err());
    }

    #[test]
    fn what_is_put_comes_back() {
        for put in [
            &b"canary-7f3a"[..],
            b"",
            b"\xff\xfe\x00",
            b"line\nline\n",
            "\u{e9}\u{1f511}\u{0}".as_bytes(),
            br#"{"password":"x","user":"y"}"#,
            br#"{"value":"x"}"#,
            br#"{"base64":"eA=="}"#,
            br#"{"value":{"deep":1}}"#,
            b"{}",
            b"[1]",
            b"\"text\"",
            b"7",
        ] {
            assert_eq!(shown(&stored(put)), put, "{:?}", String::from_utf8_lossy(put));
        }
        assert_eq!(stored(br#"{"a":"b"}"#), r#"{"a":"b"}"#, "its fields are fields there too");
    }

    #[test]
    fn a_field_is_its_text_or_what_else_it_is() {
        let fields = Fields::parse(r#"{"a":"x\ty","n":7,"o":{"b":[true]}}"#).unwrap();
        assert_eq!(fields.field("a").unwrap().expose(), b"x\ty");
        assert_eq!(fields.field("n").unwrap().expose(), b"7");
        assert_eq!(fields.field("o").unwrap().expose(), br#"{"b":[true]}"#);
        assert_eq!(fields.field("missing").unwrap_err(), BackendError::NotFound);
        assert_eq!(fields.names().collect::<Vec<_>>(), ["a", "n", "o"]);
    }
}
