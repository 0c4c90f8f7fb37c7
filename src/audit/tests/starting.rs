//! A start behind a process that was killed: what it leaves for later, and what a power cut in between may take.

use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::*;

/// A disk that does nothing durable before it is let, and says what it did.
#[derive(Debug)]
struct SlowDisk {
    gate: Mutex<Receiver<()>>,
    done: Mutex<Vec<String>>,
}

impl SlowDisk {
    /// Dropping the sender lets it go on.
    fn new() -> (Arc<Self>, Sender<()>) {
        let (sender, gate) = channel();
        (Arc::new(Self { gate: Mutex::new(gate), done: Mutex::default() }), sender)
    }

    fn does(&self, what: &str, file: Option<&File>) {
        // It only ever ends by the sender's end.
        self.gate.lock().recv().unwrap_err();
        let id = file.map(|file| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()));
        self.done.lock().push(id.map_or_else(|| what.to_owned(), |id| format!("{what} {id}")));
    }
}

impl Disk for SlowDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        self.does("sync", Some(file));
        Ok(())
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.does("cut", Some(file));
        SystemDisk.cut(file, bytes)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.does("sync the directory", None);
        Ok(())
    }
}

/// Returns a log whose process was killed behind five lines, and then a second one behind four, before anything of it
/// was made durable.
fn killed_twice() -> World {
    let world = World::new();
    let first = world.open_with_lines(4);
    let mut second = killed(&world);
    drop(first);
    let (disk, gate) = SlowDisk::new();
    second.options.disk = disk;
    let log = second.open_with_lines(3);
    let left = killed(&second);
    drop(gate);
    drop(log);
    left
}

/// Returns what the last start says.
fn last_start(world: &World) -> serde_json::Value {
    let starts = Filter { action: Some(Action::Start), ..Filter::default() };
    world.entries(&starts).pop().unwrap().detail.unwrap()["start"].clone()
}

fn write_zeros(path: &Path, from: usize, len: usize) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; len], from as u64).unwrap();
}

#[test]
fn a_start_behind_a_kill_answers_while_the_disk_stands_still_and_then_keeps_the_order() {
    let world = World::new();
    let before = world.open_with_lines(3);
    let mut killed = killed(&world);
    drop(before);
    let (disk, gate) = SlowDisk::new();
    killed.options.disk = disk.clone();
    let log = killed.open_with_lines(2);
    assert_eq!((log.head().seq, log.synced_head()), (Seq(7), Head::EMPTY));
    assert_eq!(killed.verify(None).unwrap().head, log.head());
    drop(gate);
    assert_eq!(log.sync().unwrap(), log.head());
    let id = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let [old, new] = [0, 1].map(|at| id(&killed.segments()[at]));
    let expected = [
        format!("sync {old}"),
        "sync the directory".into(),
        format!("sync {new}"),
        format!("cut {old}"),
    ];
    assert_eq!(disk.done.lock()[..4], expected);
}

#[test]
fn the_segments_of_processes_that_were_killed_one_after_the_other_go_on_with_each_other() {
    let world = killed_twice();
    read(&world.open(), 0).unwrap();
    assert_eq!(world.verify(None).unwrap().segments, 3);
    assert_eq!(last_start(&world)["dropped_bytes"], 0);
    assert!(world.segments().iter().all(|path| fs::read(path).unwrap().ends_with(b"\n")));
}

#[test]
fn what_a_power_cut_takes_of_a_segment_takes_along_those_that_were_begun_behind_it() {
    let whole = killed_twice();
    let [old, new] = [0, 1].map(|at| lines(&whole.segments()[at]));
    let (kept, all) = (old[..3].concat().len(), old.concat().len());
    // The end of the first one, or the first page of the second one.
    for (segment, from, len, left) in [(0, kept, all - kept, 2), (1, 0, 4096, 4)] {
        let world = killed(&whole);
        write_zeros(&world.segments()[segment], from, len);
        read(&world.open(), 0).unwrap();
        let reads = Filter { action: Some(Action::Read), ..Filter::default() };
        assert_eq!(world.entries(&reads).len(), left + 1);
        let dropped = if segment == 0 { new.concat().len() } else { 0 };
        assert_eq!(last_start(&world)["dropped_bytes"], dropped);
        assert_eq!(world.damage(None), None);
    }
}

