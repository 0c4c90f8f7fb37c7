//! What an answer of Vault means: its status as an error, or its JSON.
//!
//! Vault's own words are looked at and never repeated: they may quote what was asked.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::backend::http::Answer;
use crate::backend::{BackendError, Result};

/// Returns the answer if it is a success, and else what the status means.
pub(super) fn succeeded(answer: Answer) -> Result<Answer> {
    match answer.status {
        200..=299 => Ok(answer),
        400 if says(&answer, "check-and-set") => Err(BackendError::Conflict),
        400 | 413 => Err(BackendError::Invalid("the service refuses it as malformed".into())),
        401 | 403 => Err(BackendError::Denied("its policies allow it to no such token".into())),
        404 if is_of_the_engine(&answer) => Err(BackendError::NotFound),
        404 => {
            Err(BackendError::Failed("nothing answers at this path: is the mount right?".into()))
        }
        405 => Err(BackendError::Unsupported("this engine".into())),
        503 => Err(BackendError::Failed("it is sealed, or no active node".into())),
        status => Err(BackendError::Failed(format!("status {status}"))),
    }
}

/// Tells whether it is the engine that has no such secret, and not somebody before it who knows no such path.
fn is_of_the_engine(answer: &Answer) -> bool {
    let is_its_own = answer.body.is_empty() || parse::<IgnoredAny>(answer).is_ok();
    is_its_own && !says(answer, "no handler for route")
}

/// Tells whether the answer, which is an error, has these words in it.
pub(super) fn says(answer: &Answer, words: &str) -> bool {
    answer.body.expose().windows(words.len()).any(|window| window == words.as_bytes())
}

/// Parses an answer. What is borrowed from it stays in its locked memory.
pub(super) fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T> {
    // The error is dropped: it might quote a value.
    serde_json::from_slice(answer.body.expose()).map_err(|_| strange())
}

/// What all answers have their content in.
#[derive(Deserialize)]
pub(super) struct Data<T> {
    pub(super) data: T,
}

pub(super) fn strange() -> BackendError {
    BackendError::Failed("its answer cannot be understood".into())
}
