//! Effects at real servers, by the real effector: each target keeps what `docs/ROTATION.md` promises.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test file")]

mod common;
mod servers;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secretfs::effect::{
    CarryOut, EffectError, Effector, Order, Report, Target, Task, Values, Verifier,
};
use secretfs::system::SecretBytes;
use serde::de::DeserializeOwned;
use servers::{ADMIN, Mariadb, Pair, Postgresql, Redis, Sshd};
use tempfile::TempDir;

use common::{DEADLINE, can_mount, eventually, write_file};

/// An effector, and the file that says what it may be ordered.
struct Bench {
    effector: Effector,
    dir: TempDir,
}

impl Bench {
    /// Starts one that may do what `rotation` says.
    fn new(rotation: &str) -> Self {
        Self::within(&[], rotation)
    }

    /// Starts one by way of unshare(1) with these arguments.
    fn within(unshare: &[String], rotation: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rotation.toml");
        write_file(&file, rotation.as_bytes());
        let program = env!("CARGO_BIN_EXE_secretfs");
        let own = ["effector", "--rotation"].map(OsStr::new);
        let effector = if unshare.is_empty() {
            Effector::of_program(
                Path::new(program),
                &[own.as_slice(), &[file.as_os_str()]].concat(),
            )
        } else {
            let mut arguments: Vec<&OsStr> = unshare.iter().map(OsStr::new).collect();
            arguments.push(OsStr::new(program));
            arguments.extend(own);
            arguments.push(file.as_os_str());
            Effector::of_program(Path::new("/usr/bin/unshare"), &arguments)
        };
        Self { effector, dir }
    }

    fn order(&self, task: Task, values: &Values) -> Result<Report, EffectError> {
        self.order_within(DEADLINE, task, values)
    }

    fn order_within(
        &self,
        timeout: Duration,
        task: Task,
        values: &Values,
    ) -> Result<Report, EffectError> {
        let secret = Some("app/credential".parse().unwrap());
        let order = Order { rotation: "r-1".into(), secret, timeout, task };
        let outcome = self.effector.carry_out(&order, values);
        let said = match &outcome {
            Ok(report) => report.note.clone(),
            Err(error) => format!("{error:?}"),
        };
        assert!(!said.contains("canary") && !said.contains('\n'), "{said}");
        outcome
    }
}

/// A target with two values, and a way to see which of them works.
struct Trial<'a> {
    bench: Bench,
    target: Target,
    values: Values,
    /// Tells whether the current value works, and the new one.
    works: Box<dyn Fn() -> (bool, bool) + 'a>,
}

impl<'a> Trial<'a> {
    fn new(
        target: &str,
        (current, new): (&str, &str),
        works: impl Fn() -> (bool, bool) + 'a,
    ) -> Self {
        Self::on(Bench::new(&format!("[target]\n{target}")), target, (current, new), works)
    }

    fn on(
        bench: Bench,
        target: &str,
        (current, new): (&str, &str),
        works: impl Fn() -> (bool, bool) + 'a,
    ) -> Self {
        let values = Values { current: value(current), new: value(new), admin: value(ADMIN) };
        Self { bench, target: parse(target), values, works: Box::new(works) }
    }

    fn set(&self) -> Result<Report, EffectError> {
        self.bench.order(Task::Set(self.target.clone()), &self.values)
    }

    fn login(&self) -> Result<Report, EffectError> {
        let verifier: Verifier = parse("kind = \"login\"");
        let target = Some(self.target.clone());
        self.bench.order(Task::Verify { verifier, target }, &self.values)
    }

    fn finish(&self) -> Result<Report, EffectError> {
        self.bench.order(Task::Finish(self.target.clone()), &self.values)
    }

    fn undo(&self) -> Result<Report, EffectError> {
        self.bench.order(Task::Undo(self.target.clone()), &self.values)
    }

    /// Each step does what it says, also when it is repeated, or undone without having been done.
    fn keeps_the_contract(&self, old_works_after_finish: bool) {
        let both = (self.target.holds_two(), true);
        assert_eq!((self.works)(), (true, false), "at first");
        self.undo().unwrap();
        assert_eq!((self.works)(), (true, false), "undone without a set");
        assert!(matches!(self.login(), Err(EffectError::Refused(_))));
        for _ in 0..2 {
            self.set().unwrap();
            assert_eq!((self.works)(), both, "set");
            self.login().unwrap();
        }
        for _ in 0..2 {
            self.undo().unwrap();
            assert_eq!((self.works)(), (true, false), "undone");
        }
        self.set().unwrap();
        for _ in 0..2 {
            self.finish().unwrap();
            assert_eq!((self.works)(), (old_works_after_finish, true), "finished");
        }
        self.login().unwrap();
        self.undo().unwrap();
        assert_eq!((self.works)(), (true, false), "undone after all");
    }

