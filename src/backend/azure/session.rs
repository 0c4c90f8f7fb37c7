//! The token, and who gets the next one: whoever comes first does, and all others wait for the same.
//!
//! A token is replaced once two thirds of its life are over, by one of those who use it, while the others go on
//! with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::backend::{BackendError, Deadline, Result};
use crate::system::SecretBytes;

/// One login after the other to one vault.
#[derive(Default)]
pub(super) struct Session {
    held: RwLock<Option<Arc<Token>>>,
    /// Held by whoever is on the way for a token; inside is why the last one came back without.
    flight: Mutex<Option<BackendError>>,
    /// How many came back.
    landed: AtomicU64,
}

/// Gets a token.
pub(super) type LogIn<'a> = dyn Fn() -> Result<Token> + 'a;

impl Session {
    /// Returns a token that is not known to be of no use.
    pub(super) fn token(&self, log_in: &LogIn<'_>, deadline: Deadline) -> Result<Arc<Token>> {
        let held = self.held.read().clone();
        match held.filter(|token| !token.is_over()) {
            Some(token) if token.is_due() => Ok(self.renewed(log_in, token)),
            Some(token) => Ok(token),
            None => self.another(None, log_in, deadline),
        }
    }

    /// Returns another token than this one, which is of no use any more.
    pub(super) fn another(
        &self,
        dead: Option<&Arc<Token>>,
        log_in: &LogIn<'_>,
        deadline: Deadline,
    ) -> Result<Arc<Token>> {
        let landed = self.landed.load(Ordering::Acquire);
        let mut flight =
            self.flight.try_lock_for(deadline.left()?).ok_or(BackendError::TimedOut)?;
        let held = self.held.read().clone().filter(|token| !token.is_over());
        if let Some(token) = held.filter(|held| !dead.is_some_and(|dead| Arc::ptr_eq(held, dead))) {
            return Ok(token);
        }
        // Whoever was on the way meanwhile has asked for all who waited. Only their time is their own.
        if self.landed.load(Ordering::Acquire) != landed
            && let Some(error) = flight.clone().filter(|error| *error != BackendError::TimedOut)
        {
            return Err(error);
        }
        let outcome = log_in().map(Arc::new);
        *self.held.write() = outcome.as_ref().ok().map(Arc::clone);
        *flight = outcome.as_ref().err().cloned();
        self.landed.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// Returns another token before this one ends, unless somebody else is on the way for it. As long as this
    /// one lives, a failure hurts nobody.
    fn renewed(&self, log_in: &LogIn<'_>, token: Arc<Token>) -> Arc<Token> {
        let Some(_flight) = self.flight.try_lock() else { return token };
        let next = log_in().or_else(|error| {
            tracing::warn!(%error, "the token for a key vault is not renewed");
            token.put_off()
        });
        let Ok(next) = next.map(Arc::new) else { return token };
        *self.held.write() = Some(Arc::clone(&next));
        next
    }
}

/// What opens a vault for a while.
pub(super) struct Token {
    pub(super) secret: SecretBytes,
    due: Instant,
    end: Instant,
}

impl Token {
    /// A token that lives for so long from now.
    pub(super) fn new(secret: SecretBytes, length: Duration) -> Self {
        let now = Instant::now();
        let after = |time| now.checked_add(time).unwrap_or(now);
        Self { secret, due: after(length * 2 / 3), end: after(length) }
    }

    /// Returns how long it will live.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Returns the same, to be replaced once half of what is left is over: not tried by each who uses it.
    fn put_off(&self) -> Result<Self> {
        let secret = SecretBytes::copy_from(self.secret.expose())?;
        let now = Instant::now();
        let due = now.checked_add(self.left() / 2).unwrap_or(self.end);
        Ok(Self { secret, due, end: self.end })
    }
}
