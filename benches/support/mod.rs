//! What the benchmarks of a real mount share: a daemon with a store of its own, processes pinned to
//! a CPU, and medians.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secretfs::audit;
use secretfs::broker::{Broker, Limits, LogSettings, Parts};
use secretfs::crypto::{Slot, SlotKind};
use secretfs::model::Uid;
use secretfs::policy::{NumericIds, Policy, initial};
use secretfs::store::{self, JournaledStore, RedbStore};
use secretfs::system::{SecretBytes, SystemClock};

/// A process that is ended when this is dropped, and its mount with it.
pub(crate) struct Mounted {
    child: Child,
    crashed: bool,
    pub(crate) mountpoint: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.crashed {
            return;
        }
        let detach = || {
            Command::new("umount").arg("-l").arg(&self.mountpoint).stderr(Stdio::null()).status()
        };
        drop(detach());
        // A daemon ends by itself when its mount is gone; libfuse's example, too.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        let status =
            Command::new("chattr").arg("-i").arg(&self.mountpoint).stderr(Stdio::null()).status();
        drop(status);
    }
}

impl Mounted {
    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process without a word and leaves its mount behind.
    pub(crate) fn crash(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.crashed = true;
    }
}

/// Returns the processes that a process has started with its first thread, which run.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Where a process may run.
#[derive(Clone, Copy)]
pub(crate) enum Placement {
    Free,
    /// On one CPU, before all others there: the most repeatable.
    Pinned,
}

/// Returns a command that runs `program` there.
pub(crate) fn command(placement: Placement, program: &Path) -> Command {
    match placement {
        Placement::Free => Command::new(program),
        Placement::Pinned => {
            let mut command = Command::new("taskset");
            command.args(["-c", "1", "chrt", "-f", "10"]).arg(program);
            command
        }
    }
}

/// Starts secretfs on a store in `home`, made on first use, and waits until it serves.
pub(crate) fn secretfs(placement: Placement, home: &Path, settings: &[&str]) -> Mounted {
    secretfs_with(placement, home, settings, &[])
}

/// Does the same with more variables in the daemon's environment.
pub(crate) fn secretfs_with(
    placement: Placement,
    home: &Path,
    settings: &[&str],
    variables: &[(&str, &str)],
) -> Mounted {
    let mountpoint = home.join("secrets");
    let mut command = command(placement, Path::new(env!("CARGO_BIN_EXE_secretfs")));
    command
        .args(["up", "--foreground"])
        .arg(&mountpoint)
        .args(settings)
        .envs(variables.iter().copied())
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_HOME", home.join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    start(command, mountpoint)
}

/// Opens a broker over a new store in `directory`, without a mount.
pub(crate) fn broker(directory: &Path) -> Broker {
    let path = directory.join("store.redb");
    drop(RedbStore::create(&path).unwrap());
    let store = Arc::new(JournaledStore::open(&path, store::Options::default()).unwrap());
    let key = SecretBytes::copy_from(&[7; 32]).unwrap();
    let root = Broker::create(&*store, &SystemClock, &mut |store, root| {
        Slot::seal(store, SlotKind::KeyFile, &key, root).map_err(|err| err.to_string())
    })
    .unwrap();
    let parts = Parts {
        store,
        policy: Policy::parse(&initial(&[Uid(0)]), &NumericIds).unwrap(),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        log: LogSettings {
            directory: directory.join("audit"),
            options: audit::Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    Broker::open(parts, root).unwrap()
}

/// Starts a program that mounts, and waits for its mount.
pub(crate) fn start(mut command: Command, mountpoint: PathBuf) -> Mounted {
    let child = command.spawn().unwrap();
    let mounted = Mounted { child, crashed: false, mountpoint };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_mounted(&mounted.mountpoint) {
        assert!(Instant::now() < deadline, "no mount at {}", mounted.mountpoint.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    mounted
}

fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_listed = table.lines().any(|line| line.split(' ').nth(4) == path.to_str());
    // A mount that a dead process has left is listed, too, and does not answer.
    is_listed && fs::symlink_metadata(path).is_ok()
}

/// Returns the middle one of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
