//! Elevation by one-time codes on a real mount, with codes that another program makes and the kernel's own
//! login sessions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use common::{Person, World, bounded, control, read, skip};
use secretfs::crypto::Seed;
use secretfs::model::{Clock, Timestamp};
use secretfs::system::SystemClock;
use serde_json::Value;

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;
const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// Ada and Bob read `name` when they are elevated.
const READERS: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["name"], levels = ["read"] }]
[[binding]]
role = "reader"
uid = [61001, 61002]
[[guard]]
names = ["name"]
levels = ["read"]
require_mfa = true
"#;

/// Admins command the store when they are elevated.
const ADMINS: &str = r#"
[[guard]]
names = ["**"]
levels = ["admin"]
require_mfa = true
"#;

/// Returns the codes of consecutive steps from a moment on, as oathtool makes them.
fn oathtool(from: Timestamp, more: usize) -> Option<Vec<String>> {
    codes_of(SEED, from, more)
}

fn codes_of(seed: &str, from: Timestamp, more: usize) -> Option<Vec<String>> {
    let mut command = Command::new("oathtool");
    command.args(["--totp", "-b", seed, "-w", &more.to_string()]);
    command.args(["--now", &format!("@{}", from.as_second())]);
    if command.output().is_err() {
        skip("oathtool is not installed");
        return None;
    }
    let output = bounded(&mut command);
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

/// Returns the codes of the step before this one, of this and of the next, with some seconds left in it.
fn codes() -> Option<Vec<String>> {
    let now = || SystemClock.now().as_second();
    while now() % Seed::STEP_SECONDS > 20 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    oathtool(Timestamp::from_second(now() - Seed::STEP_SECONDS).unwrap(), 2)
}

/// Begins a login session, as PAM does: the kernel gives it a number.
fn log_in(uid: u32) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open("/proc/self/loginuid")?
        .write_all(uid.to_string().as_bytes())
}

fn session() -> String {
    fs::read_to_string("/proc/self/sessionid").unwrap()
}

/// Becomes somebody, for files.
fn become_user(uid: u32) {
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(uid)).unwrap();
}

/// Tells whether sessions can be had here: not without audit, nor where the login is immutable.
fn has_sessions() -> bool {
    let made = Person::new(0).run(|| log_in(0).is_ok() && session() != u32::MAX.to_string());
    if !made {
        skip("no audit session can be begun here");
    }
    made
}

fn elevate(file: &Path, command: &str) -> Result<Value, i32> {
    control(file, command).map_err(|refusal| refusal.errno)
}

#[test]
fn codes_agree_with_an_independent_implementation() {
    let start: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
    let Some(theirs) = oathtool(start, 999) else { return };
    let seed = Seed::from_base32(SEED.as_bytes()).unwrap();
    let first = Seed::step_at(start);
    let ours = (first..first + 1000).map(|step| seed.code(step).unwrap().to_string());
    assert_eq!(ours.collect::<Vec<_>>(), theirs);
}

#[test]
fn a_session_is_elevated_by_a_code_and_no_other_session_of_that_user() {
    let Some(world) = World::with_policy(READERS) else { return };
    if !has_sessions() {
        return;
    }
    world.put("name", "example-value");
    let Some(codes) = codes() else { return };
    let (file, name) = (world.path(".control/elevate"), world.path("name"));
    let seen = Person::new(0).run(|| {
        log_in(ADA).unwrap();
        become_user(ADA);
        let before = read(&name).map(drop);
        let enrolled = elevate(&file, &format!("enrol {SEED} {}", codes[0])).map(drop);
        let elevated = elevate(&file, &codes[1]).map(drop);
        let inside = read(&name);
        let again = elevate(&file, &codes[1]).map(drop);
        let child = Command::new("cat").arg(&name).output().unwrap();
        let whoami = fs::read_to_string(file.with_file_name("whoami")).unwrap();
        let ours = whoami.contains(&format!("session: {}\n", session()));
        // Another user of the session, and another session of the user.
        become_user(BOB);
        let other_user = read(&name).map(drop);
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
        log_in(ADA).unwrap();
        become_user(ADA);
        let other_session = read(&name).map(drop);
        let child = (child.status.code(), child.stdout);
        (before, enrolled, elevated, inside, again, child, ours, other_user, other_session)
    });
    let (before, enrolled, elevated, inside, again, child, ours, other_user, other_session) = seen;
    assert_eq!(before, Err(libc::EACCES));
    assert_eq!((enrolled, elevated), (Ok(()), Ok(())));
    assert_eq!(inside.unwrap(), b"example-value");
    assert_eq!(again, Err(libc::EACCES), "a code counts once");
    assert_eq!(child, (Some(0), b"example-value".to_vec()), "another process of the session");
    assert!(ours, "the session is the kernel's");
    assert_eq!((other_user, other_session), (Err(libc::EACCES), Err(libc::EACCES)));
    let lines = world.audit();
    let of = |action: &str, outcome: &str| {
        let fits = |line: &&Value| line["action"] == action && line["outcome"] == outcome;
        lines.iter().filter(fits).count()
    };
    assert_eq!((of("elevate", "allowed"), of("elevate", "denied")), (1, 1));
    assert_eq!(of("mfa_enrol", "allowed"), 1);
    let said = format!("{lines:?}{}", world.said());
    assert!(
        !said.contains(SEED) && !said.contains(&codes[1]),
        "neither seed nor code is on record"
    );
}

