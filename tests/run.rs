//! `run`: a program with secrets in its environment, masked, restarted and signalled.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use common::{World, bounded, write_file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs `secretfs run` to its end.
fn run(world: &World, args: &[&str]) -> Output {
    bounded(world.secretfs().arg("run").args(args))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A supervised program that is ended with its test.
struct Supervised {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Lines<BufReader<ChildStderr>>,
}

impl Supervised {
    fn start(world: &World, args: &[&str]) -> Self {
        // The supervisor ends with its test, and the program with the supervisor.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGTERM"]);
        let secretfs = world.secretfs();
        command.arg(secretfs.get_program()).args(secretfs.get_args()).arg("run").args(args);
        for (name, value) in secretfs.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, said }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Returns the pids and states of the supervisor's children.
    fn children(&self) -> Vec<(u32, char)> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let pids = fs::read_to_string(path).unwrap_or_default();
        let state = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            Some((pid.parse().ok()?, state))
        };
        pids.split_whitespace().filter_map(state).collect()
    }

    fn code(mut self) -> i32 {
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // On TERM it ends its program; a KILL would leave that to the kernel.
            self.send(Signal::SIGTERM);
            drop(self.child.wait());
        }
    }
}

#[test]
fn the_program_has_the_values_and_its_exit_code_is_ours() {
    let Some(world) = World::start() else { return };
    world.put("prod/api-key", "canary-7f3a");
    let output =
        run(&world, &["--dir", "prod", "--", "sh", "-c", "printf %s \"$API_KEY\"; exit 7"]);
    assert_eq!((text(output.stdout), output.status.code()), ("canary-7f3a".into(), Some(7)));
    for (mode, killed) in [(&[][..], None), (&["--mask"], Some(143))] {
        let script = ["-e", "A=prod/api-key", "--", "sh", "-c", "kill -TERM $$"];
        assert_eq!(run(&world, &[mode, &script].concat()).status.code(), killed, "{mode:?}");
        let missing = ["-e", "A=prod/api-key", "--", "/no/such/program"];
        assert_eq!(run(&world, &[mode, &missing].concat()).status.code(), Some(127), "{mode:?}");
        let no_program = ["-e", "A=prod/api-key", "--", "/etc/passwd"];
        assert_eq!(run(&world, &[mode, &no_program].concat()).status.code(), Some(126), "{mode:?}");
    }
}

#[test]
fn no_value_is_in_an_argument_or_in_the_supervisor_s_environment() {
    let Some(world) = World::start() else { return };
    world.put("key", "canary-7f3a");
    for mode in ["--mask", "--watch"] {
        let script = "tr '\\0' ' ' < /proc/$PPID/cmdline; tr '\\0' ' ' < /proc/$PPID/environ; \
            tr '\\0' ' ' < /proc/$$/cmdline | tr a-z A-Z";
        let output = run(&world, &[mode, "-e", "KEY=key", "--", "sh", "-c", script]);
        let said = text(output.stdout);
        assert!(
            said.contains("run") && !said.contains("canary") && !said.contains("CANARY"),
            "{said}"
        );
        // Neither the pipe of the variables nor anything of the mount is left open.
        let descriptors = "ls -1 /proc/self/fd";
        let output = run(&world, &[mode, "-e", "KEY=key", "--", "sh", "-c", descriptors]);
        let without = bounded(Command::new("sh").args(["-c", descriptors]));
        assert_eq!(text(output.stdout), text(without.stdout));
    }
}

#[test]
fn what_cannot_be_a_variable_starts_no_program() {
    let Some(world) = World::start() else { return };
    world.put("a-b", "1");
    world.put("a.b", "2");
    world.put("nul", b"x\0y");
    world.put("big", vec![b'x'; 128 * 1024]);
    let ran = world.outside("ran");
    let touch = format!("touch {}", ran.display());
    for chosen in
        [&["--all"][..], &["-e", "A=nul"], &["-e", "A=big"], &["-e", "A=a-b", "-e", "A=a.b"]]
    {
        for mode in [&[][..], &["--mask"]] {
            let args = [mode, chosen, &["--", "sh", "-c", &touch]].concat();
            let output = run(&world, &args);
            assert_eq!(output.status.code(), Some(9), "{chosen:?}: {output:?}");
        }
    }
    assert!(!ran.exists());
    world.put("most", vec![b'x'; 128 * 1024 - 3]);
    let output = run(&world, &["-e", "A=most", "--", "sh", "-c", "echo ${#A}"]);
    assert_eq!(text(output.stdout), "131069\n", "{:?}", output.stderr);
}

