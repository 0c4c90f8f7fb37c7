//! The composition root: joins the parts and runs them.
#![forbid(unsafe_code)]
