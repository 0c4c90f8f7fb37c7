//! The log under attack, under failure and in use. The world of these tests is built here.

mod carrying;
mod exporting;
mod finding;
mod reading;
mod starting;
mod tamper;
mod writing;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::model::{Caller, Clock, Exe, Gid, ManualClock, Process, SecretName, Seq, Uid};
use crate::system::Mapping;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A log in a directory of its own, on a clock that stands still.
struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    options: Options,
}

impl World {
    fn new() -> Self {
        Self::with_segments_of(64 << 20)
    }

    fn with_segments_of(segment_bytes: u64) -> Self {
        // The background thread must not do by chance what a test is about.
        let sync_interval = 365 * DAY;
        Self {
            dir: TempDir::new().unwrap(),
            clock: Arc::new(ManualClock::at(1_800_000_000)),
            options: Options {
                check_interval: Duration::ZERO,
                segment_bytes,
                sync_interval,
                ..Options::default()
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn try_open(&self, anchor: Option<Head>) -> Result<AuditLog, AuditError> {
        self.try_open_with(anchor.map(Anchor::from))
    }

    fn try_open_with(&self, anchor: Option<Anchor>) -> Result<AuditLog, AuditError> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let names: HashMap<Uid, Arc<str>> = [(Uid(1000), Arc::from("alice"))].into();
        AuditLog::open(&self.path(), key(), anchor, self.options.clone(), clock, Arc::new(names))
    }

    fn open(&self) -> AuditLog {
        self.try_open(None).unwrap()
    }

    /// Appends so many reads of `prod/db/password-<n>` and returns the log.
    fn open_with_lines(&self, lines: usize) -> AuditLog {
        let log = self.open();
        (0..lines).for_each(|n| _ = read(&log, n).unwrap());
        log
    }

    fn verify(&self, anchor: Option<&Head>) -> Result<Verified, VerifyError> {
        verify(&self.path(), &key(), anchor)
    }

    fn damage(&self, anchor: Option<&Head>) -> Option<Damage> {
        match self.verify(anchor) {
            Ok(_) => None,
            Err(VerifyError::Damaged { damage, .. }) => Some(damage),
            Err(VerifyError::Io(error)) => panic!("{error}"),
        }
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments::list(&self.path()).unwrap().into_iter().map(|segment| segment.path).collect()
    }

    fn last_segment(&self) -> PathBuf {
        self.segments().pop().unwrap()
    }

    fn entries(&self, filter: &Filter) -> Vec<Entry> {
        query(&self.path(), filter).unwrap().map(Result::unwrap).collect()
    }
}

/// Returns a world with the files as a death of the process leaves them.
fn killed(world: &World) -> World {
    let other = World::new();
    fs::create_dir(other.path()).unwrap();
    for path in world.segments() {
        fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
    }
    other
}

fn key() -> AuditKey {
    AuditKey::new(Zeroizing::new([42; 32]))
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn caller() -> Caller {
    let process = Process {
        pid: 4711,
        started: crate::model::Timestamp::from_second(1_799_999_000).unwrap(),
        comm: b"nginx".to_vec(),
        exe: Some(Exe { path: "/usr/sbin/nginx".into(), sha256: None }),
        unit: Some("system.slice/nginx.service".into()),
        container: None,
    };
    let process = Some(Arc::new(process));
    Caller { tid: Some(4712), process, ..Caller::with_ids(Uid(1000), Gid(100)) }
}

fn read(log: &AuditLog, n: usize) -> Result<Seq, AuditError> {
    let (secret, caller) = (name(&format!("prod/db/password-{n}")), caller());
    let event = Event::new(Action::Read, Outcome::Allowed);
    log.append(&Event { secret: Some(&secret), caller: Some(&caller), rule: Some("web"), ..event })
}

/// Overwrites a file as an attacker does.
fn overwrite(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    let mut text = fs::read(path).unwrap();
    // A log in use has zeros at its end.
    text.truncate(text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    text.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn is_campaign_full() -> bool {
    std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|value| value == "full")
}

/// SplitMix64 (Steele, Lea, Flood 2014): a fixed seed gives the same campaign each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).unwrap()
    }
}

/// A disk that fails one write after it took a part of it, or every sync.
#[derive(Debug)]
struct FaultyDisk {
    /// How many writes still work; the one after them fails, and then all work again.
    writes_left: AtomicI64,
    sync_fails: std::sync::atomic::AtomicBool,
}

impl FaultyDisk {
    fn new(writes_left: i64) -> Arc<Self> {
        Arc::new(Self { writes_left: AtomicI64::new(writes_left), sync_fails: false.into() })
    }
}

impl Disk for FaultyDisk {
    fn write(
        &self,
        file: &File,
        mapping: Option<&mut Mapping>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            SystemDisk.write(file, mapping, offset, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.write(file, mapping, offset, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        SystemDisk.sync(file)
    }
}
