//! The audit log (THREATS 1.3): L4 to L6 through real processes.
//!
//! Elsewhere: L1 in `audit::tests::tamper` (`no_random_mutation_of_a_log_escapes_the_verifier`,
//! `a_removed_or_exchanged_segment_is_found`); L2 there (`every_cut_of_the_end_is_found_by_the_anchor`);
//! L3 there (`the_current_key_does_not_forge_the_past`, `a_log_that_was_written_anew_does_not_hold_the_anchor`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::common::{self, Person, World, read};
use super::{APP, full};

/// Names for programs that no terminal may see: C0, DEL, C1, ANSI, bidi, line ends, invalid UTF-8.
const HOSTILE: [&[u8]; 9] = [
    b"\x1b[2J\x1b]0;x\x07",
    b"a\nb\rc",
    b"\x9b31m",
    b"\xe2\x80\xaecod.exe",
    b"\xc2\x9b31m",
    b"\xff\xfe\x80",
    b"\xe2\x80\xa8x\xe2\x80\xa9",
    b"\x7f\x08\x08\x08",
    b"\"},{\"uid\":0",
];

/// L4.
#[test]
fn a_hostile_program_name_is_one_line_that_parses_and_no_control_byte_on_a_terminal() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let programs = world.outside("programs");
    fs::create_dir(&programs).unwrap();
    fs::set_permissions(&programs, fs::Permissions::from_mode(0o755)).unwrap();
    for name in HOSTILE {
        // Its name is its comm, and its path is its exe.
        let program = programs.join(OsStr::from_bytes(name));
        common::copy_program("/bin/cat".as_ref(), &program);
        let output = common::bounded(Person::new(1000).command(&program).arg(world.path("app/k")));
        assert_eq!(output.stdout, b"example-value", "{output:?}");
        assert!(
            !Person::new(1001)
                .command(&program)
                .arg(world.path("app/k"))
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    let all_bytes: Vec<u8> =
        if full() { (1..=255).collect() } else { (1..=255).step_by(5).collect() };
    Person::new(1000).run(|| {
        for byte in all_bytes {
            let comm = std::ffi::CString::new([byte, byte, b'x']).unwrap();
            nix::sys::prctl::set_name(&comm).unwrap();
            read(&world.path("app/k")).unwrap();
        }
    });
    let log = world.get(".control/audit/log").unwrap();
    assert!(log.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "the log is not printable");
    let lines = world.audit_of("app/k", "read", "allowed", 1000);
    assert!(lines.len() >= HOSTILE.len() + 51, "{}", lines.len());
    let shown = on_terminal(world.secretfs().args(["log", "--limit", "0"]));
    assert!(shown.len() > 1000, "{}", String::from_utf8_lossy(&shown));
    let text = String::from_utf8(shown).expect("the terminal was sent what is no UTF-8");
    let bad = text.chars().find(|c| is_hostile(*c) && !matches!(c, '\n' | '\r'));
    assert_eq!(bad, None, "{text:?}");
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Runs a command on a terminal of its own, without colours, and returns what it sends there.
fn on_terminal(command: &mut Command) -> Vec<u8> {
    let size = nix::pty::Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).unwrap();
    let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    command.stdin(Stdio::null()).stdout(side(&pty.slave)).stderr(side(&pty.slave));
    command.env("NO_COLOR", "1").env("TERM", "xterm").process_group(0);
    let mut child = command.spawn().unwrap();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    drop(pty.slave);
    let (mut master, mut all) = (File::from(pty.master), Vec::new());
    loop {
        let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        let waited = poll(&mut ready, PollTimeout::try_from(common::DEADLINE).unwrap()).unwrap();
        assert_ne!(waited, 0, "descriptor {} hangs", master.as_raw_fd());
        let mut buffer = [0; 4096];
        // EIO says that the other side is closed.
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
        }
    }
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&all));
    all
}

/// L5: refusals are free for whoever makes them, and must cost nobody else.
#[test]
fn a_flood_of_refusals_of_one_uid_neither_stops_another_nor_fills_the_log() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let flood = if full() { 200_000 } else { 5_000 };
    let (allowed, refused) = std::thread::scope(|scope| {
        let world = &world;
        let flooder = scope.spawn(move || {
            Person::new(1001).run(|| {
                let path = world.path("app/k");
                (0..flood).filter(|_| read(&path) == Err(libc::EACCES)).count()
            })
        });
        let reader = Person::new(1000).run(|| {
            let path = world.path("app/k");
            (0..200).filter(|_| read(&path).is_ok()).count()
        });
        (reader, flooder.join().unwrap())
    });
    assert_eq!((allowed, refused), (200, flood));
    assert_eq!(world.audit_of("app/k", "read", "allowed", 1000).len(), 200);
    let about = |uid: u32| world.audit().iter().filter(|line| line["uid"] == uid).count();
    // At most 50 a second, and a summary each: far from one each.
    assert!(about(1001) < flood / 4, "{} lines for {flood} refusals", about(1001));
    assert!(about(1001) > 0);
}

/// L6: without a place for the line there is no value, and a log that was away is not trusted before a
/// start has verified it. (A disk that is full for a while: `audit::tests::writing`.)
#[test]
fn nothing_opens_after_the_log_was_taken_away_until_a_start_has_verified_it() {
    let Some(mut world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let log = find_log(&world);
    let before = Person::new(1000).run(|| read(&world.path("app/k")));
    assert_eq!(before, Ok(b"example-value".to_vec()));
    let aside = world.outside("audit-aside");
    fs::rename(&log, &aside).unwrap();
    common::eventually("reads are refused", || read(&world.path("app/k")) == Err(libc::EIO));
    for uid in [0, 1000] {
        let path = world.path("app/k");
        assert_eq!(Person::new(uid).run(|| read(&path)), Err(libc::EIO));
        let written = Person::new(uid).run(|| common::write(&path, b"unrecorded"));
        assert_eq!(written, Err(libc::EIO));
    }
    fs::rename(&aside, &log).unwrap();
    assert_eq!(read(&world.path("app/k")), Err(libc::EIO));
    world.kill_and_restart();
    assert_eq!(world.get("app/k").unwrap(), b"example-value");
}

fn find_log(world: &World) -> std::path::PathBuf {
    let found = common::bounded(
        Command::new("find").arg(world.outside("")).args(["-xdev", "-type", "d", "-name", "audit"]),
    );
    let text = String::from_utf8(found.stdout).unwrap();
    text.lines().next().expect("there is no log").into()
}