#[test]
fn a_file_of_variables_has_placeholders_and_passes_the_rest_on() {
    let Some(world) = World::start() else { return };
    world.put("prod/db", "p'w$x");
    let file = world.outside("app.env");
    write_file(&file, b"PORT=80 # c\nURL='pg://u:${SECRET_PROD_DB}@h'\n");
    let path = file.to_str().unwrap();
    let output = run(&world, &["--env-file", path, "--", "sh", "-c", "echo $PORT; echo \"$URL\""]);
    assert_eq!(text(output.stdout), "80\npg://u:p'w$x@h\n");
    write_file(&file, b"A=1\nURL=${SECRET_NOPE}\n");
    let output = run(&world, &["--env-file", path, "--", "true"]);
    assert_eq!(output.status.code(), Some(9));
    assert!(text(output.stderr).contains("there is no secret for NOPE"));
}

#[test]
fn the_program_runs_as_another_user_and_the_secrets_are_read_as_the_caller() {
    let Some(world) = World::start() else { return };
    world.put("key", "value");
    let script = "id -u; id -g; id -G; echo $HOME $USER $KEY";
    let daemon = "daemon";
    for mode in [&[][..], &["--mask"]] {
        let args = [mode, &["--user", daemon, "-e", "KEY=key", "--", "sh", "-c", script]].concat();
        let output = run(&world, &args);
        let masked = if mode.is_empty() { "value" } else { "***" };
        let expected = format!("1\n1\n1\n/usr/sbin daemon {masked}\n");
        assert_eq!(text(output.stdout), expected, "{:?}", text(output.stderr));
    }
    let output = run(&world, &["--user", "no-such-user-7f3a", "-e", "KEY=key", "--", "true"]);
    assert_eq!(output.status.code(), Some(12));
}

#[test]
fn values_are_masked_in_both_outputs_in_pieces_and_in_other_forms() {
    let Some(world) = World::start() else { return };
    world.put("key", "canary-7f3a/x");
    world.put("short", "ab");
    let script = "printf canary-; sleep 0.05; printf '7f3a/x!\\n'; echo \"$KEY\" >&2; \
        printf %s \"user:$KEY\" | base64; printf %s \"$KEY\" | od -An -tx1 | tr -d ' \\n'; \
        printf ' %s\\n' canary-7f3a%2Fx; printf canary-; exit 3";
    let args = ["--mask", "-e", "KEY=key", "-e", "S=short", "--", "sh", "-c", script];
    let output = run(&world, &args);
    assert_eq!(output.status.code(), Some(3));
    let said = text(output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("***!", "*** ***", "canary-"));
    // The last group of the base64 is changed by what follows, and tells less than two bytes.
    assert!(
        lines[1].starts_with("dXNlcjp***") || lines[1].starts_with("dXNlcj***"),
        "{}",
        lines[1]
    );
    let noted = text(output.stderr);
    assert!(noted.contains("***\n") && !noted.contains("canary"), "{noted}");
    assert!(noted.contains("short: too short to be masked"), "{noted}");
}

/// Prints its value and its signals, and ends with code 5 when asked to.
const SERVICE: &str = "trap 'echo usr1' USR1; trap 'exit 5' TERM; echo \"$KEY\"; \
    while :; do sleep 0.02; done";

#[test]
fn through_100_rotations_the_program_ends_up_with_the_current_value_and_nothing_is_lost() {
    let Some(world) = World::start() else { return };
    world.put("key", "v0");
    let args = ["--watch", "-e", "KEY=key", "--", "sh", "-c", SERVICE];
    let mut service = Supervised::start(&world, &args);
    assert_eq!(service.line(), "v0");
    let mut before = service.children();
    for n in 1..=100 {
        let value = format!("v{n}");
        // In place, by rename, and several in a row are all the same to it.
        match n % 3 {
            0 => {
                world.put("key", format!("v{n}-first"));
                world.put("key", &value);
            }
            1 => drop(world.put("key", &value)),
            _ => drop(world.sh_ok(&format!("printf {value} > .new; mv .new key"))),
        }
        while service.line() != value {}
        let after = service.children();
        assert_eq!(after.len(), 1, "{after:?}");
        assert!(after[0].1 != 'Z' && after[0].0 != before[0].0, "{before:?} {after:?}");
        before = after;
        if n % 10 == 0 {
            service.send(Signal::SIGUSR1);
            assert_eq!(service.line(), "usr1");
        }
    }
    let last = before[0].0;
    service.send(Signal::SIGTERM);
    assert_eq!(service.code(), 5);
    assert!(!PathBuf::from(format!("/proc/{last}")).exists());
}