    /// The same goes over TLS, and not with a server that cannot show who it is.
    fn works_over_tls(&self, target: &str, pair: &Pair) {
        let tls = |certificate: &Path| {
            format!("{target}\ntls = {{ ca = \"{}\" }}", certificate.display())
        };
        let other = Pair::make(self.bench.dir.path(), "other", None);
        let [right, wrong] = [tls(&pair.certificate), tls(&other.certificate)];
        let bench = Bench::new(&format!("[right]\n{right}\n[wrong]\n{wrong}"));
        let set = |target: &str| bench.order(Task::Set(parse(target)), &self.values);
        let refused = set(&wrong).unwrap_err();
        assert!(
            matches!(&refused, EffectError::Refused(why) if why.contains("TLS")),
            "{refused:?}"
        );
        assert_eq!((self.works)(), (true, false));
        set(&right).unwrap();
        assert!((self.works)().1);
        let (verifier, target) = (parse("kind = \"login\""), Some(parse(&right)));
        bench.order(Task::Verify { verifier, target }, &self.values).unwrap();
        self.undo().unwrap();
    }

    /// A server that hangs or is not there is told apart from one that says no, and nothing is changed.
    fn tells_faults_apart(mut self, server: &servers::Server) {
        let admin = std::mem::replace(&mut self.values.admin, value("canary-wrong"));
        let refused = self.set().unwrap_err();
        assert!(matches!(refused, EffectError::Refused(_)), "{refused:?}");
        self.values.admin = admin;
        server.freeze();
        for task in [Task::Set(self.target.clone()), Task::Undo(self.target.clone())] {
            let late = self.bench.order_within(Duration::from_millis(300), task, &self.values);
            assert_eq!(late.unwrap_err(), EffectError::TimedOut);
        }
        server.thaw();
        eventually("the server answers again", || self.undo().is_ok());
        assert_eq!((self.works)(), (true, false));
        server.signal(Signal::SIGKILL);
        eventually("the server is gone", || matches!(self.set(), Err(EffectError::Unreachable(_))));
    }
}

fn value(text: &str) -> Option<SecretBytes> {
    Some(SecretBytes::copy_from(text.as_bytes()).unwrap())
}

fn parse<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

