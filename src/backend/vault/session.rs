//! The token, and who gets the next one: whoever comes first does, and all others wait for the same.
//!
//! A token is renewed once two thirds of its life are over, by one of those who use it, while the others go on
//! with it. When it cannot be renewed, or its life has become short, there is another login.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::client::Wire;
use super::login;
use super::settings::AuthSettings;
use crate::backend::{BackendError, Deadline, Result};
use crate::system::SecretBytes;

/// One login after the other to one Vault.
pub(super) struct Session {
    auth: AuthSettings,
    /// That of `VAULT_TOKEN`.
    given: Option<SecretBytes>,
    held: RwLock<Option<Arc<Token>>>,
    /// Held by whoever is on the way for a token; inside is why the last one came back without.
    flight: Mutex<Option<BackendError>>,
    /// How many came back.
    landed: AtomicU64,
}

impl Session {
    pub(super) fn new(auth: AuthSettings, given: Option<SecretBytes>) -> Self {
        Self {
            auth,
            given,
            held: RwLock::default(),
            flight: Mutex::default(),
            landed: AtomicU64::new(0),
        }
    }

    /// Returns a token that is not known to be of no use.
    pub(super) fn token(&self, wire: &Wire, deadline: Deadline) -> Result<Arc<Token>> {
        let held = self.held.read().clone();
        match held.filter(|token| !token.is_over()) {
            Some(token) if token.is_due() => Ok(self.renewed(wire, token, deadline)),
            Some(token) => Ok(token),
            None => self.log_in(wire, None, deadline),
        }
    }

    /// Returns another token than this one, which is of no use any more.
    pub(super) fn another(
        &self,
        wire: &Wire,
        dead: &Arc<Token>,
        deadline: Deadline,
    ) -> Result<Arc<Token>> {
        self.log_in(wire, Some(dead), deadline)
    }

    fn log_in(
        &self,
        wire: &Wire,
        dead: Option<&Arc<Token>>,
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
        let outcome = login::log_in(&self.auth, self.given.as_ref(), wire, deadline).map(Arc::new);
        *self.held.write() = outcome.as_ref().ok().map(Arc::clone);
        *flight = outcome.as_ref().err().cloned();
        self.landed.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// Returns the same token with a longer life or another one, unless somebody else is on the way for it.
    /// As long as this one lives, a failure hurts nobody.
    fn renewed(&self, wire: &Wire, token: Arc<Token>, deadline: Deadline) -> Arc<Token> {
        let Some(_flight) = self.flight.try_lock() else { return token };
        let renewed = match login::renew(&token, wire, deadline) {
            Ok(renewed) if renewed.lives_as_long_as(&token) => Ok(renewed),
            Ok(_) | Err(_) => login::log_in(&self.auth, self.given.as_ref(), wire, deadline),
        };
        let next = renewed.or_else(|error| {
            tracing::warn!(%error, "the token for a Vault is not renewed");
            token.put_off()
        });
        let Ok(next) = next.map(Arc::new) else { return token };
        *self.held.write() = Some(Arc::clone(&next));
        next
    }
}

/// A token of Vault's.
pub(super) struct Token {
    pub(super) secret: SecretBytes,
    /// It may look at itself, so that one that may not is dead.
    pub(super) looks: bool,
    pub(super) renewable: bool,
    /// `None`: it lives for ever.
    pub(super) life: Option<Life>,
}

#[derive(Clone, Copy)]
pub(super) struct Life {
    length: Duration,
    due: Instant,
    end: Instant,
}

impl Token {
    /// A token that lives for so long from now; zero is for ever.
    pub(super) fn new(secret: SecretBytes, length: Duration) -> Self {
        let now = Instant::now();
        let life = (!length.is_zero()).then(|| Life {
            length,
            due: now.checked_add(length * 2 / 3).unwrap_or(now),
            end: now.checked_add(length).unwrap_or(now),
        });
        Self { secret, looks: false, renewable: false, life }
    }

    /// Returns how long it will live.
    pub(super) fn left(&self) -> Option<Duration> {
        self.life.map(|life| life.end.saturating_duration_since(Instant::now()))
    }

    fn is_due(&self) -> bool {
        self.life.is_some_and(|life| Instant::now() >= life.due)
    }

    fn is_over(&self) -> bool {
        self.life.is_some_and(|life| Instant::now() >= life.end)
    }

    /// Its last renewal was no shorter than half a life: the end that no renewal moves is not near.
    fn lives_as_long_as(&self, before: &Self) -> bool {
        match (self.life, before.life) {
            (Some(life), Some(before)) => life.length * 2 >= before.length,
            (None, _) | (_, None) => true,
        }
    }

    /// Returns the same, to be renewed once half of what is left is over: not by each who uses it.
    fn put_off(&self) -> Result<Self> {
        let secret = SecretBytes::copy_from(self.secret.expose())?;
        let life = self.life.map(|life| {
            let now = Instant::now();
            let pause = life.end.saturating_duration_since(now) / 2;
            Life { due: now.checked_add(pause).unwrap_or(life.end), ..life }
        });
        Ok(Self { secret, life, looks: self.looks, renewable: self.renewable })
    }
}
