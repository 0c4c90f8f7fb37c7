//! `inject`: a secret where a program looks for a file, as a link to the mount, a bind of it, or a copy in memory.
//!
//! Nothing is put over what somebody else has put there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Done, absolute};
use crate::cli::Context;
use crate::cli::account::Account;
use crate::cli::args::{Inject, InjectFile, InjectRemove};
use crate::cli::changes::Changes;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::snapshot::Snapshot;
use crate::effect::{Copies, NoPlace, replace_link};
use crate::system::binds::{self, BindError};

mod list;

pub(super) fn run(context: &Context, args: &Inject) -> Done {
    match args {
        Inject::File(args) if args.bind => bind(context, args),
        Inject::File(args) if args.copy => copy(context, args),
        Inject::File(args) => link(context, args),
        Inject::List => list::run(context),
        Inject::Remove(args) => remove(context, args),
    }
}

fn link(context: &Context, args: &InjectFile) -> Done {
    let client = context.client()?;
    // A link to nothing is found out here rather than by the program.
    client.meta(&args.name)?;
    let path = place_of(&args.path)?;
    let mountpoint = client.mount.mountpoint.clone();
    let is_ours = |target: &Path| target.starts_with(&mountpoint);
    place(&path, &mountpoint.join(args.name.as_str()), is_ours)?;
    report(context, args, &path, "is a link to")
}

fn bind(context: &Context, args: &InjectFile) -> Done {
    let path = place_of(&args.path)?;
    let source = context.mountpoint()?.join(args.name.as_str());
    binds::bind(&source, &path).map_err(|err| match err {
        BindError::NotRoot => unbound(&path, &err).hint("run it as root, or do without --bind"),
        BindError::Occupied => foreign(&path),
        BindError::Secret(err) => Failure::from_errno(args.name.as_str(), &err),
        BindError::Mount(_) | BindError::NotMounted | BindError::Place(_) => unbound(&path, &err),
    })?;
    report(context, args, &path, "is a bind of")
}

fn copy(context: &Context, args: &InjectFile) -> Done {
    let owner = args.owner.as_deref().map(Account::of_file).transpose()?;
    let owner = owner.map(|account| (account.uid.as_raw(), account.gid.as_raw()));
    let path = place_of(&args.path)?;
    let data = Copies::beside(&path).map_err(|err| no_place(&path, &err))?;
    let names = BTreeSet::from([args.name.clone()]);
    let changes = args.watch.then(Changes::new).transpose()?;
    let mountpoint = context.mountpoint()?;
    let write = || {
        let client = Client::find(Some(&mountpoint), None)?;
        if let Some(changes) = &changes {
            changes.watch(&client, &names);
        }
        let snapshot = Snapshot::read(&client, &names)?;
        if let Some(value) = snapshot.value(&args.name) {
            data.put(value, args.mode, owner).map_err(|err| failed(&path, &err))?;
        }
        Ok::<_, Failure>(snapshot.versions)
    };
    let mut known = write()?;
    place(&path, &data.target(), |target| target == data.target())?;
    report(context, args, &path, "is a copy of")?;
    let Some(changes) = &changes else { return Ok(()) };
    loop {
        let current = changes.until(&mountpoint, &names, &known)?;
        known = write().unwrap_or_else(|failure| {
            context.out.note(format_args!("the copy stays as it is: {failure}"));
            current
        });
    }
}

fn remove(context: &Context, args: &InjectRemove) -> Done {
    let path = place_of(&args.path)?;
    let shown = path.display().to_string();
    let removed =
        |_| context.out.done(format_args!("{shown} is removed"), &json!({ "file": shown }));
    if binds::unbind_any(&path).map_err(|err| failed(&path, &err))? {
        return removed(());
    }
    let target = fs::read_link(&path).map_err(|_| foreign(&path))?;
    let data = Copies::beside(&path);
    match data {
        Ok(data) if target == data.target() => {
            fs::remove_file(&path).map_err(|err| failed(&path, &err))?;
            data.remove().map_err(|err| failed(&path, &err))?;
        }
        _ => {
            let client = context.client()?;
            if !target.starts_with(&client.mount.mountpoint) {
                return Err(foreign(&path));
            }
            fs::remove_file(&path).map_err(|err| failed(&path, &err))?;
        }
    }
    removed(())
}

fn report(context: &Context, args: &InjectFile, path: &Path, is: &str) -> Done {
    let shown = path.display().to_string();
    let document = json!({ "file": shown, "name": args.name });
    context.out.done(format_args!("{shown} {is} {}", args.name), &document)
}

/// Returns the place itself: no link may be on the way to what is put there.
fn place_of(path: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(leaf)) => {
            let parent = parent.canonicalize().map_err(|err| failed(&path, &err))?;
            Ok(parent.join(leaf))
        }
        (Some(_) | None, _) => Err(no_place(&path, &NoPlace::NoFile)),
    }
}

/// Makes a link in one step. What is there must be a link of ours, or nothing.
fn place(path: &Path, target: &Path, is_ours: impl Fn(&Path) -> bool) -> Done {
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(failed(path, &err)),
        Ok(_) if fs::read_link(path).is_ok_and(|old| is_ours(&old)) => {}
        Ok(_) => return Err(foreign(path)),
    }
    replace_link(path, target).map_err(|err| failed(path, &err))
}

fn no_place(path: &Path, err: &NoPlace) -> Failure {
    let failure = Failure::new(Kind::Injection, path.display().to_string(), err.to_string());
    match err {
        NoPlace::Directory(_) | NoPlace::NoFile => failure,
        NoPlace::OnDisk(_) => {
            failure.hint("choose a place on a tmpfs, such as /run, or do without --copy")
        }
    }
}

fn unbound(path: &Path, err: &BindError) -> Failure {
    Failure::new(Kind::Injection, path.display().to_string(), err.text())
}

fn foreign(path: &Path) -> Failure {
    let shown = path.display().to_string();
    Failure::new(Kind::Injection, shown, "what is there was not put there by `secretfs inject`")
        .hint("move it away, or choose another path")
}

fn failed(path: &Path, err: &io::Error) -> Failure {
    Failure::new(Kind::Injection, path.display().to_string(), err.to_string())
}
