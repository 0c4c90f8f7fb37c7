//! The same on a real mount, served by threads of the test itself: its service and its clock are in reach.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use secretfs::broker::BrokerError;
use secretfs::fs::control::{Health, Held, Host};
use secretfs::fs::{self, Identify, Journal, Options, Owners, Renderings, Touch, Touched, Tree};
use secretfs::model::{Caller, Gid, ManualClock, Uid};
use secretfs::system::SecretBytes;
use serde_json::Value;

use super::World;

/// A mounted world.
pub struct Mounted {
    pub world: World,
    pub touched: Arc<Touches>,
    mountpoint: tempfile::TempDir,
    mount: Option<fs::Mount>,
}

impl Mounted {
    /// Mounts a world; `None` where there is no root or no `/dev/fuse`.
    pub fn new(world: World) -> Option<Self> {
        Self::with_deadline(world, DEADLINE)
    }

    /// The same, where nobody waits for longer than that.
    pub fn with_deadline(world: World, deadline: Duration) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || File::open("/dev/fuse").is_err() {
            let all = std::env::var_os("SECRETFS_REQUIRE_ALL").is_some_and(|value| value == "1");
            assert!(!all, "no root or no /dev/fuse here, and SECRETFS_REQUIRE_ALL=1");
            return None;
        }
        let mountpoint = tempfile::tempdir().unwrap();
        let touched = Arc::new(Touches::default());
        let journal = Journal::new().unwrap();
        journal.begin_generation();
        let tree = Tree::new(fs::Parts {
            broker: world.broker.clone(),
            host: Arc::new(NoHost),
            clock: Arc::<ManualClock>::clone(&world.clock),
            touch: Arc::<Touches>::clone(&touched),
            renderings: Arc::new(Renderings::default()),
            cached: false,
            owners: Owners::Caller,
            deadline,
            journal: Arc::new(journal),
        });
        let device = fs::open_device(mountpoint.path(), Owners::Caller).unwrap();
        let options = Options { threads: 2, deadline, predecessor: None };
        let mount = fs::serve(tree, Arc::new(ByNumbers), &options, &device).unwrap();
        Some(Self { world, touched, mountpoint, mount: Some(mount) })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.path().join(name)
    }

    /// Writes a file as `cat >` does; close's error counts.
    pub fn write(&self, name: &str, value: &[u8]) {
        let mut file = File::create(self.path(name)).unwrap();
        file.write_all(value).unwrap();
        nix::unistd::close(OwnedFd::from(file)).unwrap();
    }

    /// Reads a file as root; an errno otherwise.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, i32> {
        std::fs::read(self.path(name)).map_err(|error| error.raw_os_error().unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.world.service.let_go();
        let _ = umount2(self.mountpoint.path(), MntFlags::MNT_DETACH);
        drop(self.mount.take().map(fs::Mount::wait));
    }
}

/// Far more than any test takes: who meets it has hung.
const DEADLINE: Duration = Duration::from_secs(30);

/// What watchers were told of.
#[derive(Default)]
pub struct Touches(pub Mutex<Vec<String>>);

impl Touch for Touches {
    fn touch(&self, file: Touched, _: Option<Instant>) {
        self.0.lock().push(file.path);
    }

    fn whose(&self) -> Option<Uid> {
        None
    }

    fn is_toucher(&self, _: u32) -> bool {
        false
    }
}

struct ByNumbers;

impl Identify for ByNumbers {
    fn identify(&self, uid: u32, gid: u32, _: u32) -> Caller {
        Caller::with_ids(Uid(uid), Gid(gid))
    }

    fn glimpse(&self, uid: u32, gid: u32, tid: u32) -> Caller {
        self.identify(uid, gid, tid)
    }
}

/// There is no program around the tree.
struct NoHost;

type Refused<T> = Result<T, BrokerError>;

fn none<T>() -> Refused<T> {
    Err(BrokerError::Denied)
}

impl Host for NoHost {
    fn status(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn health(&self) -> Health {
        Health::Ok
    }

    fn anomalies(&self) -> String {
        String::new()
    }

    fn injections(&self) -> String {
        String::new()
    }

    fn metrics(&self, _: &Held) -> String {
        String::new()
    }

    fn reload(&self, _: &Caller) -> Refused<Value> {
        none()
    }

    fn seal(&self, _: &Caller) -> Refused<Value> {
        none()
    }

    fn unseal(&self, _: &Caller, _: Option<SecretBytes>) -> Refused<Value> {
        none()
    }

    fn rotate(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn elevate(&self, _: &Caller, _: &SecretBytes) -> Refused<Value> {
        none()
    }

    fn grant(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn revoke_grant(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn holders(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn scan(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn admin(&self, _: &Caller, _: &Value) -> Refused<Value> {
        none()
    }

    fn backup(&self, _: &Caller, _: &mut dyn Write) -> Refused<()> {
        none()
    }

    fn spool(&self) -> Refused<File> {
        none()
    }

    fn restore(&self, _: &Caller, _: File) -> Refused<()> {
        none()
    }
}
