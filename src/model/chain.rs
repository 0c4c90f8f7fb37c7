//! An error with its causes, in one line.

use std::error::Error;

/// Joins an error's message and those of its sources by colons; a source that its parent already
/// quotes is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let message = source.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        next = source.source();
    }
    text
}
