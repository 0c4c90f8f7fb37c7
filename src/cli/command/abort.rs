//! `abort`: cuts a mount's connection through fusectl, which frees callers that even SIGKILL cannot.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Done, absolute};
use crate::cli::Context;
use crate::cli::error::{Failure, Kind};
use crate::daemon::run::FS_TYPE;
use crate::system::{Mount, mounts, topmost};

/// Where fusectl is mounted.
pub(super) const CONNECTIONS: &str = "/sys/fs/fuse/connections";

pub(super) fn run(context: &Context) -> Done {
    let table = mounts()
        .map_err(|err| Failure::new(Kind::BackendConnection, "no mount", err.to_string()))?;
    let mount = find(context, &table)?;
    let connection = connection(mount);
    let cut = OpenOptions::new()
        .write(true)
        .open(connection.join("abort"))
        .and_then(|mut file| file.write_all(b"1"));
    cut.map_err(|err| {
        let hint = if err.kind() == io::ErrorKind::NotFound {
            "mount fusectl: mount -t fusectl fusectl /sys/fs/fuse/connections"
        } else {
            "root can, and who has mounted it"
        };
        Failure::new(Kind::Authorization, connection.display().to_string(), err.to_string())
            .hint(hint)
    })?;
    let shown = mount.mountpoint.display().to_string();
    let line = format!("cut off {shown}: its callers are free; `secretfs up` mounts it again");
    context.out.done(line, &json!({ "aborted": shown }))
}

/// Returns the directory of a mount's connection.
pub(super) fn connection(mount: &Mount) -> PathBuf {
    Path::new(CONNECTIONS).join(mount.connection().to_string())
}

/// Finds the mount without touching it: who touches a hung mount hangs too.
fn find<'a>(context: &Context, table: &'a [Mount]) -> Result<&'a Mount, Failure> {
    let refused = |why: &str| Failure::new(Kind::BackendConnection, "no mount", why);
    let named = context.args.mount.clone();
    let named = named.or_else(|| context.environment.value("SECRETFS_MOUNT").map(PathBuf::from));
    if let Some(path) = named {
        let path = absolute(&path)?;
        return topmost(table, &path)
            .filter(|mount| mount.fs_type == FS_TYPE)
            .ok_or_else(|| refused("no secretfs is mounted there"));
    }
    let mut ours = table.iter().filter(|mount| mount.fs_type == FS_TYPE);
    match (ours.next(), ours.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(refused("no secretfs is mounted")),
        (Some(_), Some(_)) => Err(refused("several are mounted").hint("choose one with --mount")),
    }
}
