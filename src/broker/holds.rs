//! Readers who wait while a secret's target and its store may disagree.
//!
//! A target that knows one credential at a time accepts the new one a moment before it is switched
//! here. Whoever read in between would be locked out twice; so for that moment they are told to wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Broker, BrokerError, Result};
use crate::model::{SecretId, SecretName};

/// The secrets that are held.
#[derive(Default)]
pub(super) struct Holds {
    /// How many there are, so that a read asks for no lock where there are none.
    count: AtomicUsize,
    held: Mutex<HashMap<SecretId, (SecretName, Instant)>>,
    freed: Condvar,
}

/// Readers of one secret wait until this is dropped.
#[must_use = "readers wait only while it lives"]
pub struct Hold {
    holds: Arc<Holds>,
    id: SecretId,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Broker {
    /// Has reads of a secret's current version wait until the returned hold is dropped, but no longer
    /// than `at_most`.
    pub fn hold_readers(&self, id: SecretId, name: &SecretName, at_most: Duration) -> Hold {
        let holds = &self.inner.holds;
        let mut held = holds.held.lock();
        held.insert(id, (name.clone(), Instant::now() + at_most));
        holds.count.store(held.len(), Ordering::SeqCst);
        Hold { holds: Arc::clone(holds), id }
    }

    /// Waits until a secret's readers are not held any more. `Changing` when it takes longer than
    /// `at_most`.
    pub fn wait_unheld(&self, name: &SecretName, at_most: Duration) -> Result<()> {
        let holds = &self.inner.holds;
        let give_up = Instant::now() + at_most;
        let mut held = holds.held.lock();
        loop {
            let now = Instant::now();
            let until = held.values().filter(|(of, _)| of == name).map(|(_, until)| *until).max();
            let Some(until) = until.filter(|until| *until > now) else { return Ok(()) };
            if now >= give_up {
                return Err(BrokerError::Changing(name.clone()));
            }
            holds.freed.wait_until(&mut held, until.min(give_up));
        }
    }
}

impl Holds {
    /// Fails with `Changing` where the readers of a secret are held.
    pub(super) fn check(&self, id: SecretId, name: &SecretName) -> Result<()> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        match self.held.lock().get(&id) {
            Some((_, until)) if *until > Instant::now() => Err(BrokerError::Changing(name.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.holds.held.lock();
        held.remove(&self.id);
        self.holds.count.store(held.len(), Ordering::SeqCst);
        self.holds.freed.notify_all();
    }
}
