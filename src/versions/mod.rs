//! The life cycle of a secret's versions, pure.
#![forbid(unsafe_code)]
