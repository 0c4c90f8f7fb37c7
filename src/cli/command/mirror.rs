//! `import` from a service, `export` and `sync`: a plan, the copy, and what a comparison finds afterwards.
//!
//! They end with 0 if all is equal in the end, and with 1 if not. What nothing can be done about any more is a failure as of any
//! other command; what was copied by then stays, and the next run goes on there.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressStyle};

use super::destroy::confirm;
use crate::cli::Context;
use crate::cli::args::{Copying, Export, Import, Place, Sync};
use crate::cli::bar::with_bar;
use crate::cli::error::{Failure, Kind};
use crate::cli::mirror::{Crew, Done, Known, Mirror, Patience, Progress, Trouble};

mod end;
mod report;
mod watch;

use end::{Ends, LOCAL};
use report::Report;

/// How many secrets are copied at the same time.
const AT_ONCE: u8 = 8;

pub(super) fn import(context: &Context, name: &str, args: &Import) -> Result<ExitCode, Failure> {
    let from = Place::new(name, args.prefix.as_deref());
    let to = Place::new(LOCAL, args.storing.dir.as_ref().map(|dir| dir.as_str()));
    let how = How { replace: args.storing.replace, copying: &args.copying };
    copy_once(&Job::new(context, (&from, &to), how)?, args.storing.dry_run)
}

pub(super) fn export(context: &Context, args: &Export) -> Result<ExitCode, Failure> {
    let from = Place::new(LOCAL, args.dir.as_ref().map(|dir| dir.as_str()));
    let to = Place::new(&args.to, args.prefix.as_deref());
    let how = How { replace: args.replace, copying: &args.copying };
    copy_once(&Job::new(context, (&from, &to), how)?, args.dry_run)
}

pub(super) fn sync(context: &Context, args: &Sync) -> Result<ExitCode, Failure> {
    let how = How { replace: args.replace, copying: &args.copying };
    let job = Job::new(context, (&args.from, &args.to), how)?;
    if args.watch { watch::run(&job, args.every) } else { copy_once(&job, args.dry_run) }
}

/// What was asked for beside the two sides.
#[derive(Clone, Copy)]
struct How<'a> {
    replace: bool,
    copying: &'a Copying,
}

/// A copy from one side to another, made once or in rounds.
struct Job<'a> {
    context: &'a Context,
    ends: Ends,
    how: How<'a>,
    crew: Crew,
    known: Known,
}

/// What is done about the plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Consent {
    Ask,
    Given,
    /// The plan is all that is wanted.
    Withheld,
}

impl<'a> Job<'a> {
    fn new(context: &'a Context, places: (&Place, &Place), how: How<'a>) -> Result<Self, Failure> {
        let ends = Ends::of(context, places, how.copying.system.system)?;
        let crew = Crew::new(how.copying.at_once.unwrap_or(AT_ONCE).into());
        Ok(Self { context, ends, how, crew, known: Known::default() })
    }

    /// Plans, copies and compares.
    fn run(&self, consent: Consent) -> Result<Report, Failure> {
        let [source, destination] = self.ends.open()?;
        let rest = |time| self.crew.rest(time);
        let patience = (Patience::new(&rest), &self.known);
        let mirror = Mirror::new(&*source, &*destination, self.how.replace, patience);
        let mirror = mirror.map_err(|trouble| self.failure(trouble))?;
        let planned = self.shown("compared", |crew, progress| mirror.plan(crew, progress))?;
        let mut report = Report::new(planned);
        if consent == Consent::Withheld {
            return Ok(report);
        }
        if report.changes() > 0 {
            self.context.out.note(report.plan());
            if consent == Consent::Ask {
                let question = format!("Copy from {} to {}?", self.ends.from, self.ends.to);
                confirm(self.context, &question, "--yes")?;
            }
            let planned = &report.planned;
            report.copied =
                self.shown("copied", |crew, progress| mirror.copy(planned, crew, progress))?;
        }
        if report.changes() == 0 {
            // Both sides were compared a moment ago.
            report.found.clone_from(&report.planned);
            return Ok(report);
        }
        let planned = &report.planned;
        report.found =
            self.shown("compared", |crew, progress| mirror.compare(planned, crew, progress))?;
        Ok(report)
    }

    fn shown(
        &self,
        what: &'static str,
        work: impl FnOnce(&Crew, &Progress) -> Result<Vec<Done>, Trouble>,
    ) -> Result<Vec<Done>, Failure> {
        let progress = Progress::default();
        let make = || {
            let template = format!("{{wide_bar}} {{pos}} of {{len}} {what}");
            let style = ProgressStyle::with_template(&template);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        let show = |bar: &ProgressBar| {
            bar.set_length(progress.all.load(Ordering::Relaxed) as u64);
            bar.set_position(progress.done.load(Ordering::Relaxed) as u64);
        };
        with_bar(self.context, make, show, || work(&self.crew, &progress))
            .map_err(|trouble| self.failure(trouble))
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        let what = format!("{} to {}", self.ends.from, self.ends.to);
        Failure::new(Kind::BackendConnection, what, trouble.to_string())
            .hint("the same command goes on where it was")
    }
}

fn copy_once(job: &Job<'_>, dry_run: bool) -> Result<ExitCode, Failure> {
    let is_asked = io::stdin().is_terminal() && !job.how.copying.yes && !job.context.out.is_json();
    let consent = match (dry_run, is_asked) {
        (true, _) => Consent::Withheld,
        (false, true) => Consent::Ask,
        (false, false) => Consent::Given,
    };
    let report = job.run(consent)?;
    job.context.out.json(&report.document(&job.ends))?;
    if dry_run {
        job.context.out.table(&report::COLUMNS, &report.rows())?;
        job.context.out.note(report.plan());
        return Ok(ExitCode::SUCCESS);
    }
    report.print(&job.context.out, &[])?;
    Ok(report.exit_code())
}
