//! `import`: secrets out of files that people have, with placeholders left in their places.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use super::{Done, grammar, mirror};
use crate::cli::args::{Import, ImportForm, Origin};
use crate::cli::error::{Failure, Kind};
use crate::cli::import::{Found, name_for, placeholders, store};
use crate::cli::{Context, plaintext, usage};
use crate::inject::document::ParseError;
use crate::inject::suspect::is_suspect;
use crate::inject::{dotenv, json, yaml};
use crate::model::SecretName;
use crate::system::{SecretBuffer, SecretBytes, atomic_file};

pub(super) fn run(context: &Context, args: &Import) -> Result<ExitCode, Failure> {
    match (&args.from, &args.file) {
        (Origin::File(_), Some(_)) if args.copying.is_given() => {
            let text = "--at-once, --system and --yes are for services";
            Ok(misuse(ErrorKind::ArgumentConflict, text))
        }
        (Origin::File(form), Some(path)) => {
            import(context, &Files { form: *form, path, args }).map(|()| ExitCode::SUCCESS)
        }
        (Origin::File(_), None) => {
            Ok(misuse(ErrorKind::MissingRequiredArgument, "FILE is missing: what is imported"))
        }
        (Origin::Service(name), None) => mirror::import(context, name, args),
        (Origin::Service(name), Some(_)) => {
            let text = format!("{name} is no form of a file; a service has no FILE");
            Ok(misuse(ErrorKind::InvalidValue, &text))
        }
    }
}

/// Says what clap cannot know to be wrong, as it does.
fn misuse(kind: ErrorKind, text: &str) -> ExitCode {
    usage(&grammar().error(kind, text))
}

/// What is imported from files.
struct Files<'a> {
    form: ImportForm,
    path: &'a Path,
    args: &'a Import,
}

fn import(context: &Context, what: &Files<'_>) -> Done {
    let client = context.client()?;
    let Files { form, path, args } = *what;
    let files = match form {
        ImportForm::Dir => files_below(path, args.storing.dir.as_ref())?,
        ImportForm::Dotenv | ImportForm::Env | ImportForm::Json | ImportForm::Yaml => {
            vec![settings(context, what)?]
        }
    };
    let places: Vec<Vec<Range<usize>>> = files.iter().map(|file| file.places.clone()).collect();
    let sources: Vec<Source> = files.iter().map(|file| file.source.clone()).collect();
    let found: Vec<Found> = files.into_iter().flat_map(|file| file.found).collect();
    if found.is_empty() {
        let shown = path.display().to_string();
        return Err(Failure::new(Kind::Injection, shown, "there is no secret in it, by the names")
            .hint("--all takes every text"));
    }
    let placeholders = if args.rewrite { placeholders(&client, &found)? } else { Vec::new() };
    store(context, &client, &found, &args.storing)?;
    if !args.rewrite || args.storing.dry_run {
        return Ok(());
    }
    let mut rest = placeholders.as_slice();
    for (source, places) in sources.iter().zip(places) {
        let (these, others) = rest.split_at(places.len().min(rest.len()));
        rest = others;
        source.rewrite(form, &places, these)?;
        context.out.note(format_args!("{} is rewritten", source.path.display()));
    }
    Ok(())
}

/// A file, what was found in it, and the place of each.
struct File {
    source: Source,
    found: Vec<Found>,
    places: Vec<Range<usize>>,
}

/// A file as it was read.
#[derive(Clone)]
struct Source {
    path: PathBuf,
    text: Arc<SecretBytes>,
}

impl Source {
    fn read(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_path_buf(), text: plaintext::read_file(path)?.into() })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Puts placeholders into the places; owner and mode stay.
    fn rewrite(
        &self,
        form: ImportForm,
        places: &[Range<usize>],
        placeholders: &[String],
    ) -> Result<(), Failure> {
        let fail = |why: String| Failure::new(Kind::Injection, self.shown(), why);
        // What was stored is what was read: if the file is another one by now, it is left alone.
        let now = plaintext::read_file(&self.path)?;
        if !now.constant_time_eq(&self.text) {
            return Err(fail("it was changed meanwhile, and is not rewritten".into()));
        }
        let mut pairs: Vec<_> = places.iter().zip(placeholders).collect();
        pairs.sort_by_key(|(place, _)| place.start);
        let mut out = SecretBuffer::new();
        let mut push =
            |bytes: &[u8]| out.write_at(out.len(), bytes).map_err(|err| fail(err.to_string()));
        let mut at = 0;
        for (place, placeholder) in pairs {
            // An alias stands for a place that is rewritten already.
            if place.start < at {
                continue;
            }
            push(now.expose().get(at..place.start).unwrap_or_default())?;
            let old = now.expose().get(place.clone()).unwrap_or_default();
            push(written(form, placeholder, old.ends_with(b"\n")).as_bytes())?;
            at = place.end;
        }
        push(now.expose().get(at..).unwrap_or_default())?;
        let known = fs::metadata(&self.path).map_err(|err| fail(err.to_string()))?;
        let owner = Some((known.uid(), known.gid()));
        let mode = known.permissions().mode() & 0o7777;
        atomic_file::replace_as(&self.path, out.expose(), mode, owner)
            .map_err(|err| fail(err.to_string()))
    }
}

