//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

use super::{encodings, reason, state_word, summary};
use crate::scan::finding::{Finding, Scan};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--critical:#b00020;--high:#c2410c;--medium:#a16207;--low:#0e7490}\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem}li{overflow-wrap:anywhere}\
table{border-collapse:collapse;table-layout:fixed;width:100%}th:first-child{width:5rem}\
th,td{text-align:left;padding:.5rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
code{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere}\
.sev{font-weight:600}.critical{color:var(--critical)}.high{color:var(--high)}.medium{color:var(--medium)}.low{color:var(--low)}\
@media(prefers-color-scheme:dark){:root{--critical:#ff8a8a;--high:#fdba74;--medium:#fde047;--low:#67e8f9}}\
tr.suppressed,tr.filtered{opacity:.65}small{opacity:.75;font-weight:400}\
@media(max-width:44rem){body{margin:1rem auto}thead{display:none}tr,td{display:block}\
tr{padding:.6rem 0;border-bottom:1px solid var(--line)}td{border:0;padding:.1rem 0}.sev br{display:none}}";

pub(super) fn write(scan: &Scan, findings: &[&Finding]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>secretfs scan</title><style>{STYLE}</style></head>\n<body><h1>secretfs scan</h1>\n<p>{}</p>\n",
        text(&summary(scan))
    );
    if !scan.unread.is_empty() {
        out.push_str("<h2>Not read</h2>\n<ul>\n");
        for unread in &scan.unread {
            let _ = writeln!(
                out,
                "<li><code>{}</code>: {}</li>",
                text(&unread.path),
                text(&unread.why)
            );
        }
        out.push_str("</ul>\n");
    }
    if !findings.is_empty() {
        out.push_str("<table><thead><tr><th>Severity</th><th>Finding</th><th>Place</th></tr></thead>\n<tbody>\n");
        for finding in findings {
            row(&mut out, finding);
        }
        out.push_str("</tbody></table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

// Writing to a string does not fail.
fn row(out: &mut String, finding: &Finding) {
    let place = &finding.place;
    let severity = finding.severity;
    let sure = finding.confidence().map(|confidence| confidence.to_string()).unwrap_or_default();
    let _ = write!(
        out,
        "<tr class=\"{}\"><td class=\"sev {severity}\">{severity}<br> <small>{sure}</small></td>\
         <td>{}<br><code>{}</code><br><small>{}, {}",
        state_word(finding),
        text(&finding.description),
        text(finding.context.as_str()),
        text(&finding.rule),
        text(finding.secret.as_str()),
    );
    if !finding.encodings.is_empty() {
        let _ = write!(out, ", {}", text(&encodings(finding)));
    }
    if let Some(reason) = reason(finding) {
        let _ = write!(out, ", {}", text(&reason));
    }
    let _ = write!(
        out,
        "</small></td><td><code>{}:{}:{}</code><br><small>{}</small>",
        text(&place.path),
        place.line,
        place.column,
        finding.fingerprint
    );
    if let Some(commit) = &place.commit {
        let id = commit.id.get(..12).unwrap_or(&commit.id);
        let _ = write!(
            out,
            "<br><small>{} {} {}</small>",
            text(id),
            text(&commit.date),
            text(&commit.author)
        );
    }
    out.push_str("</td></tr>\n");
}

fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn text_of_a_scanned_file_is_no_markup() {
        assert_eq!(text("<script>'\"&\u{1b}"), "&lt;script&gt;&#39;&quot;&amp;\u{fffd}");
    }
}
