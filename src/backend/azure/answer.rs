//! What an answer of Key Vault means: its status as an error, or its JSON.
//!
//! Azure's own words are looked at and never repeated: they may quote what was asked.

use std::borrow::Cow;

use serde::Deserialize;

use crate::backend::http::Answer;
use crate::backend::{BackendError, Result};

/// Returns the answer if it is a success, and else what the status means.
pub(super) fn succeeded(answer: Answer) -> Result<Answer> {
    match answer.status {
        200..=299 => Ok(answer),
        400 | 413 => Err(BackendError::Invalid("the service refuses it as malformed".into())),
        401 => Err(BackendError::Unauthenticated("the token is refused".into())),
        403 if is(&answer, "SecretDisabled") || is(&answer, "KeyDisabled") => Err(disabled()),
        403 if is(&answer, "ForbiddenByFirewall") => {
            Err(BackendError::Denied("its firewall does not let this address in".into()))
        }
        403 => Err(BackendError::Denied("its roles or policies do not allow it".into())),
        404 if code(&answer).is_some() => Err(BackendError::NotFound),
        404 => Err(BackendError::Failed("nothing of Key Vault answers there".into())),
        409 if is(&answer, "ObjectIsDeletedButRecoverable") => Err(BackendError::Invalid(
            "there is a deleted one of that name, to be restored or destroyed first".into(),
        )),
        409 => Err(BackendError::Failed("it is being deleted or restored".into())),
        status => Err(BackendError::Failed(format!("status {status}"))),
    }
}

/// What a version says that somebody has switched off.
pub(super) fn disabled() -> BackendError {
    BackendError::Denied("it is disabled".into())
}

/// Parses an answer. What is borrowed from it stays in its locked memory.
pub(super) fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T> {
    // The error is dropped: it might quote a value.
    serde_json::from_slice(answer.body.expose()).map_err(|_| strange())
}

pub(super) fn strange() -> BackendError {
    BackendError::Failed("its answer cannot be understood".into())
}

/// An error, as Key Vault says it.
#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    error: Outer<'a>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    innererror: Option<Inner<'a>>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// Returns the code of an answer that is an error of Key Vault's own.
fn code(answer: &Answer) -> Option<String> {
    parse::<Refusal<'_>>(answer).ok()?.error.code.map(Cow::into_owned)
}

/// Tells whether the answer, which is an error, has this code inside.
fn is(answer: &Answer, code: &str) -> bool {
    let inner = parse::<Refusal<'_>>(answer).ok().and_then(|refusal| refusal.error.innererror);
    inner.is_some_and(|inner| inner.code == code)
}
