//! Watchers through the mount: when a secret changes they are told, once a version and never before
//! the new value can be read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::{DEADLINE, Person, World, close, write};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup, fsync, pipe};

const ADA: u32 = 61_301;

const ADA_READS_MINE: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["mine/**"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "reader"
uid = [61301]
"#;

/// A watch for IN_CLOSE_WRITE on files and directories.
struct Watch(Inotify);

impl Watch {
    fn on(paths: &[&Path]) -> Self {
        Self::for_events(AddWatchFlags::IN_CLOSE_WRITE, paths)
    }

    fn for_events(events: AddWatchFlags, paths: &[&Path]) -> Self {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        for path in paths {
            watch.add_watch(*path, events).unwrap();
        }
        Self(watch)
    }

    /// Waits for an event, and returns all that are there by then: the names that they carry.
    fn next(&self) -> Vec<String> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let at_most = PollTimeout::try_from(DEADLINE).unwrap();
        assert_eq!(poll(&mut fds, at_most), Ok(1), "no event came");
        self.rest()
    }

    /// Returns the events that are there already.
    fn rest(&self) -> Vec<String> {
        let name = |event: nix::sys::inotify::InotifyEvent| {
            event.name.map(|name| name.into_string().unwrap()).unwrap_or_default()
        };
        match self.0.read_events() {
            Ok(events) => events.into_iter().map(name).collect(),
            Err(nix::errno::Errno::EAGAIN) => Vec::new(),
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Has the daemon make a version by itself: there is no handle whose close would tell of it.
fn put_empty(world: &World, name: &str) {
    world.control("admin", &format!(r#"{{"do":"put-empty","name":"{name}"}}"#)).unwrap();
}

#[test]
fn a_version_written_through_the_mount_is_told_once_to_the_watchers_of_file_and_directory() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "v0");
    let path = world.path("app/key");
    let (file, directory) = (Watch::on(&[&path]), Watch::on(&[&world.path("app")]));
    for n in 1..=500 {
        let value = format!("v{n}");
        write(&path, value.as_bytes()).unwrap();
        assert_eq!(file.next(), [""]);
        assert_eq!(directory.next(), ["key"]);
        assert_eq!(world.get("app/key").unwrap(), value.as_bytes());
    }
    assert!(file.rest().is_empty() && directory.rest().is_empty());
}

#[test]
fn a_version_made_by_the_daemon_is_told_once_and_only_when_it_can_be_read() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "first");
    let path = world.path("app/key");
    let (file, directory) = (Watch::on(&[&path]), Watch::on(&[&world.path("app")]));
    let lines = world.audit().len();
    for n in 0..500 {
        put_empty(&world, "app/key");
        assert_eq!(file.next(), [""], "change {n}");
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            0,
            "the new value is there before the event"
        );
        assert_eq!(directory.next(), ["key"]);
    }
    assert!(file.rest().is_empty() && directory.rest().is_empty());
    let touched = world.audit();
    let touched = touched
        .iter()
        .skip(lines)
        .filter(|line| line["secret"] == "app/key" && line["action"] != "write");
    assert_eq!(touched.count(), 0, "a touch is no access");
}

#[test]
fn an_observer_that_was_killed_is_replaced_and_tells_what_was_to_be_told_meanwhile() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "first");
    let watch = Watch::on(&[&world.path("app/key")]);
    put_empty(&world, "app/key");
    assert_eq!(watch.next(), [""]);
    let keeper = world.keeper().to_string();
    let mut find = Command::new("pgrep");
    find.args(["--parent", &keeper, "--full", "observer"]);
    let mut observers = || String::from_utf8(common::bounded(&mut find).stdout).unwrap();
    for _ in 0..2 {
        let found = observers();
        assert!(!found.is_empty(), "the keeper has an observer");
        // One of them may be the spare server's, and by now be gone.
        for pid in found.lines() {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
        }
        put_empty(&world, "app/key");
        assert_eq!(watch.next(), [""]);
        assert!(watch.rest().is_empty());
    }
}

