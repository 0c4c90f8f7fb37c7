//! Private keys in text: PEM in files, in strings of programs, and wrapped in base64 once more.

use memchr::memmem;

use super::Verdict;
use super::base64::decode;

/// The fewest bytes that a private key of any kind takes.
const SHORTEST: usize = 32;

/// A PEM block: the body is base64, and a DER sequence of just its length or the container of OpenSSH.
pub(super) fn pem(block: &[u8]) -> Verdict {
    let Some(body) = body(block) else { return Verdict::Invalid };
    let Some(content) = content(body) else { return Verdict::Invalid };
    if content.len() < SHORTEST || content.iter().all(|byte| Some(byte) == content.first()) {
        return Verdict::Invalid;
    }
    Verdict::hint(is_der_sequence(&content) || content.starts_with(b"openssh-key-v1\0"))
}

/// Base64 of a PEM block, as kubeconfig and Kubernetes secrets have it.
pub(super) fn wrapped(text: &[u8]) -> Verdict {
    let Some(block) = decode(text) else { return Verdict::Invalid };
    if memmem::find(&block, b"PRIVATE KEY-----").is_none() {
        return Verdict::Invalid;
    }
    pem(block.trim_ascii())
}

/// Returns what stands between the line that begins a block and the one that ends it.
fn body(block: &[u8]) -> Option<&[u8]> {
    let begin = memmem::find(block, b"-----BEGIN ")? + 11;
    let block = block.get(begin..)?;
    let start = memmem::find(block, b"-----")? + 5;
    let end = memmem::find(block, b"-----END ").unwrap_or(block.len());
    block.get(start..end)
}

/// Decodes the body's base64, without line ends in any spelling, quotes between lines, headers and checksum.
fn content(body: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::with_capacity(body.len());
    let mut line_start = 0;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'\\' => {
                // `\n` in a string of a program; `\\n` where the string stands in another one.
                while body.get(at + 1) == Some(&b'\\') {
                    at += 1;
                }
                at += 1;
                line_start = digits.len();
            }
            b'\n' | b'\r' => line_start = digits.len(),
            // From the end of one string to the beginning of the next.
            b'"' | b'\'' => {
                let rest = body.get(at + 1..)?;
                at +=
                    rest.iter().position(|&next| next == byte).map_or(rest.len(), |next| next + 1);
            }
            // A header such as `Proc-Type: 4,ENCRYPTED` goes to the end of its line.
            b':' => {
                digits.truncate(line_start);
                let rest = body.get(at..)?;
                at += rest
                    .iter()
                    .position(|&next| matches!(next, b'\n' | b'\\'))
                    .unwrap_or(rest.len());
                continue;
            }
            // The checksum of PGP's armour stands behind the content on a line of its own.
            b'=' if digits.len() == line_start && !digits.is_empty() => break,
            b' ' | b'\t' | b',' => {}
            _ => digits.push(byte),
        }
        at += 1;
    }
    decode(&digits)
}

/// Tells whether bytes are one DER sequence, with nothing behind it.
fn is_der_sequence(bytes: &[u8]) -> bool {
    let (len, head) = match bytes {
        [0x30, short @ 0..=0x7f, ..] => (usize::from(*short), 2),
        [0x30, 0x81, one, ..] => (usize::from(*one), 3),
        [0x30, 0x82, one, two, ..] => (usize::from(*one) << 8 | usize::from(*two), 4),
        _ => return false,
    };
    len + head == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;

    /// A sequence of 64 bytes, which is no key.
    fn lines() -> Vec<String> {
        let mut der = vec![0x30, 64];
        der.extend(0..64);
        let text = STANDARD.encode(der);
        text.as_bytes().chunks(40).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    fn block(separator: &str) -> String {
        let label = "PRIVATE KEY-----";
        format!(
            "-----BEGIN {label}{separator}{}{separator}-----END {label}",
            lines().join(separator)
        )
    }

    #[test]
    fn the_content_is_der_of_just_its_length() {
        for separator in ["\n", "\r\n", "\\n", "\\\\n", "\\n\" +\n  \"", "\", \"", "\n    "] {
            assert_eq!(pem(block(separator).as_bytes()), Verdict::Valid, "{separator:?}");
        }
    }

    #[test]
    fn headers_of_a_legacy_block_are_no_part_of_the_content() {
        let label = "RSA PRIVATE KEY-----";
        let head = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00ff\n";
        let block = format!("-----BEGIN {label}\n{head}\n{}\n-----END {label}", lines().join("\n"));
        assert_eq!(pem(block.as_bytes()), Verdict::Valid);
    }

    #[test]
    fn what_does_not_decode_or_is_too_short_is_no_key() {
        for body in ["...", "key goes here", "AAAA", ""] {
            let label = "PRIVATE KEY-----";
            let block = format!("-----BEGIN {label}\n{body}\n-----END {label}");
            assert_eq!(pem(block.as_bytes()), Verdict::Invalid, "{body}");
        }
    }

    #[test]
    fn a_block_in_base64_is_opened() {
        assert_eq!(wrapped(STANDARD.encode(block("\n")).as_bytes()), Verdict::Valid);
        assert_eq!(
            wrapped(STANDARD.encode("-----BEGIN CERTIFICATE-----").as_bytes()),
            Verdict::Invalid
        );
    }
}
