//! The wall clock, and the time since boot.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::model::{BootId, Clock, Timestamp, Uptime};

/// Tells the host's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in elsewhere")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Uptime {
        // CLOCK_BOOTTIME is there since Linux 2.6.39; without it no boot is known to be this one.
        match clock_gettime(ClockId::CLOCK_BOOTTIME) {
            Ok(elapsed) => Uptime { boot: boot(), elapsed: Duration::from(elapsed) },
            Err(_) => Uptime::UNKNOWN,
        }
    }
}

/// Returns the id that the kernel has made up for this boot. It is read once.
fn boot() -> Option<BootId> {
    static BOOT: OnceLock<Option<BootId>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits = text.trim().replace('-', "");
        u128::from_str_radix(&digits, 16).ok().map(BootId)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_boot_moves_on_and_is_of_one_boot() {
        let (first, second) = (SystemClock.uptime(), SystemClock.uptime());
        assert!(first.is_of_boot(second) && first.elapsed <= second.elapsed);
        assert!(first.elapsed > Duration::ZERO);
    }
}
