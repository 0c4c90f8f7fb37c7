//! Backups of stores that do not fit into an answer: streamed out while the mount serves, and taken back by
//! a restore that may last longer than the deadline.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its own environment says how much of it there is"
)]

mod common;
mod site;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use secretfs::audit::Options;
use secretfs::broker::{Broker, Limits, LogSettings, Parts, Put, read_header};
use secretfs::keysource::KeySource;
use secretfs::model::{Caller, Gid, Uid};
use secretfs::policy::{NumericIds, Policy, initial};
use secretfs::store::{RedbStore, Store};
use secretfs::system::{SecretBytes, SystemClock};
use serde_json::Value;

use common::{eventually, number, read, write, write_file};
use site::Site;

/// Secrets in the store: 100,000 in a campaign.
fn secrets() -> usize {
    let full = std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|count| count == "full");
    if full { 100_000 } else { 4_000 }
}

/// A site that nobody serves yet, with as many secrets, and the shortest deadline.
fn filled(secrets: usize) -> Option<Site> {
    let site = Site::new()?;
    let directory = site.config().parent().unwrap().to_owned();
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    write_file(&site.config(), b"deadline_seconds = 1\n");
    site.init();
    fill(&site, secrets);
    Some(site)
}

fn name(number: usize) -> String {
    format!("team-{}/key-{number}", number / 1000)
}

/// Puts secrets into the store through the library, each with its number as value.
fn fill(site: &Site, secrets: usize) {
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&site.store()).unwrap());
    let root = KeySource::File(site.key()).unlock(&read_header(&*store).unwrap()).unwrap();
    let parts = Parts {
        store,
        policy: Policy::parse(&initial(&[Uid(0)]), &NumericIds).unwrap(),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        log: LogSettings {
            directory: site.state().join("audit"),
            options: Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    let broker = Broker::open(parts, root).unwrap();
    let caller = Caller::with_ids(Uid(0), Gid(0));
    std::thread::scope(|scope| {
        for worker in 0..64 {
            let (broker, caller) = (&broker, &caller);
            scope.spawn(move || {
                for number in (worker..secrets).step_by(64) {
                    let value = SecretBytes::copy_from(number.to_string().as_bytes()).unwrap();
                    let name = name(number).parse().unwrap();
                    broker.write(caller, &name, value, &Put::default()).unwrap();
                }
            });
        }
    });
    broker.close();
}

/// Reads every 97th secret and compares.
fn assert_all(site: &Site, secrets: usize) {
    for number in (0..secrets).step_by(97) {
        let found = read(&site.secret(&name(number)));
        assert_eq!(found, Ok(number.to_string().into_bytes()), "{}", name(number));
    }
}

fn count(site: &Site) -> u64 {
    let status: Value = serde_json::from_str(&site.ask(&["--json", "status"])).unwrap();
    status["secrets"]
        .as_str()
        .map_or_else(|| status["secrets"].as_u64(), |n| n.parse().ok())
        .unwrap()
}

/// The largest amount of memory that the daemon has ever held, in bytes.
fn peak_memory(site: &Site) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_store_is_backed_up_and_restored_however_long_that_takes() {
    let secrets = secrets();
    let Some(mut site) = filled(secrets) else { return };
    site.serve();
    let file = site.path("backup");
    let before = peak_memory(&site);
    site.ask(&["backup", "create", file.to_str().unwrap()]);
    let bytes = fs::metadata(&file).unwrap().len();
    let grown = peak_memory(&site) - before;
    eprintln!("{secrets} secrets: a backup of {bytes} bytes; memory grew by {grown} bytes");

    for number in (0..secrets).step_by(50) {
        fs::remove_file(site.secret(&name(number))).unwrap();
    }
    write(&site.secret("later"), b"later").unwrap();
    // It may take longer than other commands of tests: a hundred thousand secrets in one transaction.
    let mut restore = site.command(&["backup", "restore", "--force", file.to_str().unwrap()]);
    let output = restore.arg("--mount").arg(site.secret("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(count(&site), secrets as u64);
    assert_all(&site, secrets);
    assert!(!site.secret("later").exists());
    site.stop();
    // A verification has to end within the deadline.
    write_file(&site.config(), b"deadline_seconds = 60\n");
    site.serve();
    site.assert_whole();
    assert_eq!(count(&site), secrets as u64);
}

#[test]
fn a_backup_is_one_view_whatever_is_written_while_it_is_read() {
    let secrets = 3_000;
    let Some(mut site) = filled(secrets) else { return };
    site.serve();
    let mut backup = File::open(site.secret(".control/backup")).unwrap();
    let mut bytes = vec![0; 1000];
    backup.read_exact(&mut bytes).unwrap();
    for number in 0..50 {
        write(&site.secret(&name(secrets - 1 - number)), b"later").unwrap();
    }
    backup.read_to_end(&mut bytes).unwrap();
    drop(backup);
    write(&site.secret(".control/restore"), &bytes).unwrap();
    for number in 0..50 {
        let number = secrets - 1 - number;
        assert_eq!(read(&site.secret(&name(number))), Ok(number.to_string().into_bytes()));
    }
    site.assert_whole();
}

#[test]
fn a_reader_that_goes_away_in_the_middle_leaves_a_failure_on_record_and_nothing_else() {
    let Some(mut site) = filled(8_000) else { return };
    site.serve();
    let named = |name: &str| {
        let tasks = fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap().flatten();
        tasks
            .filter(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
            })
            .count()
    };
    let mut backup = File::open(site.secret(".control/backup")).unwrap();
    backup.read_exact(&mut [0; 300_000]).unwrap();
    assert_eq!(named("backup"), 1);
    // What was passed cannot be read again, and what was not, not yet.
    backup.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(number(&backup.read(&mut [0]).unwrap_err()), libc::EINVAL);
    drop(backup);
    eventually("the thread is gone", || named("backup") == 0);
    let failed = |line: &Value| line["action"] == "backup" && line["outcome"] == "failed";
    eventually("it is on record", || site.audit().iter().any(failed));
    write(&site.secret("after"), b"example-value").unwrap();
    site.ask(&["backup", "create", site.path("whole").to_str().unwrap()]);
}

#[test]
fn a_restore_says_how_far_it_is_to_whoever_reads_it_and_is_an_admin() {
    let Some(mut site) = filled(500) else { return };
    site.serve();
    let path = site.secret(".control/restore");
    let state = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["state"].clone();
    assert_eq!(state(&read(&path).unwrap()), "none");
    let bytes = read(&site.secret(".control/backup")).unwrap();
    let mut restore = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    restore.write_all(&bytes[..bytes.len() - 1]).unwrap();
    let mut text = [0; 4096];
    let said = restore.read_at(&mut text, 0).unwrap();
    assert_eq!(state(&text[..said]), "taking");
    let verdict = loop {
        match restore.sync_data().map_err(|err| number(&err)) {
            Err(libc::EINPROGRESS) => {}
            verdict => break verdict,
        }
    };
    assert_eq!(verdict, Err(libc::EINVAL), "it lacks its last byte");
    assert_eq!(common::close(restore), Err(libc::EINVAL), "the verdict stands");
    let failed: Value = serde_json::from_slice(&read(&path).unwrap()).unwrap();
    assert_eq!(failed["state"], "failed");
    assert!(failed["error"].as_str().unwrap().contains("too early"), "{failed}");
    let stranger = common::Person::new(61_001).run(|| read(&path));
    assert_eq!(stranger, Err(libc::EACCES));
    assert_all(&site, 500);
}
