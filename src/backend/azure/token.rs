//! What opens a vault for a while.

use std::time::{Duration, Instant};

use crate::backend::held::Lasting;
use crate::system::SecretBytes;

/// A token of Entra's, or of a machine's metadata service.
pub(super) struct Token {
    pub(super) secret: SecretBytes,
    due: Instant,
    end: Instant,
}

impl Token {
    /// A token that lives for so long from now. It is had anew once two thirds of that are over.
    pub(super) fn new(secret: SecretBytes, life: Duration) -> Self {
        let now = Instant::now();
        let after = |time| now.checked_add(time).unwrap_or(now);
        Self { secret, due: after(life / 3 * 2), end: after(life) }
    }

    /// Returns how long it will live.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

impl Lasting for Token {
    fn due(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn end(&self) -> Option<Instant> {
        Some(self.end)
    }
}
