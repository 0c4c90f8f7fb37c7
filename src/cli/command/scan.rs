//! `scan`: looks for secrets in files, and says what it found without them.
//!
//! It ends with codes of its own: 0 nothing found, 1 secrets found, 2 when it could not finish. The last
//! one stands above the others, because whoever reads "nothing found" relies on it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::Context;
use crate::cli::args::{Scan as Args, ScanCommand, ScanHook, ScanRules, ScanRulesArgs};
use crate::cli::bar::with_bar;
use crate::cli::error::{Failure, Kind};
use crate::scan::git::{self, GitError, Repository, What};
use crate::scan::report::{self, Format, Look};
use crate::scan::walk::{self, Ignored, Progress, Selection};
use crate::scan::{self, Baseline, Engine, RuleSet, Scan, Wanted};
use crate::system::atomic_file;

mod own;

/// Secrets were found.
const FOUND: u8 = 1;
/// Not everything could be looked at.
const INCOMPLETE: u8 = 2;

pub(super) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let done = match &args.command {
        Some(ScanCommand::Hook(change)) => hook(context, *change),
        Some(ScanCommand::Rules(rules)) => list_rules(context, rules),
        None => search(context, args),
    };
    done.or_else(|failure| {
        context.out.failure(&failure);
        Ok(ExitCode::from(INCOMPLETE))
    })
}

fn search(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let mut rules = rule_set(&args.rules)?;
    if !args.types.is_empty() {
        rules.keep_types(&args.types);
    }
    let engine = Engine::new(rules).map_err(|error| failure("rules", &error))?;
    let wanted = Wanted {
        min_confidence: args.min_confidence,
        min_severity: args.min_severity,
        explain: args.explain,
        baseline: Arc::new(baseline(args.baseline.as_deref())?),
        stored: if args.own { Some(Arc::new(own::stored(context)?)) } else { None },
        until: None,
    };
    let selection = Selection {
        only: args.only.clone(),
        except: args.exclude.clone(),
        ignored: if args.no_ignore { Ignored::Scan } else { Ignored::Skip },
    };
    let progress = Progress::default();
    let show = |bar: &ProgressBar| {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (files, found) = (count(&progress.files), count(&progress.findings));
        bar.set_message(format!("{files} files, {found} found"));
    };
    let result = with_bar(context, ProgressBar::new_spinner, show, || {
        let progress = &progress;
        let what = What { engine: &engine, wanted: &wanted, selection: &selection, progress };
        look(args, &what)
    })?;
    print(context, args, &result)?;
    if let Some(path) = &args.write_baseline {
        let text = Baseline::of(&result.findings)
            .to_json()
            .map_err(|error| failure("the baseline", &error))?;
        write(path, &text)?;
    }
    if args.rotate {
        let answer = if args.yes { own::Answer::Yes } else { own::Answer::Ask };
        if !own::rotate(context, &result, answer)? {
            return Ok(ExitCode::from(INCOMPLETE));
        }
    }
    Ok(match (result.is_complete(), result.open().next()) {
        (false, _) => ExitCode::from(INCOMPLETE),
        (true, Some(_)) if args.write_baseline.is_none() => ExitCode::from(FOUND),
        (true, _) => ExitCode::SUCCESS,
    })
}

/// Scans what the arguments name.
fn look(args: &Args, what: &What<'_>) -> Result<Scan, Failure> {
    let here = Path::new(".");
    let git = |error: GitError| failure("git", &error);
    if args.staged {
        return Repository::around(here).and_then(|git| git.scan_staged(what)).map_err(git);
    }
    if let Some(range) = &args.history {
        let history = |git: Repository| git.scan_history(what, range.as_deref());
        return Repository::around(here).and_then(history).map_err(git);
    }
    if args.paths == [Path::new("-")] {
        let mut stdin = std::io::stdin().lock();
        return Ok(scan::scan_reader(what.engine, what.wanted, "standard input", &mut stdin));
    }
    let whole = [here.to_owned()];
    let roots = if args.paths.is_empty() { &whole[..] } else { &args.paths };
    Ok(walk::scan(what, roots))
}

fn hook(context: &Context, change: ScanHook) -> Result<ExitCode, Failure> {
    let wrong = |error: GitError| failure("the hook", &error);
    let repository = Repository::around(Path::new(".")).map_err(wrong)?;
    let (hook, done) = match change {
        ScanHook::Install => {
            let program =
                std::env::current_exe().map_err(|error| failure("this program", &error))?;
            (git::install_hook(&repository, &program).map_err(wrong)?, "installed")
        }
        ScanHook::Uninstall => (git::uninstall_hook(&repository).map_err(wrong)?, "uninstalled"),
    };
    let text = format!("{done} {}", hook.display());
    context.out.done(text, &json!({ "hook": hook, "done": done }))?;
    Ok(ExitCode::SUCCESS)
}

fn print(context: &Context, args: &Args, result: &Scan) -> Result<(), Failure> {
    let json = context.out.is_json();
    let format = args.format.unwrap_or(if json { Format::Json } else { Format::Text });
    let plain = context.environment.value("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = args.output.is_none() && context.out.is_terminal() && !plain;
    let look = Look { color, suppressed: args.suppressed };
    let text = report::write(result, format, look);
    match &args.output {
        Some(path) => write(path, &text),
        None => context.out.bytes(text.as_bytes()),
    }
}

fn list_rules(context: &Context, args: &ScanRulesArgs) -> Result<ExitCode, Failure> {
    let set = rule_set(&args.rules)?;
    let listed: Vec<_> = set
        .rules()
        .iter()
        .map(|rule| json!({ "id": rule.id, "type": rule.kind, "severity": rule.severity, "description": rule.description }))
        .collect();
    if !args.test {
        context.out.json(&json!(listed))?;
        let rows: Vec<Vec<String>> = set
            .rules()
            .iter()
            .map(|rule| {
                vec![
                    rule.id.to_string(),
                    rule.severity.to_string(),
                    rule.kind.to_string(),
                    rule.description.to_string(),
                ]
            })
            .collect();
        context.out.table(&["RULE", "SEVERITY", "TYPE", "DESCRIPTION"], &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let engine = Engine::new(set).map_err(|error| failure("rules", &error))?;
    let faults = engine.test_rules();
    for fault in &faults {
        context.out.note(fault);
    }
    let text = format!("{} rules, {} faults", listed.len(), faults.len());
    context.out.done(text, &json!({ "rules": listed.len(), "faults": faults }))?;
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn rule_set(args: &ScanRules) -> Result<RuleSet, Failure> {
    let mut set = RuleSet::built_in().map_err(|error| failure("rules", &error))?;
    for path in &args.files {
        let text = read(path)?;
        set.add(&path.display().to_string(), &text).map_err(|error| failure("rules", &error))?;
    }
    Ok(set)
}

fn baseline(path: Option<&Path>) -> Result<Baseline, Failure> {
    let Some(path) = path else { return Ok(Baseline::default()) };
    Baseline::parse(&read(path)?).map_err(|error| failure(path.display(), &error))
}

/// Replaces a file as a whole; what is no file, such as a pipe, is written to.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = match fs::metadata(path) {
        Ok(about) if !about.is_file() => {
            File::options().write(true).open(path).and_then(|mut to| to.write_all(text.as_bytes()))
        }
        Ok(_) | Err(_) => atomic_file::replace(path, text.as_bytes(), 0o644),
    };
    written.map_err(|error| failure(path.display(), &error))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| failure(path.display(), &error))
}

/// Names the causes too: the last one says which line of a file is wrong.
fn failure(what: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    Failure::new(Kind::Scanning, what.to_string(), why)
}
