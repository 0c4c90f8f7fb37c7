//! The Prometheus text of `.control/metrics` (text exposition format 0.0.4).

use std::fmt::Write;

use crate::broker::Statistics;

/// Formats the counts. Names of secrets are in no label: they are not for everybody who scrapes.
pub(super) fn text(statistics: &Statistics, uptime_seconds: u64, healthy: bool) -> String {
    let Statistics { sealed, integrity, secrets, in_trash, generation, audit_seq, .. } = statistics;
    let Statistics { reads_allowed, reads_denied, writes, failures, .. } = statistics;
    let verified = u64::from(integrity == "verified");
    let rows: [(&str, &str, &str, u64); 12] = [
        ("secretfs_healthy", "gauge", "1 when health is ok.", u64::from(healthy)),
        ("secretfs_sealed", "gauge", "1 while no key is in memory.", u64::from(*sealed)),
        ("secretfs_verified", "gauge", "1 once the record set is verified.", verified),
        ("secretfs_uptime_seconds", "gauge", "Time since the start.", uptime_seconds),
        ("secretfs_secrets", "gauge", "Secrets in the store.", *secrets),
        ("secretfs_trash_secrets", "gauge", "Deleted secrets that can be restored.", *in_trash),
        ("secretfs_store_generation", "counter", "Commits that the store has taken.", *generation),
        ("secretfs_audit_seq", "counter", "Lines of the audit log.", *audit_seq),
        ("secretfs_reads_allowed_total", "counter", "Reads that were allowed.", *reads_allowed),
        ("secretfs_reads_denied_total", "counter", "Reads that were refused.", *reads_denied),
        ("secretfs_writes_total", "counter", "Versions that were made.", *writes),
        ("secretfs_failures_total", "counter", "Requests that failed.", *failures),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_a_type_and_one_number() {
        let text = text(&Statistics { secrets: 7, ..Statistics::default() }, 60, true);
        assert!(text.contains("# TYPE secretfs_secrets gauge\nsecretfs_secrets 7\n"));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let (name, value) = sample.split_once(' ').unwrap();
            assert!(text.contains(&format!("# HELP {name} ")) && value.parse::<u64>().is_ok());
        }
    }
}
