//! Where the root key comes from.
#![forbid(unsafe_code)]
