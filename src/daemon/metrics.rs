//! The Prometheus text of `.control/metrics` (text exposition format 0.0.4).
//!
//! Names of secrets are in no label: they are not for everybody who scrapes. `docs/METRICS.md` has each metric,
//! and `fixtures/monitoring` a dashboard and rules that use them.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::alerts::Queue;
use crate::broker::{BOUNDS_MICROS, Latencies, Statistics};
use crate::fs::control::Held;
use crate::route::State;

/// What is measured.
pub(super) struct Figures<'a> {
    pub(super) statistics: &'a Statistics,
    pub(super) held: &'a Held,
    pub(super) healthy: bool,
    /// In seconds.
    pub(super) uptime: u64,
    pub(super) rotations: Rotations,
    pub(super) queues: &'a [Queue],
    pub(super) backends: &'a [State],
}

/// How rotations stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rotations {
    pub(super) at_work: u64,
    /// By the schedule, and not done.
    pub(super) due: u64,
    pub(super) longest_overdue_seconds: u64,
}

/// Formats the counts.
pub(super) fn text(figures: &Figures<'_>) -> String {
    let Figures { statistics, held, healthy, uptime, rotations, queues, backends: states } =
        figures;
    let Statistics { sealed, integrity, secrets, in_trash, generation, audit_seq, .. } = statistics;
    let Statistics { reads_allowed, refused, writes, failures, audit_unsynced, .. } = statistics;
    let mut page = Page::default();
    page.gauge("healthy", "Whether health is ok.", u64::from(*healthy));
    page.gauge("sealed", "Whether no key is in memory.", u64::from(*sealed));
    let verified = u64::from(integrity == "verified");
    page.gauge("verified", "Whether the record set is verified.", verified);
    let fault = u64::from(statistics.audit_fault.is_some());
    page.gauge("audit_fault", "Whether the log takes no lines, so that nothing is served.", fault);
    page.gauge("uptime_seconds", "Time since the start.", *uptime);
    page.gauge("secrets", "Secrets in the store.", *secrets);
    page.gauge("trash_secrets", "Deleted secrets that can be restored.", *in_trash);
    page.gauge("store_generation", "Commits that the store has taken.", *generation);
    page.gauge("audit_seq", "Place of the last line of the audit log.", *audit_seq);
    let lag = "Lines of the audit log that may not be on disk yet.";
    page.gauge("audit_lag_lines", lag, *audit_unsynced);
    page.counter("reads_allowed_total", "Reads that were allowed.", *reads_allowed);
    page.counter("refused_total", "Requests that were refused.", *refused);
    page.counter("writes_total", "Versions that were made.", *writes);
    page.counter("failures_total", "Requests that were allowed and failed.", *failures);
    let open = "From the decision on a read to its value.";
    page.histogram("open_duration_seconds", open, &statistics.opens);
    let commit = "From a change that is asked for to its being durable.";
    page.histogram("commit_duration_seconds", commit, &statistics.commits);
    page.gauge("open_handles", "Open files and directories.", held.handles);
    page.gauge("held_versions", "Versions that open files read.", held.versions);
    let superseded = "Versions that open files read and that are not current any more.";
    page.gauge("held_superseded_versions", superseded, held.superseded);
    page.gauge("rotations_running", "Rotations that are under way.", rotations.at_work);
    page.gauge("rotations_due", "Rotations that are due and not done.", rotations.due);
    let overdue = "For how long the first of them has been due.";
    page.gauge("rotation_overdue_seconds", overdue, rotations.longest_overdue_seconds);
    page.gauge("quarantined_users", "Users who are quarantined.", statistics.quarantined);
    let mut each = |name: &str, kind, help: &str, value: fn(&Queue) -> u64| {
        page.head(name, kind, help);
        for queue in *queues {
            let labels = format!("{{receiver=\"{}\"}}", queue.receiver);
            page.sample(name, &labels, value(queue));
        }
    };
    let queued = "Messages that a receiver has not taken yet.";
    each("alerts_queued", "gauge", queued, |queue| queue.queued);
    let delivered = "Messages that a receiver has taken.";
    each("alerts_delivered_total", "counter", delivered, |queue| queue.delivered);
    let failed = "Deliveries that failed and are made again.";
    each("alerts_failures_total", "counter", failed, |queue| queue.failures);
    let lost =
        "Lines that a receiver was not told: retention removed them first, or they are malformed.";
    each("alerts_lost_total", "counter", lost, |queue| queue.lost);
    backends(&mut page, states);
    page.0
}

