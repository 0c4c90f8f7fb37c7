//! Services that keep secrets: the transport to them, and one suite for all clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file"
)]

#[path = "backend/http.rs"]
mod http;
#[path = "backend/service.rs"]
mod service;
