//! `umount`: ends a mount, and with it its daemon.

use std::path::PathBuf;

use serde_json::json;

use super::abort::connection;
use super::{Done, absolute};
use crate::cli::Context;
use crate::cli::args::Umount;
use crate::cli::client::choose;
use crate::cli::error::{Failure, Kind};
use crate::daemon::run::FS_TYPE;
use crate::system::{Unmount, mounts, remove_mountpoint, topmost, unmount};

pub(super) fn run(context: &Context, args: &Umount) -> Done {
    let path = path(context, args)?;
    let shown = path.display().to_string();
    let fail = |why: String| Failure::new(Kind::BackendConnection, shown.clone(), why);
    let table = mounts().map_err(|err| fail(err.to_string()))?;
    // A dead mount is unmounted too, so its root is not opened here.
    let mount = topmost(&table, &path)
        .filter(|found| found.fs_type == FS_TYPE)
        .ok_or_else(|| fail("no secretfs is mounted there".into()))?;
    let how = if args.lazy { Unmount::Detach } else { Unmount::IfUnused };
    unmount(&path, how).map_err(|err| {
        let busy = err.kind() == std::io::ErrorKind::ResourceBusy;
        let hint = if busy { "close the files that are open in it, or use --lazy" } else { "" };
        fail(err.to_string()).hint(hint)
    })?;
    if args.rmdir {
        remove_mountpoint(&path).map_err(|err| fail(err.to_string()))?;
    }
    // Of a container's bind this table knows nothing, but the connection outlives it.
    let is_used = connection(mount).exists();
    if is_used {
        context.out.note(format_args!(
            "{shown} is still used, by open files or in a container that has it: until that ends, its daemon goes on"
        ));
    }
    let done = json!({ "unmounted": shown, "still_used": is_used });
    context.out.done(format_args!("unmounted {shown}"), &done)
}

fn path(context: &Context, args: &Umount) -> Result<PathBuf, Failure> {
    match args.mountpoint.clone().or_else(|| context.named_mount()) {
        // Not canonicalize: that would ask the daemon, which may be dead.
        Some(named) => absolute(&named),
        None => choose(&mounts().unwrap_or_default(), Some(&context.configured_mount()?)),
    }
}
