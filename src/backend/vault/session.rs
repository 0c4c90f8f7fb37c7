//! The token: had by a login, and renewed once two thirds of its life are over.
//!
//! When it cannot be renewed, or its life has become short, there is another login.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Wire;
use super::login;
use super::settings::AuthSettings;
use crate::backend::held::{Held, Lasting};
use crate::backend::{Deadline, Result};
use crate::system::SecretBytes;

/// One login after the other to one Vault.
pub(super) struct Session {
    auth: AuthSettings,
    /// That of `VAULT_TOKEN`.
    given: Option<SecretBytes>,
    held: Held<Token>,
}

impl Session {
    pub(super) fn new(auth: AuthSettings, given: Option<SecretBytes>) -> Self {
        Self { auth, given, held: Held::new() }
    }

    /// Returns a token that is not known to be of no use.
    pub(super) fn token(&self, wire: &Wire, deadline: Deadline) -> Result<Arc<Token>> {
        self.held.current(&|deadline| self.next(wire, deadline), deadline)
    }

    /// Returns another token than this one, which is of no use any more.
    pub(super) fn another(
        &self,
        wire: &Wire,
        dead: &Arc<Token>,
        deadline: Deadline,
    ) -> Result<Arc<Token>> {
        self.held.another(dead, &|deadline| self.log_in(wire, deadline), deadline)
    }

    /// Returns the token that is held with a longer life, or one of another login.
    fn next(&self, wire: &Wire, deadline: Deadline) -> Result<Token> {
        if let Some(held) = self.held.usable()
            && let Ok(renewed) = login::renew(&held, wire, deadline)
            && renewed.lives_as_long_as(&held)
        {
            return Ok(renewed);
        }
        self.log_in(wire, deadline)
    }

    fn log_in(&self, wire: &Wire, deadline: Deadline) -> Result<Token> {
        login::log_in(&self.auth, self.given.as_ref(), wire, deadline)
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

    /// Its last renewal was no shorter than half a life: the end that no renewal moves is not near.
    fn lives_as_long_as(&self, before: &Self) -> bool {
        match (self.life, before.life) {
            (Some(life), Some(before)) => life.length * 2 >= before.length,
            (None, _) | (_, None) => true,
        }
    }
}

impl Lasting for Token {
    fn due(&self) -> Option<Instant> {
        self.life.map(|life| life.due)
    }

    fn end(&self) -> Option<Instant> {
        self.life.map(|life| life.end)
    }
}
