//! `backup`: the whole store, encrypted, into a file and back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde_json::json;

use super::Done;
use super::destroy::confirm;
use super::mount::{passphrase, read_descriptor};
use crate::cli::Context;
use crate::cli::args::{Backup, BackupRestore};
use crate::cli::client::{Client, close};
use crate::cli::error::{Failure, Kind};
use crate::daemon::config::{Config, Layer};
use crate::daemon::restore;
use crate::daemon::run::FS_TYPE;
use crate::system::{Mount, mounts};

pub(super) fn run(context: &Context, args: &Backup) -> Done {
    match args {
        Backup::Create(args) => create(context, &args.file),
        Backup::Restore(args) => bring_back(context, args),
    }
}

fn create(context: &Context, path: &Path) -> Done {
    let client = context.client()?;
    let shown = path.display().to_string();
    let fail = |err: io::Error| Failure::new(Kind::Config, shown.clone(), err.to_string());
    let mut from = File::open(client.path(".control/backup"))
        .map_err(|err| Failure::from_errno("backup", &err))?;
    let mut to =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    let copied = io::copy(&mut from, &mut to).and_then(|bytes| to.sync_all().map(|()| bytes));
    let bytes = copied.map_err(|err| {
        // Half a backup must not be taken for one.
        drop(std::fs::remove_file(path));
        Failure::from_errno("backup", &err)
    })?;
    let document = json!({ "file": shown, "bytes": bytes });
    context
        .out
        .done(format_args!("{shown}: {bytes} bytes, encrypted with the store's key"), &document)
}

fn bring_back(context: &Context, args: &BackupRestore) -> Done {
    let shown = args.file.display().to_string();
    let backup = File::open(&args.file)
        .map_err(|err| Failure::new(Kind::Config, shown.clone(), err.to_string()))?;
    if !args.force {
        confirm(context, &format!("Replace everything in the store by {shown}?"), "--force")?;
    }
    // Another store's mount, of this user or another, is none of our business.
    let (_, config) = context.config(args.system.system, Layer::default())?;
    let is_ours = |mount: &Mount| mount.fs_type == FS_TYPE && mount.mountpoint == config.mountpoint;
    if context.named_mount().is_some() {
        online(&context.client()?, backup)?;
    } else if mounts().is_ok_and(|table| table.iter().any(is_ours)) {
        online(&Client::find(Some(&config.mountpoint), None)?, backup)?;
    } else {
        offline(&config, args, backup)?;
    }
    context.out.done(format_args!("restored from {shown}"), &json!({ "restored": shown }))
}

fn online(client: &Client, mut backup: File) -> Done {
    let fail = |err: io::Error| Failure::from_errno("restore", &err);
    let path = client.path(".control/restore");
    let mut to = OpenOptions::new().read(true).write(true).open(path).map_err(fail)?;
    // Without a byte there is no write, and close(2) has nothing to answer.
    if io::copy(&mut backup, &mut to).map_err(fail)? == 0 {
        return Err(Failure::new(Kind::Decryption, "restore", "the backup is empty"));
    }
    // Each call begins or waits, up to the daemon's deadline: in between we can be interrupted, and
    // the restore goes on.
    let verdict = loop {
        match to.sync_data() {
            Err(err) if err.raw_os_error() == Some(libc::EINPROGRESS) => {}
            verdict => break verdict,
        }
    };
    if let Err(err) = verdict {
        let why = reason(&to).unwrap_or_default();
        let failure = fail(err);
        return Err(if why.is_empty() { failure } else { Failure { why, ..failure } });
    }
    close(to).map_err(fail)
}

/// Reads why a restore has failed.
fn reason(restore: &File) -> Option<String> {
    let mut text = vec![0; 4096];
    let read = restore.read_at(&mut text, 0).ok()?;
    let state: serde_json::Value = serde_json::from_slice(text.get(..read)?).ok()?;
    Some(state.get("error")?.as_str()?.to_owned())
}

/// Without a daemon: the store is ours for that time, by the lock that a daemon would hold.
fn offline(config: &Config, args: &BackupRestore, mut backup: File) -> Done {
    let phrase = read_descriptor(passphrase(&config.key, &args.from))?;
    Ok(restore::offline(config, &phrase, &mut backup)?)
}
