//! How long things take, counted in buckets, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets in microseconds: an open takes tens of them, and nobody waits beyond the
/// deadline of 60 s at most.
pub const BOUNDS_MICROS: [u64; 16] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    1_000_000, 5_000_000, 60_000_000,
];

/// Counts that many threads add to.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// One more than there are bounds.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Latencies {
    /// How often it took no longer than each of [`BOUNDS_MICROS`], and at last how often at all.
    pub within: [u64; BOUNDS_MICROS.len() + 1],
    pub total: Duration,
}

impl Latency {
    pub(super) fn add(&self, took: Duration) {
        let micros = took.as_nanos().div_ceil(1000);
        let bucket = BOUNDS_MICROS.partition_point(|bound| u128::from(*bound) < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(took.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Latencies {
        let mut sum = 0;
        let within = self.buckets.each_ref().map(|count| {
            sum += count.load(Ordering::Relaxed);
            sum
        });
        Latencies { within, total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_in_its_bucket_and_all_above() {
        let latency = Latency::default();
        for micros in [1, 25, 26, 100_000_000] {
            latency.add(Duration::from_micros(micros));
        }
        let now = latency.now();
        assert_eq!((now.within[0], now.within[1]), (2, 3));
        assert_eq!((now.within[BOUNDS_MICROS.len() - 1], now.within[BOUNDS_MICROS.len()]), (3, 4));
        assert_eq!(now.total, Duration::from_micros(100_000_052));
    }
}
