//! What a template can do to a value before it stands in the text.

use crate::inject::format::push_sh;
use crate::inject::{base64, json, push, yaml};
use crate::system::{MemoryError, SecretBuffer, SecretBytes};

/// A filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filter {
    Base64,
    Json,
    PemCertificate,
    PemChain,
    PemKey,
    Shell,
    Trim,
    Url,
    Yaml,
}

const NO_MEMORY: &str = "there is no memory for it";
const NO_TEXT: &str = "the value is not UTF-8";

impl Filter {
    pub(super) const ALL: [Self; 9] = [
        Self::Base64,
        Self::Json,
        Self::PemCertificate,
        Self::PemChain,
        Self::PemKey,
        Self::Shell,
        Self::Trim,
        Self::Url,
        Self::Yaml,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base64 => "b64",
            Self::Json => "json",
            Self::PemCertificate => "pem_cert",
            Self::PemChain => "pem_chain",
            Self::PemKey => "pem_key",
            Self::Shell => "shell",
            Self::Trim => "trim",
            Self::Url => "url",
            Self::Yaml => "yaml",
        }
    }

    /// Returns what comes out; the reason why nothing does never shows the value.
    pub(super) fn apply(self, value: &SecretBytes) -> Result<SecretBytes, &'static str> {
        let bytes = value.expose();
        let mut out = SecretBuffer::new();
        let pushed = match self {
            Self::Base64 => return base64::encode(bytes).map_err(no_memory),
            Self::Json => json::push_string(&mut out, text(bytes)?),
            Self::PemCertificate => {
                return pem(bytes, |label| label == "CERTIFICATE", 0, 1);
            }
            Self::PemChain => {
                return pem(bytes, |label| label == "CERTIFICATE", 1, usize::MAX);
            }
            Self::PemKey => return pem(bytes, |label| label.ends_with("PRIVATE KEY"), 0, 1),
            Self::Shell if bytes.contains(&0) => return Err("no shell holds a NUL byte"),
            Self::Shell => push_sh(&mut out, bytes),
            Self::Trim => push(&mut out, bytes.trim_ascii()),
            Self::Url => push_url(&mut out, bytes),
            Self::Yaml => yaml::push_quoted(&mut out, text(bytes)?),
        };
        pushed.map_err(no_memory)?;
        Ok(out.into_bytes())
    }
}

fn no_memory(_: MemoryError) -> &'static str {
    NO_MEMORY
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| NO_TEXT)
}

/// Writes everything but RFC 3986's unreserved characters as `%XX`.
fn push_url(out: &mut SecretBuffer, bytes: &[u8]) -> Result<(), MemoryError> {
    bytes.iter().try_for_each(|&byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return push(out, &[byte]);
        }
        let digit = |nibble| json::hex(nibble).to_ascii_uppercase();
        push(out, &[b'%', digit(byte >> 4), digit(byte & 15)])
    })
}

/// Returns PEM blocks whose label fits: `take` of them behind the first `skip`.
fn pem(
    bytes: &[u8],
    fits: fn(&str) -> bool,
    skip: usize,
    take: usize,
) -> Result<SecretBytes, &'static str> {
    let text = text(bytes)?;
    let mut out = SecretBuffer::new();
    let mut found = 0;
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("-----BEGIN ") {
        let (label, _) = block.split_once("-----").ok_or("a PEM block has no end")?;
        let end = format!("-----END {label}-----");
        let at = block.find(&end).ok_or("a PEM block has no end")? + end.len();
        if fits(label) {
            if found >= skip && found - skip < take {
                push(&mut out, b"-----BEGIN ").map_err(no_memory)?;
                push(&mut out, block.get(..at).unwrap_or_default().as_bytes())
                    .map_err(no_memory)?;
                push(&mut out, b"\n").map_err(no_memory)?;
            }
            found += 1;
        }
        rest = block.get(at..).unwrap_or_default();
    }
    // A chain may have no more than its first certificate; a part that is asked for must be there.
    if found == 0 || (found <= skip && take == 1) {
        return Err("the value has no such PEM block");
    }
    Ok(out.into_bytes())
}
