//! What is wrong with a file that a person wrote, and where.

/// A mistake, with its place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

impl TextError {
    /// Returns the mistake at a byte of the text.
    pub fn at(text: &str, offset: usize, message: &str) -> Self {
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column, message: message.to_owned() }
    }
}