/// The text, as it grows. Writing to a string cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP secretfs_{name} {help}\n# TYPE secretfs_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "secretfs_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, found: &Latencies) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let bounds = BOUNDS_MICROS.map(|micros| Duration::from_micros(micros).as_secs_f64());
        let bounds = bounds.map(|bound| bound.to_string()).into_iter().chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(found.within) {
            self.sample(&bucket, &format!("{{le=\"{bound}\"}}"), count);
        }
        self.sample(&format!("{name}_sum"), "", found.total.as_secs_f64());
        let count = found.within.last().copied().unwrap_or(0);
        self.sample(&format!("{name}_count"), "", count);
    }
}

/// Formats how it stands with each service. Its name in the configuration is a label.
fn backends(page: &mut Page, states: &[State]) {
    type Value = fn(&State) -> u64;
    let rows: [(&str, &str, &str, Value); 7] = [
        ("up", "gauge", "1 unless it is left alone.", |s| s.down.is_none().into()),
        ("copies", "gauge", "Secrets of it that are here.", |s| s.copies),
        (
            "oldest_seconds",
            "gauge",
            "Since it has confirmed the copy that has waited longest.",
            |s| s.oldest.as_secs(),
        ),
        ("requests_total", "counter", "Requests to it.", |s| s.requests),
        ("failures_total", "counter", "Requests that failed.", |s| s.failures),
        ("stale_reads_total", "counter", "Reads of a copy that was not fresh.", |s| s.stale_reads),
        ("unfit_total", "counter", "Answers that were not kept.", |s| s.unfit),
    ];
    for (name, kind, help, value) in rows.into_iter().filter(|_| !states.is_empty()) {
        let name = format!("backend_{name}");
        page.head(&name, kind, help);
        for state in states {
            page.sample(&name, &format!("{{backend={:?}}}", state.backend), value(state));
        }
    }
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
            oldest: Duration::from_secs(7),
            requests: 11,
            failures: 0,
            stale_reads: 0,
            unfit: 0,
        };
        let text = |states: &[State]| {
            let mut page = Page::default();
            backends(&mut page, states);
            page.0
        };
        let two = text(&[state("aws"), state("vault")]);
        assert!(two.contains("secretfs_backend_copies{backend=\"aws\"} 3\n"));
        assert!(two.contains("secretfs_backend_oldest_seconds{backend=\"vault\"} 7\n"));
        assert_eq!(two.lines().filter(|line| line.starts_with("# TYPE")).count(), 7);
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn every_sample_has_help_a_type_and_a_number() {
        let queue =
            Queue { receiver: "siem".into(), queued: 3, delivered: 9, failures: 1, lost: 0 };
        let text = text(&Figures {
            statistics: &Statistics { secrets: 7, ..Statistics::default() },
            held: &Held { handles: 2, versions: 1, superseded: 0 },
            healthy: true,
            uptime: 60,
            rotations: Rotations::default(),
            queues: &[queue],
            backends: &[],
        });
        assert!(text.contains("# TYPE secretfs_secrets gauge\nsecretfs_secrets 7\n"));
        assert!(text.contains("\nsecretfs_alerts_queued{receiver=\"siem\"} 3\n"));
        assert!(text.contains("\nsecretfs_open_duration_seconds_bucket{le=\"0.000025\"} 0\n"));
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = sample.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(text.contains(&format!("# HELP {} ", bare.unwrap_or(name))), "{sample}");
            assert!(value.parse::<f64>().is_ok(), "{sample}");
        }
    }
}
