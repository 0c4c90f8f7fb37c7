//! Calls of one JSON service of AWS: signed, and once more with another credential if that one is refused.

use super::answer::succeeded;
use super::credential::Credential;
use super::settings::AwsSettings;
use super::sources::Sources;
use super::wire::{Call, Wire};
use crate::backend::held::{Held, Lasting};
use crate::backend::http::Answer;
use crate::backend::{BackendError, Deadline, Result, Variables};

/// One service, and who we are there.
pub(super) struct Client {
    wire: Wire,
    /// What stands before an action's name.
    target: &'static str,
    sources: Sources,
    held: Held<Credential>,
}

/// A service that is called in this way.
#[derive(Clone, Copy)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) target: &'static str,
}

impl Client {
    /// Asks nothing yet. `at` stands for the region's own endpoint.
    pub(super) fn new(
        settings: &AwsSettings,
        (service, at): (Service, Option<&str>),
        variables: &Variables<'_>,
    ) -> Result<Self> {
        let region = settings.check(variables)?;
        Ok(Self {
            wire: Wire::new(service.name, &region, at, &settings.connection)?,
            target: service.target,
            sources: Sources::new(settings, &region, variables)?,
            held: Held::new(),
        })
    }

    /// Asks, and returns the answer if it is a success.
    pub(super) fn ask(&self, action: &str, body: &[u8], deadline: Deadline) -> Result<Answer> {
        let fetch = |deadline| self.sources.fetch(deadline);
        let credential = self.held.current(&fetch, deadline)?;
        let refused = match self.send(action, body, Some(&credential), deadline) {
            Err(refused @ BackendError::Unauthenticated(_)) => refused,
            other => return other,
        };
        let another = self.held.another(&credential, &fetch, deadline)?;
        if another.is(&credential) {
            return Err(refused);
        }
        self.send(action, body, Some(&another), deadline)
    }

    /// Asks without being anybody, and returns the answer whatever it is.
    pub(super) fn ask_unknown(&self, action: &str, deadline: Deadline) -> Result<Answer> {
        self.exchange(action, b"{}", None, deadline)
    }

    /// Returns what calls are signed with now.
    pub(super) fn credential(&self, deadline: Deadline) -> Result<std::sync::Arc<Credential>> {
        self.held.current(&|deadline| self.sources.fetch(deadline), deadline)
    }

    fn send(
        &self,
        action: &str,
        body: &[u8],
        credential: Option<&Credential>,
        deadline: Deadline,
    ) -> Result<Answer> {
        succeeded(self.exchange(action, body, credential, deadline)?)
    }

    fn exchange(
        &self,
        action: &str,
        body: &[u8],
        credential: Option<&Credential>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let target = format!("{}.{action}", self.target);
        let call = Call { kind: "application/x-amz-json-1.1", target: Some(&target), body };
        self.wire.send(call, credential, deadline)
    }
}

/// Returns for how long a credential is good, for people.
pub(super) fn life(credential: &Credential) -> String {
    let left = credential.end().map(|end| end.saturating_duration_since(std::time::Instant::now()));
    let source = credential.source;
    left.map_or_else(
        || format!("by a key of {source}"),
        |left| format!("by a key of {source}, for {} s", left.as_secs()),
    )
}