#[test]
fn a_program_that_was_asked_to_end_while_it_is_being_restarted_is_not_started_again() {
    let Some(world) = World::start() else { return };
    world.put("key", "v1");
    let script =
        "trap 'echo stopping; sleep 0.3; exit 6' TERM; echo \"$KEY\"; while :; do sleep 0.02; done";
    let mut service =
        Supervised::start(&world, &["--watch", "-e", "KEY=key", "--", "sh", "-c", script]);
    assert_eq!(service.line(), "v1");
    world.put("key", "v2");
    assert_eq!(service.line(), "stopping");
    service.send(Signal::SIGTERM);
    assert_eq!(service.code(), 6);
}

#[test]
fn a_supervised_program_begins_with_no_signal_blocked() {
    let Some(world) = World::start() else { return };
    world.put("key", "value");
    let blocked = "grep SigBlk /proc/self/status";
    let output = run(&world, &["--watch", "-e", "KEY=key", "--", "sh", "-c", blocked]);
    assert_eq!(text(output.stdout), "SigBlk:\t0000000000000000\n");
}

#[test]
fn a_program_that_does_not_stop_is_killed_and_one_that_ends_by_itself_is_not_restarted() {
    let Some(world) = World::start() else { return };
    world.put("key", "v1");
    let script =
        "trap '' TERM; echo \"$KEY\"; [ \"$KEY\" = v2 ] && exit 4; while :; do sleep 0.02; done";
    let args = ["--watch", "--stop-seconds", "1", "-e", "KEY=key", "--", "sh", "-c", script];
    let mut service = Supervised::start(&world, &args);
    assert_eq!(service.line(), "v1");
    world.put("key", "v2");
    assert_eq!(service.line(), "v2");
    assert_eq!(service.code(), 4);
}

#[test]
fn with_a_signal_the_program_is_told_and_goes_on_and_reads_the_new_value_itself() {
    let Some(world) = World::start() else { return };
    world.put("key", "v1");
    let path = world.path("key");
    let script = format!(
        "trap 'cat {0}; echo; echo $$' HUP; echo $$; while :; do sleep 0.02; done",
        path.display()
    );
    let args = ["--watch", "--signal", "hup", "-e", "KEY=key", "--mask", "--", "sh", "-c", &script];
    let mut service = Supervised::start(&world, &args);
    let pid = service.line();
    for n in 2..5 {
        world.put("key", format!("value-{n}"));
        // The new value is masked too, though the program has it from elsewhere.
        assert_eq!(service.line(), "***");
        assert_eq!(service.line(), pid);
    }
}

#[test]
fn a_secret_that_cannot_be_read_any_more_leaves_the_program_running() {
    let Some(world) = World::start() else { return };
    world.put("key", "v1");
    let mut service =
        Supervised::start(&world, &["--watch", "-e", "KEY=key", "--", "sh", "-c", SERVICE]);
    assert_eq!(service.line(), "v1");
    let pid = service.children()[0].0;
    fs::remove_file(world.path("key")).unwrap();
    let said = service.said.next().unwrap().unwrap();
    assert!(said.contains("the program goes on as it is: key: there is no such secret"), "{said}");
    service.send(Signal::SIGUSR1);
    assert_eq!(service.line(), "usr1");
    assert_eq!(service.children()[0].0, pid);
    world.put("key", "v2");
    assert_eq!(service.line(), "v2");
}

#[test]
fn a_supervisor_does_not_hold_the_mount_and_goes_on_with_the_next_one() {
    let Some(mut world) = World::start() else { return };
    world.put("key", "v1");
    let mut service =
        Supervised::start(&world, &["--watch", "-e", "KEY=key", "--", "sh", "-c", SERVICE]);
    assert_eq!(service.line(), "v1");
    let pid = service.children()[0].0;
    let unmounted = nix::mount::umount2(&world.path(""), nix::mount::MntFlags::empty());
    assert_eq!(unmounted, Ok(()), "the mount is busy");
    service.send(Signal::SIGUSR1);
    assert_eq!(service.line(), "usr1");
    world.kill_and_restart();
    world.put("key", "v2");
    assert_eq!(service.line(), "v2");
    assert_ne!(service.children()[0].0, pid);
}

#[test]
fn a_directory_s_new_secret_is_a_change_too() {
    let Some(world) = World::start() else { return };
    world.put("app/a", "1");
    let script = "trap 'exit 0' TERM; echo $A $B; while :; do sleep 0.02; done";
    let mut service =
        Supervised::start(&world, &["--watch", "--dir", "app", "--", "sh", "-c", script]);
    assert_eq!(service.line(), "1");
    world.put("app/b", "2");
    assert_eq!(service.line(), "1 2");
}

#[test]
fn standard_input_is_the_program_s() {
    let Some(world) = World::start() else { return };
    world.put("key", "value");
    let mut command = world.secretfs();
    command.args(["run", "--mask", "-e", "KEY=key", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(output.stdout), "typed\n");
}
