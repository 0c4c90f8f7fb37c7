//! `get`: a value, byte by byte as it was stored.

use super::Done;
use crate::cli::Context;
use crate::cli::args::Get;
use crate::cli::error::{Failure, Kind};
use crate::inject::{base64, json};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

pub(super) fn run(context: &Context, args: &Get) -> Done {
    let view = match (args.version, args.previous) {
        (Some(version), _) => format!("@{version}"),
        (None, true) => "@previous".to_owned(),
        (None, false) => String::new(),
    };
    let client = context.client()?;
    let value = client.read_value(&args.name, &view)?;
    if context.out.is_json() {
        let document = document(args.name.as_str(), &value)
            .map_err(|err| Failure::new(Kind::Decryption, args.name.as_str(), err.to_string()))?;
        return context.out.bytes(document.expose());
    }
    context.out.secret(args.name.as_str(), value.expose(), args.force)
}

/// Returns `{"name": ..., "encoding": "utf8"|"base64", "value": ...}` as one line. Put together by
/// hand, because a JSON library would leave copies of the value behind.
fn document(name: &str, value: &SecretBytes) -> Result<SecretBytes, MemoryError> {
    let mut out = SecretBuffer::new();
    let text = std::str::from_utf8(value.expose()).ok();
    let encoding = if text.is_some() { "utf8" } else { "base64" };
    // A secret's name has no character that JSON escapes.
    let head = format!("{{\"name\":\"{name}\",\"encoding\":\"{encoding}\",\"value\":");
    out.write_at(0, head.as_bytes())?;
    match text {
        Some(text) => json::push_string(&mut out, text)?,
        None => {
            out.write_at(out.len(), b"\"")?;
            out.write_at(out.len(), base64::encode(value.expose())?.expose())?;
            out.write_at(out.len(), b"\"")?;
        }
    }
    out.write_at(out.len(), b"}\n")?;
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &[u8]) -> serde_json::Value {
        let value = SecretBytes::copy_from(value).unwrap();
        serde_json::from_slice(document("a/b", &value).unwrap().expose()).unwrap()
    }

    #[test]
    fn text_comes_back_out_of_the_document_as_it_was() {
        for text in ["", "example-value", "q\"b\\n\nx\u{0}\u{1f}\u{7f}\u{e9}\u{1f511}"] {
            let document = parsed(text.as_bytes());
            assert_eq!(document["encoding"], "utf8");
            assert_eq!(document["value"], text);
        }
    }

    #[test]
    fn other_bytes_are_base64() {
        let cases: [(&[u8], &str); 4] = [
            (b"\xff", "/w=="),
            (b"\xff\xfe", "//4="),
            (b"\xff\xfe\xfd", "//79"),
            (b"\xff\xfe\xfd\x00", "//79AA=="),
        ];
        for (bytes, expected) in cases {
            let document = parsed(bytes);
            assert_eq!(
                (&document["encoding"], &document["value"]),
                (&"base64".into(), &expected.into())
            );
        }
    }
}
