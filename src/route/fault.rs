//! What a service's failure is to the broker.

use std::sync::Arc;

use crate::backend::BackendError;
use crate::broker::{BrokerError, Fault, UpstreamError};

/// Says in the broker's words why a service has failed.
pub(super) fn of_service(backend: &Arc<str>, error: &BackendError) -> UpstreamError {
    let fault = match error {
        BackendError::Conflict => Fault::Conflict,
        BackendError::Denied(_) => Fault::Denied,
        BackendError::Failed(_) | BackendError::Throttled { .. } | BackendError::Unreachable(_) => {
            Fault::Unreachable
        }
        BackendError::Invalid(_) => Fault::Invalid,
        BackendError::NoName | BackendError::NotFound => Fault::NotFound,
        BackendError::TimedOut => Fault::TimedOut,
        BackendError::Unauthenticated(_) => Fault::Unaccepted,
        BackendError::Unsupported(_) => Fault::Unsupported,
    };
    UpstreamError { backend: Arc::clone(backend), fault, why: error.to_string() }
}

/// Says why what a service has answered is not kept here.
pub(super) fn of_store(backend: &Arc<str>, error: &BrokerError) -> UpstreamError {
    let why = format!("its answer cannot be kept: {error}");
    UpstreamError { backend: Arc::clone(backend), fault: Fault::Invalid, why }
}