const SINGLE: (&str, &str) = ("canary-old's \\ one", "canary-new");
const TWO: (&str, &str) =
    ("postgresql://app_a:canary-a@db/app", r#"{"username": "app_b", "password": "canary-b"}"#);

#[test]
fn a_postgresql_role_has_the_one_password_or_the_other() {
    let statement = "CREATE ROLE \"the app\" LOGIN PASSWORD 'canary-old''s \\ one'";
    let Some(server) = Postgresql::start(statement) else { return };
    let target = format!(
        "kind = \"postgresql\"\naddress = \"127.0.0.1:{}\"\nuser = \"the app\"\n\
         admin_user = \"postgres\"\nadmin_secret = \"db/admin\"",
        server.port
    );
    let lets_in = |password| server.lets_in("the app", password);
    let trial = Trial::new(&target, SINGLE, || (lets_in(SINGLE.0), lets_in(SINGLE.1)));
    trial.keeps_the_contract(false);
    trial.works_over_tls(&target, &server.pair);
    let stored = server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'the app'");
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");
    trial.tells_faults_apart(&server.server);
}

#[test]
fn two_postgresql_roles_take_turns_and_the_one_in_use_is_left_alone() {
    let statements = "CREATE ROLE app_a LOGIN PASSWORD 'canary-a'; CREATE ROLE app_b LOGIN";
    let Some(server) = Postgresql::start(statements) else { return };
    // The admin comes by the socket, where the server believes whoever comes.
    let target = |more: &str| {
        format!(
            "kind = \"postgresql\"\naddress = \"{}\"\nusers = [\"app_a\", \"app_b\"]\n\
             admin_user = \"postgres\"\n{more}",
            server.socket()
        )
    };
    let works = || (server.lets_in("app_a", "canary-a"), server.lets_in("app_b", "canary-b"));
    let trial = Trial::new(&target(""), TWO, works);
    assert_eq!(trial.target.next_user(Some("app_a")), Some("app_b"));
    assert_eq!(trial.target.next_user(Some("app_b")), Some("app_a"));
    let unproved = trial.login().unwrap_err();
    assert!(unproved.to_string().contains("nothing is proved"), "{unproved}");
    for _ in 0..2 {
        trial.set().unwrap();
        assert_eq!(works(), (true, true));
        trial.finish().unwrap();
        assert_eq!(works(), (true, true), "clients that still have the old value go on");
        trial.undo().unwrap();
        assert_eq!(works(), (true, false));
    }
    let locking = Trial::new(&target("lock_idle = true"), TWO, works);
    locking.set().unwrap();
    locking.finish().unwrap();
    assert_eq!(works(), (false, true));
    let bare = Values { new: value("canary-b"), ..Values::default() };
    let unnamed = trial.bench.order(Task::Set(trial.target.clone()), &bare).unwrap_err();
    assert!(matches!(unnamed, EffectError::Invalid(_)), "{unnamed:?}");
}

#[test]
fn a_change_whose_sender_was_killed_is_over_before_the_next_one_begins() {
    let Some(server) = Postgresql::start("CREATE ROLE app LOGIN PASSWORD 'canary-old'") else {
        return;
    };
    let target = format!(
        "kind = \"postgresql\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\n\
         admin_user = \"postgres\"\nadmin_secret = \"db/admin\"",
        server.port
    );
    let pair = ("canary-old", "canary-new");
    let works = || (server.lets_in("app", pair.0), server.lets_in("app", pair.1));
    let trial = Trial::new(&target, pair, works);
    // Somebody holds the role's row, so that the change waits inside of the server.
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            server.sql("BEGIN; ALTER ROLE app CONNECTION LIMIT 9; SELECT pg_sleep(2); COMMIT")
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("somebody holds the row", || server.sql(waiting).trim() != "0");
        let task = Task::Set(trial.target.clone());
        let late = trial.bench.order_within(Duration::from_millis(300), task, &trial.values);
        assert_eq!(late.unwrap_err(), EffectError::TimedOut);
        trial.undo().unwrap();
        holder.join().unwrap();
    });
    assert_eq!(works(), (true, false));
}

#[test]
fn a_mariadb_user_has_both_passwords_between_set_and_finish() {
    let Some(server) = Mariadb::start("CREATE USER app@'%' IDENTIFIED BY 'canary-old''s \\\\ one'")
    else {
        return;
    };
    let target = format!(
        "kind = \"mysql\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\n\
         admin_user = \"admin\"\nadmin_secret = \"db/admin\"",
        server.port
    );
    let lets_in = |password| server.lets_in("app", password);
    let trial = Trial::new(&target, SINGLE, || (lets_in(SINGLE.0), lets_in(SINGLE.1)));
    trial.keeps_the_contract(false);
    trial.works_over_tls(&target, &server.pair);
    trial.tells_faults_apart(&server.server);
}

#[test]
fn two_mariadb_users_take_turns_by_the_socket() {
    let statements = "CREATE USER app_a@'%' IDENTIFIED BY 'canary-a'; CREATE USER app_b@'%' \
        IDENTIFIED VIA mysql_native_password USING 'invalid'";
    let Some(server) = Mariadb::start(statements) else { return };
    let target = format!(
        "kind = \"mysql\"\naddress = \"{}\"\nusers = [\"app_a\", \"app_b\"]\nadmin_user = \"root\"",
        server.socket()
    );
    let works = || (server.lets_in("app_a", "canary-a"), server.lets_in("app_b", "canary-b"));
    let bench = Bench::new(&format!("[target]\n{target}"));
    let trial = Trial::on(bench, &target, TWO, works);
    let trial = Trial { values: Values { admin: None, ..trial.values }, ..trial };
    assert_eq!(works(), (true, false));
    trial.set().unwrap();
    trial.login().unwrap();
    trial.finish().unwrap();
    assert_eq!(works(), (true, true));
    trial.undo().unwrap();
    assert_eq!(works(), (true, false));
    assert!(matches!(trial.login(), Err(EffectError::Refused(_))));
}

