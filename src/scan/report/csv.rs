//! The report as RFC 4180 has tables: a row a finding.

use super::{encodings, reason, state_word};
use crate::scan::finding::Finding;

const HEADER: &str = "file,line,column,rule,severity,confidence,type,state,reason,encodings,match,context,fingerprint,commit,author,date\r\n";

pub(super) fn write(findings: &[&Finding]) -> String {
    let mut out = HEADER.to_owned();
    for finding in findings {
        let commit = finding.place.commit.clone();
        let (id, author, date) =
            commit.map(|commit| (commit.id, commit.author, commit.date)).unwrap_or_default();
        let cells = [
            finding.place.path.clone(),
            finding.place.line.to_string(),
            finding.place.column.to_string(),
            finding.rule.to_string(),
            finding.severity.to_string(),
            finding.confidence().map(|confidence| confidence.to_string()).unwrap_or_default(),
            finding.kind.to_string(),
            state_word(finding).to_owned(),
            reason(finding).unwrap_or_default(),
            encodings(finding),
            finding.secret.to_string(),
            finding.context.to_string(),
            finding.fingerprint.to_string(),
            id,
            author,
            date,
        ];
        let row: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        out.push_str(&row.join(","));
        out.push_str("\r\n");
    }
    out
}

fn cell(text: &str) -> String {
    // A spreadsheet would take text that begins so for a formula.
    let guarded = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_is_never_a_formula() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(cell("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }
}
