//! Services that keep secrets: the transport to them, and one suite for all clients.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file"
)]

#[path = "backend/aws.rs"]
mod aws;
#[path = "backend/aws_credentials.rs"]
mod aws_credentials;
#[path = "backend/aws_faults.rs"]
mod aws_faults;
#[path = "backend/aws_kms.rs"]
mod aws_kms;
#[path = "backend/azure.rs"]
mod azure;
#[path = "backend/azure_faults.rs"]
mod azure_faults;
#[path = "backend/azure_key.rs"]
mod azure_key;
#[path = "backend/azure_sdk.rs"]
mod azure_sdk;
#[path = "backend/check.rs"]
mod check;
mod common;
#[path = "backend/conformance.rs"]
mod conformance;
#[path = "backend/faults.rs"]
mod faults;
#[path = "backend/http.rs"]
mod http;
#[path = "backend/keyvault/mod.rs"]
mod keyvault;
#[path = "backend/refusals.rs"]
mod refusals;
mod servers;
#[path = "backend/service.rs"]
mod service;
mod site;
#[path = "backend/transit.rs"]
mod transit;
#[path = "backend/vault.rs"]
mod vault;