#[test]
fn a_log_that_the_store_knows_to_have_gone_on_is_not_cut_by_a_power_cut() {
    let world = killed_twice();
    let last = world.verify(None).unwrap().head;
    let old = lines(&world.segments()[0]);
    let (kept, all) = (old[..3].concat().len(), old.concat().len());
    write_zeros(&world.segments()[0], kept, all - kept);
    let before = world.segments();
    assert!(matches!(world.try_open(Some(last)), Err(AuditError::Tampered(_))));
    assert_eq!(world.segments(), before, "evidence was removed");
}

#[test]
fn an_edit_of_what_a_killed_process_has_left_is_found_by_the_start_after_the_next_one_too() {
    let world = killed_twice();
    let path = &world.segments()[0];
    let text = fs::read(path).unwrap();
    let at = text.windows(10).position(|part| part == b"password-2").unwrap() + 9;
    let mut edited = text.clone();
    edited[at] = b'9';
    overwrite(path, &edited);
    assert!(matches!(world.try_open(None), Err(AuditError::Tampered(_))));
    overwrite(path, &text);
    assert!(world.try_open(None).is_ok());
}

/// Returns a log whose process was killed while callers waited, and its head three lines before that.
fn killed_behind_an_anchor() -> (World, Head) {
    let world = World::new();
    let log = world.open_with_lines(4);
    let anchor = log.head();
    (4..7).for_each(|n| _ = read(&log, n).unwrap());
    let mut left = killed(&world);
    left.options.taken_over = true;
    (left, anchor)
}

/// Changes a byte of the line with that text.
fn edit(path: &Path, text: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    bytes[at + text.len() - 1] ^= 1;
    overwrite(path, &bytes);
}

#[test]
fn a_server_that_takes_over_checks_what_is_before_the_anchor_beside_its_first_requests() {
    let (world, anchor) = killed_behind_an_anchor();
    let log = world.try_open(Some(anchor)).unwrap();
    assert_eq!(log.sync().unwrap(), log.head());
    assert_eq!(world.damage(Some(&anchor)), None);
    assert!(fs::read(&world.segments()[0]).unwrap().ends_with(b"\n"), "it is known to be on disk");

    let (world, anchor) = killed_behind_an_anchor();
    edit(&world.segments()[0], "password-1");
    let log = world.try_open(Some(anchor)).unwrap();
    assert!(log.sync().is_err());
    assert!(log.fault().unwrap().contains("edited"), "{:?}", log.fault());
    assert!(read(&log, 8).is_err());
    // However soon it is killed, too: nothing says that the segment was checked.
    let mut again = killed(&world);
    again.options.taken_over = true;
    let tampered = |opened| matches!(opened, Err(AuditError::Tampered(_)));
    assert!(tampered(again.try_open(Some(log.head()))));
    again.options.taken_over = false;
    assert!(tampered(again.try_open(Some(anchor))));
}

#[test]
fn a_server_that_takes_over_refuses_an_edit_of_the_anchor_or_behind_it_or_of_the_first_line() {
    for text in ["password-3", "password-4", "password-6", "\"action\":\"start"] {
        let (world, anchor) = killed_behind_an_anchor();
        edit(&world.segments()[0], text);
        let opened = world.try_open(Some(anchor));
        assert!(matches!(opened, Err(AuditError::Tampered(_))), "{text}");
    }
    let (world, anchor) = killed_behind_an_anchor();
    let other = Head { mac: [7; 32], ..anchor };
    assert!(matches!(world.try_open(Some(other)), Err(AuditError::Tampered(_))));
}
