//! `umount`: ends a mount, and with it its daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::abort::connection;
use super::{Done, absolute};
use crate::cli::Context;
use crate::cli::args::Umount;
use crate::cli::client::choose;
use crate::cli::error::{Failure, Kind};
use crate::daemon::config::Layer;
use crate::daemon::lock::wait_until_released;
use crate::daemon::run::FS_TYPE;
use crate::system::binds::unbind_all;
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
    // They would keep the session alive. What is in the namespace of a container stays.
    for (bind, err) in unbind_all(&table, mount.device) {
        let bound = bind.mountpoint.display();
        context.out.note(format_args!("{bound} is still there: {err}"));
    }
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
    let has_ended = !is_used && wait_for_daemon(context, &path);
    let done = json!({ "unmounted": shown, "still_used": is_used, "daemon_ended": has_ended });
    context.out.done(format_args!("unmounted {shown}"), &done)
}

/// Waits until the daemon has let go of the store, so that it can be mounted again. Returns whether it has,
/// as far as the configuration says where the store is.
fn wait_for_daemon(context: &Context, mountpoint: &Path) -> bool {
    let Ok((_, config)) = context.config(false, Layer::default()) else { return true };
    match wait_until_released(&config.state_dir, mountpoint, LAST_WORDS) {
        Ok(()) => true,
        Err(error) => {
            context.out.note(format_args!(
                "it is unmounted, but its daemon has not ended: {error}; `secretfs doctor` looks into it"
            ));
            false
        }
    }
}

/// How long a daemon may take to end: a little longer than its keeper grants it.
const LAST_WORDS: Duration = Duration::from_secs(15);

fn path(context: &Context, args: &Umount) -> Result<PathBuf, Failure> {
    match args.mountpoint.clone().or_else(|| context.named_mount()) {
        // Not canonicalize: that would ask the daemon, which may be dead.
        Some(named) => absolute(&named),
        None => choose(&mounts().unwrap_or_default(), Some(&context.configured_mount()?)),
    }
}
