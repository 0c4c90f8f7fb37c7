//! Who is calling.
#![forbid(unsafe_code)]
