//! The keys and codes that bind each line to the ones before it. Pure: no I/O, no clock.
//!
//! A process draws a run id and derives from the audit key a *seed* for its first segment. A seed gives
//! the segment's first line key, its totals key and the next segment's seed, and is wiped. A line key
//! gives one code and the next line key, and is wiped. So whoever holds the audit key (from the root key)
//! can check any segment by itself, and whoever takes the daemon's memory can go forward only.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::line::{self, HexMac};
use crate::model::Seq;

/// Bytes of a code.
pub(super) const MAC_BYTES: usize = 32;

/// The code that stands before the log's first line.
pub(super) const NO_MAC: [u8; MAC_BYTES] = [0; MAC_BYTES];

/// The key of the audit log, derived from the root key; needed to open and to verify, never between.
pub struct AuditKey(Zeroizing<[u8; 32]>);

impl AuditKey {
    /// Takes over 32 bytes that serve for nothing else.
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

/// The end of the log at one moment: whoever knows it notices when the log is cut before it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Head {
    pub seq: Seq,
    pub mac: [u8; MAC_BYTES],
}

impl Head {
    /// The head of a log without lines.
    pub const EMPTY: Self = Self { seq: Seq(0), mac: NO_MAC };

    /// Returns the seq of the line that comes next.
    pub(super) fn next_seq(self) -> Seq {
        Seq(self.seq.0.saturating_add(1))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Identifies one process's run, in the first line of each of its segments.
pub(super) type RunId = [u8; 16];

/// The key of one line's code.
#[derive(Clone)]
pub(super) struct LineKey(Zeroizing<[u8; 32]>);

impl LineKey {
    /// Returns the code of a line without its `mac` field.
    fn mac(&self, body: &[u8]) -> [u8; MAC_BYTES] {
        code(&self.0, &[body])
    }

    /// Tells whether that is a line's code.
    pub(super) fn fits(&self, body: &[u8], mac: &HexMac) -> bool {
        line::hex(&self.mac(body)) == *mac
    }
}

/// The moving keys of one segment.
pub(super) struct Chain {
    pub(super) run: RunId,
    /// The segment's place in the run, from 0.
    pub(super) index: u32,
    line_key: LineKey,
    next_seed: Zeroizing<[u8; 32]>,
    totals_key: Zeroizing<[u8; 32]>,
}

impl Chain {
    /// Returns the keys at the start of a run's segment `index`; takes a hash for each before it.
    pub(super) fn at(key: &AuditKey, run: RunId, index: u32) -> Self {
        let mut seed = Zeroizing::new(code(&key.0, &[b"segment", &run]));
        for _ in 0..index {
            *seed = derive(b"roll", &seed);
        }
        Self::from_seed(run, index, &seed)
    }

    fn from_seed(run: RunId, index: u32, seed: &[u8; 32]) -> Self {
        Self {
            run,
            index,
            line_key: LineKey(Zeroizing::new(derive(b"chain", seed))),
            next_seed: Zeroizing::new(derive(b"roll", seed)),
            totals_key: Zeroizing::new(derive(b"totals", seed)),
        }
    }

    /// Returns the keys of the run's next segment. The caller drops these.
    pub(super) fn next_segment(&self) -> Self {
        Self::from_seed(self.run, self.index.wrapping_add(1), &self.next_seed)
    }

    /// Returns the code of a line without its `mac` field, which names the previous code itself.
    pub(super) fn mac(&self, body: &[u8]) -> [u8; MAC_BYTES] {
        self.line_key.mac(body)
    }

    /// Returns the key of the next code.
    pub(super) fn line_key(&self) -> &LineKey {
        &self.line_key
    }

    /// Moves to the next line's key and wipes this one.
    pub(super) fn advance(&mut self) {
        let mut next = derive(b"evolve", &self.line_key.0);
        self.line_key.0.copy_from_slice(&next);
        next.zeroize();
    }

    /// Returns the same keys once more, for a verifier that looks ahead.
    pub(super) fn copy_for_search(&self) -> Self {
        Self {
            run: self.run,
            index: self.index,
            line_key: self.line_key.clone(),
            next_seed: self.next_seed.clone(),
            totals_key: self.totals_key.clone(),
        }
    }

    /// Returns the code of the totals that are written while this segment is the last.
    pub(super) fn totals_mac(&self, body: &[u8]) -> [u8; MAC_BYTES] {
        code(&self.totals_key, &[body])
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("index", &self.index).finish_non_exhaustive()
    }
}

fn derive(label: &[u8], key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(label).chain_update(key).finalize().into()
}

/// HMAC-SHA256 (RFC 2104) of the parts, one after the other.
fn code(key: &[u8; 32], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AuditKey {
        AuditKey::new(Zeroizing::new([7; 32]))
    }

    #[test]
    fn a_segment_reached_by_rolling_has_the_keys_that_the_audit_key_gives() {
        let rolled = Chain::at(&key(), [1; 16], 0).next_segment().next_segment();
        let direct = Chain::at(&key(), [1; 16], 2);
        assert_eq!(rolled.mac(b"line"), direct.mac(b"line"));
        assert_eq!(rolled.totals_mac(b"line"), direct.totals_mac(b"line"));
    }

    #[test]
    fn no_two_of_place_run_segment_and_purpose_share_a_key() {
        let mut second = Chain::at(&key(), [1; 16], 0);
        second.advance();
        let codes = [
            Chain::at(&key(), [1; 16], 0).mac(b"line"),
            second.mac(b"line"),
            Chain::at(&key(), [2; 16], 0).mac(b"line"),
            Chain::at(&key(), [1; 16], 1).mac(b"line"),
            Chain::at(&key(), [1; 16], 0).totals_mac(b"line"),
        ];
        let distinct: std::collections::HashSet<_> = codes.iter().collect();
        assert_eq!(distinct.len(), codes.len());
    }
}