#[test]
fn without_a_login_session_nobody_is_elevated_and_the_reason_is_told() {
    let Some(world) = World::with_policy(READERS) else { return };
    world.put("name", "example-value");
    let Some(codes) = codes() else { return };
    let file = world.path(".control/elevate");
    let reply = Person::new(ADA).run(|| {
        if session() != u32::MAX.to_string() {
            return None;
        }
        control(&file, &format!("enrol {SEED} {}", codes[0])).unwrap();
        let refusal = control(&file, &codes[1]).unwrap_err();
        Some((refusal.errno, refusal.reply))
    });
    let Some((errno, reply)) = reply else {
        skip("the tests themselves run in a login session");
        return;
    };
    assert_eq!(errno, libc::EACCES);
    assert!(reply.contains("no login session"), "{reply}");
    let why = world.path("name@why");
    let why = Person::new(ADA).run(|| read(&why)).unwrap();
    assert!(String::from_utf8(why).unwrap().contains("secretfs elevate"));
}

#[test]
fn an_admin_is_one_while_elevated_and_a_code_does_not_come_back_with_a_restart() {
    let Some(mut world) = World::with_policy(ADMINS) else { return };
    if !has_sessions() {
        return;
    }
    let Some(codes) = codes() else { return };
    let (file, log) = (world.path(".control/elevate"), world.path(".control/audit/log"));
    let seen = Person::new(0).run(|| {
        log_in(0).unwrap();
        let before = read(&log).map(drop);
        elevate(&file, &format!("enrol {SEED} {}", codes[0])).unwrap();
        elevate(&file, &codes[1]).unwrap();
        let elevated = read(&log).map(drop);
        elevate(&file, "drop").unwrap();
        (before, elevated, read(&log).map(drop))
    });
    assert_eq!(seen, (Err(libc::EACCES), Ok(()), Err(libc::EACCES)));
    world.kill_and_restart();
    let replayed = Person::new(0).run(|| {
        log_in(0).unwrap();
        (elevate(&file, &codes[1]).map(drop), elevate(&file, &codes[2]).map(drop))
    });
    assert_eq!(replayed, (Err(libc::EACCES), Ok(())));
}

#[test]
fn guessing_ends_after_five_codes_whoever_restarts_the_daemon() {
    let Some(mut world) = World::with_policy(READERS) else { return };
    if !has_sessions() {
        return;
    }
    let Some(codes) = codes() else { return };
    let file = world.path(".control/elevate");
    let wrong = (0..9).map(|digit| format!("12345{digit}"));
    let wrong: Vec<String> = wrong.filter(|code| !codes.contains(code)).take(5).collect();
    let guessed = Person::new(0).run(|| {
        log_in(ADA).unwrap();
        become_user(ADA);
        elevate(&file, &format!("enrol {SEED} {}", codes[0])).unwrap();
        wrong.iter().filter(|code| elevate(&file, code).is_ok()).count()
    });
    assert_eq!(guessed, 0);
    world.kill_and_restart();
    let reply = Person::new(0).run(|| {
        log_in(ADA).unwrap();
        become_user(ADA);
        control(&file, &codes[1]).unwrap_err().reply
    });
    assert!(reply.contains("too many wrong codes"), "{reply}");
}

#[test]
fn the_command_line_shows_a_seed_once_and_asks_for_codes_on_the_terminal_alone() {
    let Some(world) = World::with_policy(ADMINS) else { return };
    if !has_sessions() || codes().is_none() {
        return;
    }
    let secretfs = |args: &[&str]| {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_secretfs")]);
        command.args(["--mount", world.mountpoint()]).args(args);
        command
    };
    let seen = Person::new(0).run(|| {
        log_in(0).unwrap();
        let code = |seed: &str, steps: i64| {
            let at = SystemClock.now().as_second() + steps * Seed::STEP_SECONDS;
            codes_of(seed, Timestamp::from_second(at).unwrap(), 0).unwrap().remove(0)
        };
        let mut seed = String::new();
        let enrolled = on_a_terminal(secretfs(&["elevate", "--enrol"]), |said| {
            let shown = said.split_once("secret=").unwrap().1;
            seed = shown.split_once('&').unwrap().0.to_owned();
            code(&seed, -1)
        });
        let wrong = on_a_terminal(secretfs(&["elevate"]), |_| "12345".to_owned());
        let right = on_a_terminal(secretfs(&["elevate"]), |_| code(&seed, 0));
        let status = bounded(world.secretfs().args(["key", "status"])).status.code();
        (enrolled, wrong, right, status, seed)
    });
    let (enrolled, wrong, right, status, seed) = seen;
    assert!(enrolled.contains("otpauth://totp/secretfs:") && enrolled.contains("enrolled"));
    assert!(wrong.contains("six digits"), "{wrong}");
    assert!(right.contains("elevated until") && !right.contains(&seed), "{right}");
    assert_eq!(status, Some(0));
    let piped = bounded(world.secretfs().args(["elevate", "--enrol"]));
    assert_eq!(piped.status.code(), Some(12), "a seed is not for a file: {piped:?}");
}

/// Runs a command with a terminal of its own, answers its first question, and returns what it showed.
fn on_a_terminal(mut command: Command, answer: impl FnOnce(&str) -> String) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || pty.slave.try_clone().unwrap();
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let mut terminal = fs::File::from(pty.master);
    let (mut shown, mut answer) = (String::new(), Some(answer));
    let mut part = [0; 4096];
    // Once nobody has the terminal open any more, a read fails.
    while let Ok(read) = terminal.read(&mut part) {
        if read == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&part[..read]));
        let is_asked = shown.ends_with("ode: ") || shown.ends_with("shows: ");
        if let Some(answer) = answer.take_if(|_| is_asked) {
            writeln!(terminal, "{}", answer(&shown)).unwrap();
        }
    }
    child.wait().unwrap();
    shown
}
