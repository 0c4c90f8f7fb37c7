//! Who may do what: pure decisions over a parsed policy.
#![forbid(unsafe_code)]

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

/// Skeleton.
#[derive(Debug)]
pub struct Policy;
