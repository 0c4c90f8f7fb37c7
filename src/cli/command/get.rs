//! `get`: a value, byte by byte as it was stored.

use zeroize::Zeroizing;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Get;
use crate::system::SecretBytes;

pub(super) fn run(context: &Context, args: &Get) -> Done {
    let view = match (args.version, args.previous) {
        (Some(version), _) => format!("@{version}"),
        (None, true) => "@previous".to_owned(),
        (None, false) => String::new(),
    };
    let client = context.client()?;
    let value = client.read_value(&args.name, &view)?;
    if context.out.is_json() {
        return context.out.bytes(&document(args.name.as_str(), &value));
    }
    context.out.secret(args.name.as_str(), value.expose(), args.force)
}

/// Returns `{"name": ..., "encoding": "utf8"|"base64", "value": ...}` as one line. Put together by
/// hand, because a JSON library would leave copies of the value behind.
fn document(name: &str, value: &SecretBytes) -> Zeroizing<Vec<u8>> {
    // Six bytes are the longest escape of one; so the buffer never moves.
    let mut out = Zeroizing::new(Vec::with_capacity(128 + name.len() + 6 * value.len()));
    let text = std::str::from_utf8(value.expose()).ok();
    let encoding = if text.is_some() { "utf8" } else { "base64" };
    // A secret's name has no character that JSON escapes.
    let head = format!("{{\"name\":\"{name}\",\"encoding\":\"{encoding}\",\"value\":\"");
    out.extend_from_slice(head.as_bytes());
    match text {
        Some(text) => text.bytes().for_each(|byte| escape(byte, &mut out)),
        None => base64(value.expose(), &mut out),
    }
    out.extend_from_slice(b"\"}\n");
    out
}

/// Appends one byte of UTF-8 as RFC 8259 has it in a string.
fn escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend([b'\\', byte]),
        0..0x20 | 0x7f => {
            let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
            out.extend(b"\\u00");
            out.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        _ => out.push(byte),
    }
}

/// Appends bytes in the base64 of RFC 4648, with padding.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let known = place <= chunk.len();
            let digit = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index));
            out.push(if known { digit.copied().unwrap_or(b'=') } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &[u8]) -> serde_json::Value {
        let value = SecretBytes::copy_from(value).unwrap();
        serde_json::from_slice(&document("a/b", &value)).unwrap()
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

    #[test]
    fn the_buffer_of_the_document_never_grows_and_leaves_no_copy() {
        let worst = SecretBytes::copy_from(&[1; 1000]).unwrap();
        let document = document("a", &worst);
        assert!(document.capacity() >= document.len() && document.capacity() < 7000);
    }
}