/// Returns a placeholder as the form has text; a block that ended its line still does.
fn written(form: ImportForm, placeholder: &str, ends_line: bool) -> String {
    let quoted = match form {
        ImportForm::Json | ImportForm::Yaml => format!("\"{placeholder}\""),
        ImportForm::Dir | ImportForm::Dotenv | ImportForm::Env => placeholder.to_owned(),
    };
    let ends_line = ends_line && form == ImportForm::Yaml;
    if ends_line { format!("{quoted}\n") } else { quoted }
}

/// Reads a file of settings.
fn settings(context: &Context, what: &Files<'_>) -> Result<File, Failure> {
    let Files { form, path, args } = *what;
    let source = Source::read(path)?;
    let fail = |why: String| Failure::new(Kind::Injection, source.shown(), why);
    let text = std::str::from_utf8(source.text.expose()).map_err(|err| fail(err.to_string()))?;
    let mut file = File { source: source.clone(), found: Vec::new(), places: Vec::new() };
    for (path, value, place) in entries(form, text).map_err(|err| fail(err.to_string()))? {
        let from = path.join(".");
        let wanted = args.all || is_suspect(&path, value.expose());
        if !wanted || value.is_empty() || is_placeholder(value.expose()) {
            continue;
        }
        if form == ImportForm::Dotenv && value.expose().windows(2).any(|two| two == b"${") {
            context.out.note(format_args!("{from}: left out, it is made of other variables"));
            continue;
        }
        let name = name_for(args.storing.dir.as_ref(), &path)?;
        file.found.push(Found { name, value, from });
        file.places.push(place);
    }
    Ok(file)
}

type Entry = (Vec<String>, SecretBytes, Range<usize>);

fn entries(form: ImportForm, text: &str) -> Result<Vec<Entry>, ParseError> {
    let variables = |entries: Vec<dotenv::Entry>| {
        entries.into_iter().map(|entry| (vec![entry.key], entry.value, entry.span)).collect()
    };
    let root = match form {
        ImportForm::Dir => return Ok(Vec::new()),
        ImportForm::Dotenv => return dotenv::parse(text).map(variables),
        ImportForm::Env => return dotenv::parse_raw(text).map(variables),
        ImportForm::Json => json::parse(text)?,
        ImportForm::Yaml => yaml::parse(text)?,
    };
    let mut found = Vec::new();
    root.texts(&mut |path, value, place| {
        let copy = SecretBytes::copy_from(value.expose());
        found.push(copy.map(|copy| (path.to_vec(), copy, place)));
    });
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}

fn is_placeholder(value: &[u8]) -> bool {
    value.starts_with(b"${SECRET_") && value.ends_with(b"}")
}

/// Reads every file below a directory; names are the ways to them. Links and dot files are left out.
fn files_below(top: &Path, directory: Option<&SecretName>) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    let mut open = vec![(top.to_path_buf(), String::new())];
    while let Some((path, relative)) = open.pop() {
        let fail = |err: std::io::Error| {
            Failure::new(Kind::Config, path.display().to_string(), err.to_string())
        };
        for entry in fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let segment = entry.file_name().to_string_lossy().into_owned();
            if segment.starts_with('.') {
                continue;
            }
            let below = if relative.is_empty() { segment } else { format!("{relative}/{segment}") };
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                open.push((entry.path(), below));
            } else if kind.is_file() {
                files.extend(one_file(&entry.path(), &below, directory)?);
            }
        }
    }
    files.sort_by(|a, b| a.source.path.cmp(&b.source.path));
    Ok(files)
}

fn one_file(
    path: &Path,
    relative: &str,
    directory: Option<&SecretName>,
) -> Result<Option<File>, Failure> {
    let source = Source::read(path)?;
    if source.text.is_empty() || is_placeholder(source.text.expose()) {
        return Ok(None);
    }
    let whole =
        directory.map_or(relative.to_owned(), |directory| format!("{directory}/{relative}"));
    let name = whole.parse::<SecretName>();
    let name = name.map_err(|err| Failure::new(Kind::Config, relative, err.to_string()))?;
    let value = SecretBytes::copy_from(source.text.expose())
        .map_err(|err| Failure::new(Kind::Injection, relative, err.to_string()))?;
    let whole = 0..source.text.len();
    let found = vec![Found { name, value, from: source.shown() }];
    Ok(Some(File { source, found, places: vec![whole] }))
}
