//! What placeholders of a template are looked up in.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::broker::{Broker, BrokerError};
use crate::inject::{Lookup, relative, variable_of};
use crate::model::{Caller, Level, SecretName};

/// The secrets that a caller may know of, listed when the first placeholder asks for one by its variable.
pub(super) struct Known {
    broker: Broker,
    caller: Caller,
    dir: Option<SecretName>,
    listed: Mutex<Option<BTreeMap<String, Vec<SecretName>>>>,
    failure: Mutex<Option<BrokerError>>,
}

impl Known {
    pub(super) fn new(broker: Broker, caller: Caller, dir: Option<SecretName>) -> Self {
        Self { broker, caller, dir, listed: Mutex::default(), failure: Mutex::default() }
    }

    /// Returns why the secrets could not be listed, if that is so.
    pub(super) fn failure(&self) -> Option<BrokerError> {
        self.failure.lock().take()
    }

    /// Returns the answer to a variable that is no secret's which the caller may know of. It may be that
    /// of one which it must not know of, so the answer depends on the policy alone: that is asked, on
    /// record, for the name that the variable is most likely made of.
    pub(super) fn unknown(&self, variable: &str) -> BrokerError {
        let leaf = variable.to_ascii_lowercase().replace('_', "-");
        let name = match SecretName::join(self.dir.as_ref(), &leaf) {
            Ok(name) => name,
            Err(error) => return error.into(),
        };
        let refused = self.broker.check(&self.caller, Level::Read, &name);
        refused.err().unwrap_or(BrokerError::NotFound(name))
    }

    fn list(&self) -> BTreeMap<String, Vec<SecretName>> {
        let dir = self.dir.as_ref();
        let mut variables = BTreeMap::<String, Vec<SecretName>>::new();
        match self.broker.known(&self.caller, dir) {
            Ok(known) => known.into_iter().for_each(|one| {
                let own = one.injection.env_name.as_ref();
                let variable = variable_of(own, relative(&one.name, dir));
                variables.entry(variable).or_default().push(one.name);
            }),
            Err(error) => *self.failure.lock() = Some(error),
        }
        variables
    }
}

impl Lookup for Known {
    fn named(&self, variable: &str) -> Vec<SecretName> {
        let mut listed = self.listed.lock();
        let listed = listed.get_or_insert_with(|| self.list());
        listed.get(variable).cloned().unwrap_or_default()
    }

    /// The policy says what reading it comes to, also for a name that is not there.
    fn exists(&self, _: &SecretName) -> bool {
        true
    }
}

/// Has every secret that is asked for, to find out whether a text is a template.
pub(super) struct Anything;

impl Lookup for Anything {
    fn named(&self, variable: &str) -> Vec<SecretName> {
        variable.parse().into_iter().collect()
    }

    fn exists(&self, _: &SecretName) -> bool {
        true
    }
}
