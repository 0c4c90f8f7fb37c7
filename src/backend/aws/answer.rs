//! What an answer of AWS means: its error's name as one of ours, or its JSON.
//!
//! Services answer in JSON, and what stands before them in XML. Their words are looked at and never repeated.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::backend::http::Answer;
use crate::backend::{BackendError, Result};
use crate::inject::document::Content;
use crate::inject::json;
use crate::system::SecretBytes;

/// Returns the answer if it is a success, and else what its error means.
pub(super) fn succeeded(answer: Answer) -> Result<Answer> {
    if (200..300).contains(&answer.status) { Ok(answer) } else { Err(failure(&answer)) }
}

fn failure(answer: &Answer) -> BackendError {
    let text = std::str::from_utf8(answer.body.expose()).unwrap_or_default();
    match name(answer, text) {
        "ResourceNotFoundException" | "NotFoundException" => BackendError::NotFound,
        // A secret that is deleted, and could be brought back.
        "InvalidRequestException" if text.contains("deleted") || text.contains("deletion") => {
            BackendError::NotFound
        }
        "ResourceExistsException" => BackendError::Conflict,
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            BackendError::Denied("no policy there allows it".into())
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired"
            if text.contains("expired") || text.contains("not yet current") =>
        {
            unauthenticated("the clocks differ too much")
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            unauthenticated("the secret key is not the one of its name")
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            unauthenticated("it has expired")
        }
        "AuthFailure"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidIdentityToken"
        | "InvalidToken"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "UnrecognizedClientException" => unauthenticated("the key is not known"),
        "RequestLimitExceeded"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => {
            BackendError::Throttled { retry_after: retry_after(answer) }
        }
        "DecryptionFailure" | "EncryptionFailure" => {
            BackendError::Failed("its key service does not open the secret".into())
        }
        "DisabledException" | "KMSInvalidStateException" => {
            BackendError::Failed("the key is not enabled".into())
        }
        "IncorrectKeyException" | "InvalidCiphertextException" => {
            BackendError::Invalid("it was not sealed by this key in this context".into())
        }
        "InvalidNextTokenException"
        | "InvalidParameterException"
        | "InvalidParameterValue"
        | "InvalidRequestException"
        | "LimitExceededException"
        | "PreconditionNotMetException"
        | "ValidationException" => BackendError::Invalid("the service refuses it".into()),
        _ => BackendError::Failed(format!("status {}", answer.status)),
    }
}

/// Returns the name of an error: from its header, its JSON or its XML.
fn name<'a>(answer: &'a Answer, text: &'a str) -> &'a str {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "__type")]
        name: &'a str,
    }
    let typed = || serde_json::from_str::<Typed<'_>>(text).ok().map(|typed| typed.name);
    let found = answer.header("x-amzn-errortype").or_else(typed);
    let found = found.or_else(|| between(text, "Code")).unwrap_or_default();
    // `com.amazonaws...#NAME`, or `NAME:http://...`
    let found = found.rsplit('#').next().unwrap_or(found);
    found.split(':').next().unwrap_or(found).trim()
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns what stands in the first XML element of a name.
pub(super) fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inside, _)| inside)
}

/// Parses an answer. What is borrowed from it stays in its locked memory.
pub(super) fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T> {
    // The error is dropped: it might quote a value.
    serde_json::from_slice(answer.body.expose()).map_err(|_| strange())
}

/// Decodes a JSON string in locked memory.
pub(super) fn text(raw: &RawValue) -> Result<SecretBytes> {
    let node = json::parse(raw.get()).map_err(|_| strange())?;
    if let Content::Text(text) = &node.content {
        return Ok(SecretBytes::copy_from(text.expose())?);
    }
    Err(strange())
}

pub(super) fn strange() -> BackendError {
    BackendError::Failed("its answer cannot be understood".into())
}

pub(super) fn unauthenticated(what: &str) -> BackendError {
    BackendError::Unauthenticated(what.to_owned())
}