#[test]
fn a_redis_user_has_both_passwords_between_set_and_finish_and_the_server_keeps_them() {
    let Some(server) = Redis::start("user app on >canary-old ~* &* +@all") else { return };
    let target = format!(
        "kind = \"redis\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\nadmin_secret = \"redis/admin\"",
        server.port
    );
    let pair = ("canary-old", "canary-new");
    let works = || (server.lets_in("app", pair.0), server.lets_in("app", pair.1));
    let trial = Trial::new(&target, pair, works);
    trial.keeps_the_contract(false);
    let secured = target.replace(&server.port.to_string(), &server.tls_port.to_string());
    trial.works_over_tls(&secured, &server.pair);
    trial.set().unwrap();
    let app = server.saved().lines().find(|line| line.starts_with("user app ")).unwrap().to_owned();
    assert_eq!(app.matches('#').count(), 2, "{app}");
    trial.undo().unwrap();
    let absent = target.replace("\"app\"", "\"nobody\"");
    let absent = Trial::new(&absent, pair, works).set().unwrap_err();
    assert_eq!(absent, EffectError::Refused("there is no user nobody".into()));
    trial.tells_faults_apart(&server.server);
}

#[test]
fn a_key_lets_a_user_in_by_ssh_and_the_file_stays_the_users() {
    let Some(server) = Sshd::start() else { return };
    let [(old, old_public), (new, _)] = ["old", "new"].map(|name| server.new_key(name));
    let file = server.authorized_keys();
    let home = fs::metadata(file.parent().unwrap().parent().unwrap()).unwrap();
    fs::create_dir(file.parent().unwrap()).unwrap();
    let before = format!("# a comment\nno-pty {old_public}\n");
    write_file(&file, before.as_bytes());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    for path in [file.as_path(), file.parent().unwrap()] {
        std::os::unix::fs::chown(path, Some(home.uid()), Some(home.gid())).unwrap();
    }
    let target = format!(
        "kind = \"authorized_keys\"\nuser = \"{}\"\naddress = \"127.0.0.1:{}\"\nknown_hosts = \"{}\"",
        servers::sshd::USER,
        server.port,
        server.known_hosts().display()
    );
    let bench = Bench::within(&server.knowing(), &format!("[target]\n{target}"));
    let works = || (server.lets_in(&old), server.lets_in(&new));
    let trial = Trial::on(bench, &target, (&old, &new), works);
    trial.keeps_the_contract(false);
    let after = fs::metadata(&file).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (home.uid(), home.gid(), 0o640));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    server.server.freeze();
    let verify =
        Task::Verify { verifier: parse("kind = \"login\""), target: Some(trial.target.clone()) };
    let late = trial.bench.order_within(Duration::from_millis(300), verify, &trial.values);
    assert_eq!(late.unwrap_err(), EffectError::TimedOut);
    server.server.thaw();
    server.server.signal(Signal::SIGKILL);
    eventually("sshd is gone", || matches!(trial.login(), Err(EffectError::Unreachable(_))));
}

#[test]
fn the_example_of_an_exec_target_keeps_the_contract_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let hash = servers::succeed(Command::new("openssl").args(["passwd", "-6", "canary-old"]));
    write_file(&file, format!("other:x\napp:{hash}").as_bytes());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exec-target/htpasswd");
    let target = format!(
        "kind = \"exec\"\ncommand = {{ argv = [\"{}\", \"{}\", \"app\"] }}",
        program.display(),
        file.display()
    );
    let is = |password: &str| {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("other:x\n"));
        let stored = text.lines().find_map(|line| line.strip_prefix("app:")).unwrap();
        let salt = stored.split('$').nth(2).unwrap();
        let mut command = Command::new("openssl");
        servers::succeed(command.args(["passwd", "-6", "-salt", salt, password])).trim() == stored
    };
    let trial =
        Trial::new(&target, ("canary-old", "canary-new"), || (is("canary-old"), is("canary-new")));
    // What is verified is asked of the program, which has the current password until it is set.
    trial.keeps_the_contract(false);
    fs::remove_file(&file).unwrap();
    assert!(matches!(trial.set(), Err(EffectError::Unreachable(_))));
}

/// An exec target that starts something, writes down who is who and then hangs.
fn hanging() -> (Bench, Target, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "sleep 1000 & echo $PPID $$ $! >{0}/new; mv {0}/new {0}/pids; wait",
        dir.path().display()
    );
    let target =
        format!("kind = \"exec\"\ncommand = {{ argv = [\"/bin/sh\", \"-c\", \"{script}\"] }}");
    let quick = "command = { argv = [\"/bin/true\"] }\nkind = \"exec\"";
    let bench = Bench::new(&format!("[a]\n{target}\n[b]\n{quick}"));
    (bench, parse(&target), dir)
}

fn quick() -> Task {
    Task::Set(parse("command = { argv = [\"/bin/true\"] }\nkind = \"exec\""))
}

