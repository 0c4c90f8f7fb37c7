//! Who can read what, as a matrix: by the policy where one is known, else who has read what by the log.
//!
//! Secrets with the same row stand in one, and callers are numbers with a legend, so that a fleet fits on a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::Text;
use crate::model::{Level, Levels};
use crate::report::{CallerKey, Facts, PolicyFacts};

/// Most rows and columns that are shown.
const MAX_ROWS: usize = 150;
const MAX_COLUMNS: usize = 60;

/// Names of a row that stand in it; of the others there is a number.
const NAMES_SHOWN: usize = 6;

/// A cell: its text, and whether it is in use.
type Cell = (String, bool);

struct Matrix {
    what: &'static str,
    how: &'static str,
    /// Who stands in the columns.
    legend: Vec<String>,
    left_out: usize,
    /// Cells, with the names of the secrets that have just these.
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

/// Writes the section.
pub(super) fn section(out: &mut String, facts: &Facts) -> fmt::Result {
    let matrix = match &facts.policy {
        Some(policy) => by_policy(facts, policy),
        None => by_log(facts),
    };
    writeln!(out, "<h2 id=\"matrix\">{}</h2>\n<p class=\"soft\">{}</p>", matrix.what, matrix.how)?;
    if matrix.legend.is_empty() || matrix.rows.is_empty() {
        out.push_str("<p>Nobody and nothing to show.</p>\n");
        return Ok(());
    }
    out.push_str("<ol class=\"legend\">\n");
    for whom in &matrix.legend {
        writeln!(out, "<li>{}</li>", Text(whom))?;
    }
    out.push_str("</ol>\n");
    if matrix.left_out > 0 {
        writeln!(out, "<p class=\"soft\">{} more callers are not shown.</p>", matrix.left_out)?;
    }
    out.push_str(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"who has access to what\"><table class=\"matrix\" id=\"numbers-matrix\"><thead><tr><th scope=\"col\">Secrets</th>",
    );
    for (number, whom) in (1..).zip(&matrix.legend) {
        write!(out, "<th scope=\"col\" title=\"{}\">{number}</th>", Text(whom))?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (cells, names) in matrix.rows.iter().take(MAX_ROWS) {
        let shown = names.get(..NAMES_SHOWN).unwrap_or(names).join(", ");
        write!(out, "<tr><td>{}", Text(&shown))?;
        if names.len() > NAMES_SHOWN {
            write!(out, " <small>and {} more</small>", names.len() - NAMES_SHOWN)?;
        }
        out.push_str("</td>");
        for ((text, in_use), whom) in cells.iter().zip(&matrix.legend) {
            let class = match (text.is_empty(), in_use) {
                (true, _) => "cell",
                (false, true) => "cell has",
                (false, false) => "cell idle",
            };
            let title =
                if text.is_empty() { String::new() } else { format!(" title=\"{}\"", Text(whom)) };
            write!(out, "<td class=\"{class}\"{title}>{}</td>", Text(text))?;
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if matrix.rows.len() > MAX_ROWS {
        writeln!(
            out,
            "<p class=\"soft\">{} more rows are not shown.</p>",
            matrix.rows.len() - MAX_ROWS
        )?;
    }
    Ok(())
}

fn by_policy(facts: &Facts, policy: &PolicyFacts) -> Matrix {
    // Who may do nothing with any of the secrets has no column.
    let has_any = |index: &usize| {
        policy.rights.iter().any(|row| row.get(*index).is_some_and(|levels| !levels.is_empty()))
    };
    let all: Vec<usize> = (0..policy.subjects.len()).filter(has_any).collect();
    let columns = all.get(..MAX_COLUMNS).unwrap_or(&all);
    let chosen = || columns.iter().filter_map(|index| Some((index, policy.subjects.get(*index)?)));
    let rows = facts.secrets.iter().zip(&policy.rights).map(|(secret, rights)| {
        let cell = |(index, subject): (&usize, &crate::policy::Subject)| {
            let levels = rights.get(*index).copied().unwrap_or_default();
            let key = (subject.binding.to_string(), secret.name.clone());
            (letters(levels), facts.tally.used.contains(&key))
        };
        (chosen().map(cell).collect(), secret.name.to_string())
    });
    Matrix {
        what: "Who can read what",
        how: "By the policy, at any hour, without grants for a time: R read, W write, D delete, A admin. \
              Bold: the binding was used for it in the period.",
        left_out: all.len() - columns.len(),
        legend: chosen()
            .map(|(_, subject)| format!("{}: {}", subject.binding, subject.whom))
            .collect(),
        rows: grouped(rows),
    }
}

fn by_log(facts: &Facts) -> Matrix {
    let readers = facts.tally.readers();
    let columns: Vec<&CallerKey> =
        readers.iter().take(MAX_COLUMNS).map(|(caller, _)| *caller).collect();
    let read = facts.tally.secrets.iter().filter(|(_, held)| held.reads > 0);
    let rows = read.map(|(name, held)| {
        let cell = |caller: &&CallerKey| match held.readers.contains_key(*caller) {
            true => ("R".to_owned(), true),
            false => (String::new(), false),
        };
        (columns.iter().map(cell).collect(), name.to_string())
    });
    let rows = grouped(rows);
    let user = |caller: &&CallerKey| {
        let exe = caller.exe.as_deref().unwrap_or("a program that is not known");
        format!("{}: {exe}", facts.tally.name_of(caller.uid))
    };
    Matrix {
        what: "Who has read what",
        how: "By the log: no policy is at hand that would say who can.",
        left_out: readers.len() - columns.len(),
        legend: columns.iter().map(user).collect(),
        rows,
    }
}

fn letters(levels: Levels) -> String {
    let letter = |level: Level| match level {
        Level::Admin => 'A',
        Level::Delete => 'D',
        Level::Read => 'R',
        Level::Write => 'W',
    };
    levels.iter().map(letter).collect()
}

/// Puts secrets with the same cells together, in the order of their first names.
fn grouped(rows: impl Iterator<Item = (Vec<Cell>, String)>) -> Vec<(Vec<Cell>, Vec<String>)> {
    let mut groups: BTreeMap<Vec<Cell>, BTreeSet<String>> = BTreeMap::new();
    for (cells, name) in rows {
        groups.entry(cells).or_default().insert(name);
    }
    let mut groups: Vec<(Vec<Cell>, Vec<String>)> =
        groups.into_iter().map(|(cells, names)| (cells, names.into_iter().collect())).collect();
    groups.sort_by(|a, b| a.1.cmp(&b.1));
    groups
}
