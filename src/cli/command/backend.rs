//! `backend`: services that keep secrets, tried from here.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::backend::{Backend as Service, Deadline, Settings};
use crate::cli::Context;
use crate::cli::args::{Backend, BackendCheck};
use crate::cli::error::{Failure, Kind};
use crate::daemon::config::{Config, Layer, Sources};

/// How long all of it may take: a person waits, and wants to know how slow it is.
const CHECK: Duration = Duration::from_secs(30);

pub(super) fn run(context: &Context, args: &Backend) -> Result<ExitCode, Failure> {
    match args {
        Backend::Check(args) => check(context, args),
    }
}

fn check(context: &Context, args: &BackendCheck) -> Result<ExitCode, Failure> {
    let (sources, config) = context.config(args.system.system, Layer::default())?;
    let named = config.backends.get(&args.name).ok_or_else(|| unknown(&config, &args.name))?;
    let backend = open(&sources, &args.name, named)?;
    let probes = backend.check(Deadline::within(CHECK));
    let works = probes.iter().all(|probe| probe.worked);
    let tried: Vec<_> = probes
        .iter()
        .map(|probe| json!({ "what": probe.what, "worked": probe.worked, "note": probe.note }))
        .collect();
    let document =
        json!({ "backend": args.name, "kind": named.kind(), "works": works, "probes": tried });
    context.out.json(&document)?;
    let rows: Vec<Vec<String>> = probes
        .into_iter()
        .map(|probe| {
            let worked = if probe.worked { "yes" } else { "no" };
            vec![probe.what.to_owned(), worked.to_owned(), probe.note]
        })
        .collect();
    context.out.table(&["what", "works", "note"], &rows)?;
    Ok(ExitCode::from(if works { 0 } else { Kind::BackendConnection.exit_code() }))
}

/// Says that the configuration has no such backend, and which it has.
pub(super) fn unknown(config: &Config, name: &str) -> Failure {
    let why = format!("{} has no such backend", config.file.display());
    let known: Vec<&str> = config.backends.keys().map(String::as_str).collect();
    let hint = match known.as_slice() {
        [] => "a backend is a table [backend.NAME]".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    Failure::new(Kind::Config, name, why).hint(hint)
}

/// Makes the client of a backend, which asks nothing yet.
pub(super) fn open(
    sources: &Sources,
    name: &str,
    settings: &Settings,
) -> Result<Arc<dyn Service>, Failure> {
    let variables = |name: &str| sources.environment.text(name).map(str::to_owned);
    settings.open(&variables).map_err(|error| Failure::new(Kind::Config, name, error.to_string()))
}