/// Waits until the program hangs; returns the process that carries the order out, the program, and what that
/// has started.
fn pids(dir: &TempDir) -> [i32; 3] {
    let path = dir.path().join("pids");
    eventually("the program runs", || path.exists());
    let text = fs::read_to_string(&path).unwrap();
    let mut pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
    [(); 3].map(|()| pids.next().unwrap())
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn an_effector_that_is_killed_in_an_order_says_so_and_the_next_order_works() {
    let (bench, target, dir) = hanging();
    let values = Values::default();
    for kill_all in [false, true, true] {
        drop(fs::remove_file(dir.path().join("pids")));
        std::thread::scope(|scope| {
            let order = scope.spawn(|| bench.order(Task::Set(target.clone()), &values));
            let [worker, program, started] = pids(&dir);
            let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
            let parent =
                stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
            kill(Pid::from_raw(if kill_all { parent } else { worker }), Signal::SIGKILL).unwrap();
            let outcome = order.join().unwrap().unwrap_err();
            assert!(matches!(outcome, EffectError::Gone(_)), "{outcome:?}");
            eventually("the program is gone too", || is_gone(program));
            // With the whole effector goes who would end it; under systemd the unit's end does.
            if kill_all {
                kill(Pid::from_raw(started), Signal::SIGKILL).unwrap();
                eventually("the effector is gone", || is_gone(parent));
            }
            eventually("what it had started is gone too", || is_gone(started));
        });
        bench.order(quick(), &values).unwrap();
    }
}

#[test]
fn an_effector_that_hangs_is_ended_and_the_next_order_works() {
    let (bench, target, dir) = hanging();
    let values = Values::default();
    std::thread::scope(|scope| {
        let order = scope.spawn(|| {
            bench.order_within(Duration::from_secs(1), Task::Set(target.clone()), &values)
        });
        let [worker, program, started] = pids(&dir);
        kill(Pid::from_raw(worker), Signal::SIGSTOP).unwrap();
        assert_eq!(order.join().unwrap().unwrap_err(), EffectError::TimedOut);
        eventually("it does not go on with it", || is_gone(worker) && is_gone(program));
        kill(Pid::from_raw(started), Signal::SIGKILL).unwrap();
    });
    bench.order(quick(), &values).unwrap();
}

#[test]
fn an_order_that_takes_too_long_is_ended_with_all_that_it_has_started_and_holds_up_no_other() {
    let (bench, target, dir) = hanging();
    let values = Values::default();
    std::thread::scope(|scope| {
        let order = scope.spawn(|| {
            bench.order_within(Duration::from_secs(3), Task::Set(target.clone()), &values)
        });
        let [_, program, started] = pids(&dir);
        bench.order(quick(), &values).unwrap();
        assert!(!is_gone(program), "the other order was over first");
        assert_eq!(order.join().unwrap().unwrap_err(), EffectError::TimedOut);
        eventually("what it had started is gone too", || is_gone(program) && is_gone(started));
    });
}

#[test]
fn what_the_file_does_not_have_is_not_done() {
    let (bench, _, dir) = hanging();
    let made = dir.path().join("made");
    let target = format!(
        "kind = \"exec\"\ncommand = {{ argv = [\"/usr/bin/touch\", \"{}\"] }}",
        made.display()
    );
    let refused = bench.order(Task::Set(parse(&target)), &Values::default()).unwrap_err();
    assert!(
        matches!(&refused, EffectError::Invalid(why) if why.contains("rotation.toml")),
        "{refused:?}"
    );
    assert!(!made.exists());
    write_file(&bench.dir.path().join("rotation.toml"), format!("[target]\n{target}").as_bytes());
    bench.order(Task::Set(parse(&target)), &Values::default()).unwrap();
    assert!(made.exists(), "the file counts as it is when the order comes");
}

#[test]
fn a_command_has_the_rights_of_its_user_and_no_value() {
    if !can_mount() {
        return;
    }
    let notice = "kind = \"command\"\nargv = [\"/bin/sh\", \"-c\", \"id -un; env | grep _FD; ls /proc/self/fd | tr '\\\\n' ' '\"]\nuser = \"daemon\"";
    let bench = Bench::new(&format!("[[notify]]\n{notice}"));
    let values = Values { new: value("canary-new"), ..Values::default() };
    let report = bench.order(Task::Notify(parse(notice)), &values).unwrap();
    assert_eq!(
        report.note.trim(),
        "/bin/sh: 0 1 2 3",
        "ls has its directory open, and nothing else"
    );
    let generator = "argv = [\"/usr/bin/id\", \"-un\"]\nuser = \"daemon\"";
    let bench = Bench::new(&format!("[generator]\nkind = \"exec\"\n{generator}"));
    let made = bench.order(Task::Generate(parse(generator)), &Values::default()).unwrap();
    assert_eq!(made.value.unwrap().expose(), b"daemon");
}

#[test]
fn what_a_command_leaves_running_on_purpose_goes_on() {
    let notice = "kind = \"command\"\nargv = [\"/bin/sh\", \"-c\", \"sleep 1000 & echo $!\"]";
    let bench = Bench::new(&format!("[[notify]]\n{notice}"));
    let left: Vec<i32> = (0..10)
        .map(|_| {
            let report = bench.order(Task::Notify(parse(notice)), &Values::default()).unwrap();
            report.note.rsplit(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    drop(bench);
    let gone = left.iter().filter(|pid| is_gone(**pid)).count();
    for pid in left {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    assert_eq!(gone, 0);
}

#[test]
fn a_command_of_another_user_reads_the_values_that_it_is_given() {
    if !can_mount() {
        return;
    }
    let target = "kind = \"exec\"\ncommand = { user = \"daemon\", argv = [\"/bin/sh\", \"-c\", \
        \"cat /proc/self/fd/$SECRETFS_NEW_FD | wc -c\"] }";
    let bench = Bench::new(&format!("[target]\n{target}"));
    let long = SecretBytes::copy_from(&[b'x'; 1 << 20]).unwrap();
    let values = Values { new: Some(long), ..Values::default() };
    let report = bench.order(Task::Set(parse(target)), &values).unwrap();
    assert_eq!(report.note, "/bin/sh: 1048576");
}

#[test]
fn a_web_server_that_takes_the_value_in_a_header_proves_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let verifier = format!(
        "kind = \"http\"\nurl = \"http://{}/v1/me\"\nheader = \"Authorization\"\nprefix = \"Bearer \"",
        listener.local_addr().unwrap()
    );
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /v1/me HTTP/1.1\r\nHost: 127.0.0.1:"));
            let known = request.contains("\r\nAuthorization: Bearer canary-new\r\n");
            let status = if known { "200 OK" } else { "401 Unauthorized" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let bench = Bench::new(&format!("[verifier]\n{verifier}"));
    let verify = |new: &str| {
        let task = Task::Verify { verifier: parse(&verifier), target: None };
        bench.order(task, &Values { new: value(new), ..Values::default() })
    };
    verify("canary-new").unwrap();
    assert!(matches!(verify("canary-old"), Err(EffectError::Refused(_))));
    server.join().unwrap();
    assert!(matches!(verify("canary-new"), Err(EffectError::Unreachable(_))));
}

#[test]
fn a_tls_server_that_presents_the_certificate_proves_it() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |name: &str| {
        let pair = Pair::make(dir.path(), name, None);
        [pair.key, pair.certificate].map(|path| fs::read_to_string(path).unwrap())
    };
    let ([key, certificate], [other_key, other]) = (pair("served"), pair("other"));
    let port = servers::port();
    let mut command = servers::mortal(Path::new("openssl"));
    command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key"]);
    command.arg(dir.path().join("served.key")).arg("-cert").arg(dir.path().join("served.pem"));
    let _server = servers::Server::start(command, port, dir.path().join("log"));
    let at = format!("kind = \"tls\"\naddress = \"127.0.0.1:{port}\"\nserver_name = \"localhost\"");
    let bench = Bench::new(&format!("[a]\nkind = \"tls\"\n[b]\n{at}"));
    let verify = |verifier: &str, new: String| {
        let task = Task::Verify { verifier: parse(verifier), target: None };
        bench.order(task, &Values { new: value(&new), ..Values::default() })
    };
    verify("kind = \"tls\"", format!("{certificate}{key}")).unwrap();
    verify(&at, format!("{key}{certificate}")).unwrap();
    for (verifier, new) in [
        ("kind = \"tls\"", format!("{certificate}{other_key}")),
        (at.as_str(), format!("{other}{other_key}")),
    ] {
        let refused = verify(verifier, new).unwrap_err();
        assert!(matches!(refused, EffectError::Refused(_)), "{refused:?}");
    }
    let invalid = verify("kind = \"tls\"", "canary-new".into()).unwrap_err();
    assert!(matches!(invalid, EffectError::Invalid(_)), "{invalid:?}");
}
