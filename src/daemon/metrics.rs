//! The Prometheus text of `.control/metrics` (text exposition format 0.0.4).

use std::fmt::Write;

use crate::broker::Statistics;
use crate::route::State;

/// Formats the counts. Names of secrets are in no label: they are not for everybody who scrapes.
pub(super) fn text(statistics: &Statistics, uptime_seconds: u64, healthy: bool) -> String {
    let Statistics { sealed, integrity, secrets, in_trash, generation, audit_seq, .. } = statistics;
    let Statistics { reads_allowed, refused, writes, failures, .. } = statistics;
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
        ("secretfs_refused_total", "counter", "Requests that were refused.", *refused),
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

/// Formats how it stands with each service. Its name in the configuration is a label.
pub(super) fn backends(states: &[State]) -> String {
    type Value = fn(&State) -> u64;
    let rows: [(&str, &str, &str, Value); 7] = [
        ("secretfs_backend_up", "gauge", "1 unless it is left alone.", |s| s.down.is_none().into()),
        ("secretfs_backend_copies", "gauge", "Secrets of it that are here.", |s| s.copies),
        (
            "secretfs_backend_oldest_seconds",
            "gauge",
            "Since it has confirmed the copy that has waited longest.",
            |s| s.oldest.as_secs(),
        ),
        ("secretfs_backend_requests_total", "counter", "Requests to it.", |s| s.requests),
        ("secretfs_backend_failures_total", "counter", "Requests that failed.", |s| s.failures),
        (
            "secretfs_backend_stale_reads_total",
            "counter",
            "Reads of a copy that was not fresh.",
            |s| s.stale_reads,
        ),
        ("secretfs_backend_unfit_total", "counter", "Answers that were not kept.", |s| s.unfit),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows.into_iter().filter(|_| !states.is_empty()) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for state in states {
            let _ = writeln!(text, "{name}{{backend={:?}}} {}", state.backend, value(state));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_a_row_of_each_metric_and_without_one_there_is_none() {
        let state = |backend: &str| State {
            backend: backend.to_owned(),
            path: "cloud".parse().unwrap(),
            down: None,
            copies: 3,
            oldest: std::time::Duration::from_secs(7),
            requests: 11,
            failures: 0,
            stale_reads: 0,
            unfit: 0,
        };
        let text = backends(&[state("aws"), state("vault")]);
        assert!(text.contains("secretfs_backend_copies{backend=\"aws\"} 3\n"));
        assert!(text.contains("secretfs_backend_oldest_seconds{backend=\"vault\"} 7\n"));
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), 7);
        assert_eq!(backends(&[]), "");
    }

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