#[test]
fn a_restore_tells_of_the_secrets_that_it_has_changed_and_of_no_other() {
    let Some(world) = World::start() else { return };
    world.put("app/same", "same");
    world.put("app/key", "old");
    let backup = world.outside("backup");
    let create = common::bounded(world.secretfs().args(["backup", "create"]).arg(&backup));
    assert!(create.status.success(), "{create:?}");
    world.put("app/key", "new");
    let watch = Watch::on(&[&world.path("app")]);
    let restore =
        common::bounded(world.secretfs().args(["backup", "restore", "--force"]).arg(&backup));
    assert!(restore.status.success(), "{restore:?}");
    assert_eq!(watch.next(), ["key"]);
    assert_eq!(world.get("app/key").unwrap(), b"old");
    put_empty(&world, "app/key");
    assert_eq!(watch.next(), ["key"], "in their order, so nothing came of the other");
}

#[test]
fn versions_of_one_handle_are_told_one_by_one_though_it_is_closed_once() {
    let Some(world) = World::start() else { return };
    world.put("key", "first");
    let (path, watch) = (world.path("key"), Watch::on(&[&world.path("key")]));
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all(b"second").unwrap();
    fsync(&writer).unwrap();
    assert!(watch.rest().is_empty(), "the close is still to come");
    writer.write_all(b"+third").unwrap();
    fsync(&writer).unwrap();
    assert_eq!(watch.next().len(), 1);
    close(writer).unwrap();
    assert_eq!(watch.next().len(), 1);
    assert_eq!(world.version("key"), 3);
}

#[test]
fn a_flush_without_news_and_a_reader_tell_nothing() {
    let Some(world) = World::start() else { return };
    world.put("key", "v");
    let watch = Watch::on(&[&world.path("key")]);
    let reader = File::open(world.path("key")).unwrap();
    drop(dup(&reader).unwrap());
    drop(reader);
    assert_eq!(world.get("key").unwrap(), b"v");
    assert!(watch.rest().is_empty());
}

#[test]
fn a_rename_over_a_secret_looks_to_its_directory_as_it_does_elsewhere() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "old");
    let events = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM;
    let watch = Watch::for_events(events, &[&world.path("app")]);
    write(&world.path("app/.key.tmp"), b"new").unwrap();
    fs::rename(world.path("app/.key.tmp"), world.path("app/key")).unwrap();
    let mut names = watch.next();
    names.sort();
    assert_eq!(names, [".key.tmp", "key"]);
    assert_eq!(world.get("app/key").unwrap(), b"new");
}

#[test]
fn a_reader_without_more_rights_is_told_of_what_it_may_read() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine/key", "v1");
    let path = world.path("mine/key");
    let (watched, ready) = pipe().unwrap();
    let told = thread::scope(|scope| {
        let world = &world;
        scope.spawn(move || {
            File::from(watched).read_exact(&mut [0]).unwrap();
            put_empty(world, "mine/key");
        });
        Person::new(ADA).run(|| {
            let watch = Watch::on(&[&path]);
            nix::unistd::write(&ready, b"!").unwrap();
            watch.next().len()
        })
    });
    assert_eq!(told, 1);
}

#[test]
fn inotifywait_prints_the_name_of_what_has_changed() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "v1");
    let mut inotifywait = Command::new("inotifywait");
    inotifywait.args(["-e", "close_write", "--format", "%w%f", "--timeout", "20"]);
    let mut watcher = inotifywait
        .arg(world.path("app"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(watcher.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("Watches established")));
    world.put("app/key", "v2");
    let output = watcher.wait_with_output().unwrap();
    let expected = format!("{}\n", world.path("app/key").display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_toucher_s_privilege_is_nobody_else_s() {
    let Some(world) = World::start() else { return };
    world.put("key", "v");
    put_empty(&world, "key");
    let denied = Person::new(ADA).run(|| {
        OpenOptions::new()
            .write(true)
            .open(world.path("key"))
            .map_or_else(|error| error.raw_os_error().unwrap(), |_| 0)
    });
    assert_eq!(denied, libc::EACCES);
}
