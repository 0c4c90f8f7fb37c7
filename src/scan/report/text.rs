//! The report for people at a terminal, and for programs that read lines.

use std::fmt::Write as _;

use super::{Look, encodings, reason, summary};
use crate::scan::finding::{Finding, Scan};
use crate::scan::severity::Severity;

pub(super) fn write(scan: &Scan, findings: &[&Finding], look: Look) -> String {
    let mut out = String::new();
    let paint = Paint(look.color);
    for finding in findings {
        line(&mut out, finding, paint);
    }
    for unread in &scan.unread {
        let _ = writeln!(
            out,
            "{}: {}: {}",
            unread.path.escape_debug(),
            paint.bold("not read"),
            unread.why
        );
    }
    let _ = writeln!(out, "{}", paint.bold(&summary(scan)));
    out
}

// Writing to a string does not fail.
fn line(out: &mut String, finding: &Finding, paint: Paint) {
    let place = &finding.place;
    let head = format!("{}:{}:{}", place.path.escape_debug(), place.line, place.column);
    let sure = match finding.confidence() {
        Some(confidence) => confidence.to_string(),
        None => "filtered".to_owned(),
    };
    let severity = paint.severity(finding.severity);
    let _ = write!(
        out,
        "{}: {severity} {sure} {}: {}",
        paint.bold(&head),
        finding.rule,
        finding.description
    );
    if !finding.encodings.is_empty() {
        let _ = write!(out, " ({})", encodings(finding));
    }
    if let Some(reason) = reason(finding) {
        let _ = write!(out, " [{reason}]");
    }
    let _ = writeln!(out, "\n    {}", finding.context);
    if let Some(commit) = &place.commit {
        let id = commit.id.get(..12).unwrap_or(&commit.id);
        let _ =
            writeln!(out, "    commit {id} of {} by {}", commit.date, commit.author.escape_debug());
    }
    let _ = writeln!(out, "    {} fingerprint {}", finding.secret, finding.fingerprint);
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn bold(self, text: &str) -> String {
        self.with(text, "1")
    }

    fn severity(self, severity: Severity) -> String {
        let color = match severity {
            Severity::Critical => "1;31",
            Severity::High => "31",
            Severity::Low => "36",
            Severity::Medium => "33",
        };
        self.with(severity.as_str(), color)
    }

    fn with(self, text: &str, code: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
