//! Rotation with real servers and real consumers: nobody is locked out, whatever fails.
//!
//! The counts are small here; `SECRETFS_CAMPAIGN=full` has those that `docs/FIGURES.md` tells of.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a campaign says what it has seen"
)]

mod common;
mod servers;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::Digest;

use common::{Person, World, bounded, bounded_by, eventually, eventually_by, write_file};
use servers::{ADMIN, Mariadb, Postgresql, Redis, Server, port, program, succeed};

/// For a rotation that waits a minute for those who hold the old value, as is built in.
const ADOPTED: Duration = Duration::from_secs(90);

/// Returns how many rotations a campaign has.
fn count(full: usize) -> usize {
    let all = std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|value| value == "full");
    if all { full } else { full.min(8) }
}

/// Writes `rotation.toml` and has the daemon read it.
fn configure(world: &World, rotation: &str) {
    write_file(&world.outside("config/secretfs/rotation.toml"), rotation.as_bytes());
    world.control("reload", "\n").unwrap();
}

/// Mounts a store in which `db/app` is rotated at a target, whose admin's password is in `db/admin`.
fn world_with(value: &str, plan: &str, target: &str) -> Option<World> {
    let world = World::start()?;
    configure(
        &world,
        &format!(
            "[[rotation]]\nnames = [\"db/app\"]\n{plan}\n[rotation.target]\n\
             admin_secret = \"db/admin\"\n{target}\n"
        ),
    );
    world.put("db/admin", ADMIN);
    world.put("db/app", value);
    Some(world)
}

/// Rotates a secret by the command line, and returns the result.
fn rotate(world: &World, arguments: &[&str]) -> Value {
    let mut command = world.secretfs();
    // Where both values work, a process that holds the old one is waited for, for a minute: its name is in the result.
    let output = bounded_by(ADOPTED, command.args(["--json", "rotate"]).args(arguments));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn rotated(world: &World, name: &str) -> Value {
    let outcome = rotate(world, &[name]);
    assert!(outcome["success"] == true && outcome["error"].is_null(), "{outcome:#}");
    outcome
}

/// A client that reads its credential from the mount and logs in with it, over and over. It is one process
/// that opens the file itself, as a program does that wants its password.
struct Client {
    child: Child,
    log: PathBuf,
}

/// What a client has seen.
#[derive(Debug, Default)]
struct Seen {
    logins: usize,
    /// Logins that failed, and went well with what was read anew.
    again: usize,
    /// Logins that failed twice.
    failed: usize,
}

impl Client {
    /// Starts a client; `login` is a command of bash that finds the credential in `$value`.
    fn start(world: &World, number: usize, secret: &str, login: &str) -> Self {
        let log = world.outside(&format!("client-{number}"));
        let script = format!(
            "look() {{ IFS= read -r value < {} || [ -n \"$value\" ]; }}\n\
             try() {{ look && {login} >/dev/null 2>&1; }}\n\
             while :; do\n\
               if try; then echo ok; elif try; then echo again; else echo failed; fi\n\
             done",
            world.path(secret).display()
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGKILL", "bash", "-c", &script]).stdin(Stdio::null());
        command.stdout(fs::File::create(&log).unwrap()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), log }
    }

    fn seen(&self) -> Seen {
        let text = fs::read_to_string(&self.log).unwrap();
        let lines = |word| text.lines().filter(|line| *line == word).count();
        Seen { logins: lines("ok"), again: lines("again"), failed: lines("failed") }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Rotates under clients that log in all the time; each of them gets to log in between two rotations.
fn campaign(world: &World, secret: &str, login: &str, rotations: usize) -> Seen {
    let clients: Vec<Client> =
        (0..8).map(|number| Client::start(world, number, secret, login)).collect();
    let logins = || clients.iter().map(|client| client.seen().logins).collect::<Vec<_>>();
    for _ in 0..rotations {
        let before = logins();
        // Twelve campaigns' processes beside a compiler's: one client of eight may wait for its turn.
        eventually_by(6 * common::DEADLINE, "every client logs in", || {
            logins().iter().zip(&before).all(|(now, before)| now > before)
        });
        let begun = Instant::now();
        let outcome = rotated(world, secret);
        if begun.elapsed() > common::DEADLINE {
            println!("a rotation took {:?}: {outcome:#}", begun.elapsed());
        }
        assert_eq!(outcome["verified"], true, "{outcome:#}");
        assert_eq!(outcome["verified_by"], "login");
    }
    let seen: Vec<Seen> = clients.iter().map(Client::seen).collect();
    let sum = |of: fn(&Seen) -> usize| seen.iter().map(of).sum::<usize>();
    let seen = Seen {
        logins: sum(|seen| seen.logins),
        again: sum(|seen| seen.again),
        failed: sum(|seen| seen.failed),
    };
    println!("{secret}: {rotations} rotations, {seen:?}");
    seen
}

#[test]
fn no_login_fails_while_two_users_of_a_postgresql_take_turns() {
    let Some(server) = Postgresql::start(
        "CREATE ROLE app_a LOGIN PASSWORD 'canary-a'; CREATE ROLE app_b LOGIN PASSWORD 'canary-b'",
    ) else {
        return;
    };
    let target = format!(
        "kind = \"postgresql\"\naddress = \"127.0.0.1:{}\"\nusers = [\"app_a\", \"app_b\"]\n\
         admin_user = \"postgres\"",
        server.port
    );
    let url = format!("postgresql://app_a:canary-a@127.0.0.1:{}/postgres", server.port);
    let Some(world) = world_with(&url, "", &target) else { return };
    let seen = campaign(&world, "db/app", "psql -XAt \"$value\" -c 'SELECT 1'", count(200));
    assert_eq!((seen.again, seen.failed), (0, 0), "{seen:?}");
    let users: Vec<String> = (1..=3)
        .map(|version| String::from_utf8(world.get(&format!("db/app@{version}")).unwrap()).unwrap())
        .map(|url| url[13..18].to_owned())
        .collect();
    assert_eq!(users, ["app_a", "app_b", "app_a"]);
}

#[test]
fn a_login_is_tried_again_once_at_most_while_the_one_user_of_a_postgresql_changes() {
    let Some(server) = Postgresql::start("CREATE ROLE app LOGIN PASSWORD 'canary-a'") else {
        return;
    };
    let target = format!(
        "kind = \"postgresql\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\nadmin_user = \"postgres\"",
        server.port
    );
    let Some(world) = world_with("canary-a", "", &target) else { return };
    let login = format!(
        "PGPASSWORD=\"$value\" psql -XAt -h 127.0.0.1 -p {} -U app -d postgres -c 'SELECT 1'",
        server.port
    );
    let seen = campaign(&world, "db/app", &login, count(200));
    assert_eq!(seen.failed, 0, "{seen:?}");
}

#[test]
fn no_login_fails_twice_at_a_mariadb() {
    let Some(server) = Mariadb::start("CREATE USER app@'%' IDENTIFIED BY 'canary-a'") else {
        return;
    };
    let target = format!(
        "kind = \"mysql\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\nadmin_user = \"admin\"",
        server.port
    );
    let Some(world) = world_with("canary-a", "wait_adopted_seconds = 10", &target) else { return };
    let login = format!(
        "MYSQL_PWD=\"$value\" mariadb --no-defaults --host=127.0.0.1 --port={} --user=app -e 'SELECT 1'",
        server.port
    );
    let seen = campaign(&world, "db/app", &login, count(50));
    assert_eq!(seen.failed, 0, "{seen:?}");
}

#[test]
fn no_login_fails_twice_at_a_redis() {
    let Some(server) = Redis::start("user app on >canary-a ~* +@all") else { return };
    let target =
        format!("kind = \"redis\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"", server.port);
    let Some(world) = world_with("canary-a", "wait_adopted_seconds = 10", &target) else { return };
    let login = format!(
        "[ \"$(REDISCLI_AUTH=\"$value\" redis-cli -h 127.0.0.1 -p {} --user app PING)\" = PONG ]",
        server.port
    );
    let seen = campaign(&world, "db/app", &login, count(50));
    assert_eq!(seen.failed, 0, "{seen:?}");
}

#[test]
fn every_handshake_gets_a_matching_pair_while_a_certificate_is_rotated_and_nginx_reloaded() {
    let (Some(nginx), Some(_)) = (program("nginx"), program("openssl")) else { return };
    let Some(world) = World::start() else { return };
    let (port, pidfile) = (port(), world.outside("nginx.pid"));
    configure(
        &world,
        &format!(
            "[[rotation]]\nnames = [\"tls/web\"]\ngenerate = {{ kind = \"tls\", names = [\"localhost\"] }}\n\
             verify = {{ kind = \"tls\" }}\n\
             notify = [{{ kind = \"signal\", signal = \"HUP\", pidfile = \"{}\" }}]\n",
            pidfile.display()
        ),
    );
    world.put("tls/web", "to be replaced");
    let first = rotated(&world, "tls/web");
    assert_eq!((&first["verified"], &first["verified_by"]), (&json!(true), &json!("tls")));
    assert!(
        world.attribute("tls/web", "expires").is_some(),
        "the certificate's end is the secret's"
    );
    // nginx opens the file twice: for the certificate, and for the key.
    let pair = world.path("tls/@snap/web");
    let config = format!(
        "daemon off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pair}; ssl_certificate_key {pair};\n\
         return 200 ok; }} }}\n",
        pidfile.display(),
        pair = pair.display(),
    );
    write_file(&world.outside("nginx.conf"), config.as_bytes());
    let mut command = Command::new(nginx);
    command.arg("-p").arg(world.outside("")).arg("-c").arg(world.outside("nginx.conf"));
    let _server = Server::start(command, port, world.outside("nginx.log"));
    let login = format!(
        "openssl s_client -connect 127.0.0.1:{port} -servername localhost -brief </dev/null"
    );
    let clients: Vec<Client> =
        (0..4).map(|number| Client::start(&world, number, "tls/web", &login)).collect();
    // Each waits for up to five seconds before it tells nginx.
    for _ in 0..count(50).div_ceil(2) {
        let before: usize = clients.iter().map(|client| client.seen().logins).sum();
        rotated(&world, "tls/web");
        let serial = serial(&world.get("tls/web").unwrap());
        eventually("nginx presents the new certificate", || {
            presented(port) == Some(serial.clone())
        });
        eventually("handshakes go on", || {
            clients.iter().map(|client| client.seen().logins).sum::<usize>() > before
        });
    }
    for client in &clients {
        let seen = client.seen();
        assert!(seen.logins > 0 && seen.again == 0 && seen.failed == 0, "{seen:?}");
    }
}

fn serial(pem: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pem");
    write_file(&file, pem);
    succeed(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file))
}

fn presented(port: u16) -> Option<String> {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} -servername localhost </dev/null 2>/dev/null \
         | openssl x509 -noout -serial"
    );
    let output = bounded(Command::new("sh").args(["-c", &script]));
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

const READER: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["app/key"], levels = ["read"] }]
[[binding]]
id = "reader"
role = "reader"
uid = [61701]
"#;

#[test]
fn holders_names_who_kept_the_old_value_and_forgets_who_read_anew_or_ended() {
    let Some(mut world) = World::with_policy(READER) else { return };
    world.put("app/key", "canary-1");
    let path = world.path("app/key");
    let hold = |seconds: &str| {
        let script = "exec 3<\"$0\"; read -r _ <&3; exec sleep \"$1\"";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGKILL", "bash", "-c", script]).arg(&path).arg(seconds);
        command.stdin(Stdio::null()).spawn().unwrap()
    };
    let (mut keeps, mut ends) = (hold("1000"), hold("1000"));
    let holders = |world: &World, what: &[&str]| -> Vec<(u64, u64)> {
        let output = bounded(world.secretfs().arg("--json").args(what));
        assert!(output.status.success(), "{output:?}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |holder: &Value| (holder["pid"].as_u64(), holder["version"].as_u64());
        let all = found.as_array().unwrap().iter().map(of);
        all.map(|(pid, version)| (pid.unwrap(), version.unwrap())).collect()
    };
    let (kept, ended) = (u64::from(keeps.id()), u64::from(ends.id()));
    eventually("both have opened it", || {
        let found = holders(&world, &["holders", "app/key"]);
        found.contains(&(kept, 1)) && found.contains(&(ended, 1))
    });
    assert!(!holders(&world, &["stale"]).contains(&(kept, 1)), "it is the current version");
    let attribute = world.attribute("app/key", "holders").unwrap();
    assert!(attribute.split(',').any(|one| one == format!("{kept}@1")), "{attribute}");
    let listed = bounded(Command::new("getfattr").arg(&path));
    assert!(String::from_utf8(listed.stdout).unwrap().contains("user.secretfs.holders\n"));
    let asked = Person::new(61_701).run(|| {
        let mut getfattr = Command::new("getfattr");
        let refused = bounded(getfattr.args(["-n", "user.secretfs.holders"]).arg(&path));
        String::from_utf8(refused.stderr).unwrap()
    });
    assert!(asked.contains("Permission denied"), "{asked}");
    rotated(&world, "app/key");
    let reread = Command::new("cat").arg(&path).stdout(Stdio::null()).spawn().unwrap();
    let reread_pid = u64::from(reread.id());
    assert!(reread.wait_with_output().unwrap().status.success());
    let stale = holders(&world, &["stale"]);
    assert!(stale.contains(&(kept, 1)) && stale.contains(&(ended, 1)), "{stale:?}");
    assert!(stale.iter().all(|(pid, _)| *pid != reread_pid));
    drop(ends.kill());
    drop(ends.wait());
    world.kill_and_restart();
    let stale = holders(&world, &["stale"]);
    assert!(stale.contains(&(kept, 1)), "also by another server: {stale:?}");
    assert!(stale.iter().all(|(pid, _)| *pid != ended), "{stale:?}");
    assert!(world.get("app/key").is_ok());
    let own = u64::from(std::process::id());
    assert!(holders(&world, &["holders", "app/key"]).contains(&(own, 2)));
    assert!(!holders(&world, &["stale"]).iter().any(|(pid, _)| *pid == own));
    drop(keeps.kill());
    drop(keeps.wait());
}

/// A target as a program: what it accepts is a line each in a file, by digests. It fails as a file says.
const TARGET: &str = r#"#!/bin/bash
dir="$(dirname "$0")"; step="$1"
digest() { sha256sum < "/proc/self/fd/$1" | cut -d' ' -f1; }
fault=none
if read -r on kind < "$dir/fault" 2>/dev/null && [ "$on" = "$step" ]; then
    fault="$kind"
    if [ -e "$dir/next" ]; then mv "$dir/next" "$dir/fault"; else rm "$dir/fault"; fi
fi
server() { cut -d' ' -f2 "$dir/data/secretfs/lock"; }
case "$fault" in
    refuse) exit 1 ;;
    hang-before) exec sleep 1000 ;;
    kill-server-before) kill -9 "$(server)"; sleep 1000 ;;
    kill-effector-before) kill -9 $PPID; exit 1 ;;
esac
case "$step" in
    set) if [ -e "$dir/two" ]; then
            printf '%s\n%s\n' "$(digest $SECRETFS_CURRENT_FD)" "$(digest $SECRETFS_NEW_FD)"
        else digest $SECRETFS_NEW_FD; fi > "$dir/accepted" ;;
    verify) grep -qx "$(digest $SECRETFS_NEW_FD)" "$dir/accepted" || exit 1 ;;
    finish) digest $SECRETFS_NEW_FD > "$dir/accepted" ;;
    rollback) digest $SECRETFS_CURRENT_FD > "$dir/accepted" ;;
esac
case "$fault" in
    hang-after) exec sleep 1000 ;;
    kill-server-after) kill -9 "$(server)"; sleep 1000 ;;
    kill-effector-after) kill -9 $PPID; exit 1 ;;
esac
exit 0
"#;

const KINDS: [&str; 7] = [
    "refuse",
    "hang-before",
    "hang-after",
    "kill-server-before",
    "kill-server-after",
    "kill-effector-before",
    "kill-effector-after",
];

fn digest(value: &[u8]) -> String {
    sha2::Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs one row of the fault table on a real daemon, and prints it.
fn fault_row(step: &str, two: bool) {
    let Some(world) = World::start() else { return };
    let program = world.outside("target");
    write_file(&program, TARGET.as_bytes());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    if two {
        write_file(&world.outside("two"), b"");
    }
    configure(
        &world,
        &format!(
            "[[rotation]]\nnames = [\"app/key\"]\ntimeout_seconds = 2\n\
             wait_adopted_seconds = 0\n[rotation.target]\nkind = \"exec\"\n\
             command = {{ argv = [\"{}\"] }}\nholds_two = {two}\n",
            program.display()
        ),
    );
    world.put("app/key", "canary-first");
    write_file(&world.outside("accepted"), format!("{}\n", digest(b"canary-first")).as_bytes());
    let mut cells = Vec::new();
    for kind in KINDS {
        let before = world.get("app/key").unwrap();
        // A rollback comes only after something else went wrong.
        let first =
            if step == "rollback" { "verify refuse".into() } else { format!("{step} {kind}") };
        if step == "rollback" {
            write_file(&world.outside("next"), format!("rollback {kind}\n").as_bytes());
        }
        write_file(&world.outside("fault"), format!("{first}\n").as_bytes());
        drop(bounded(world.secretfs().args(["rotate", "app/key"])));
        eventually(&format!("{step} {kind} ends with what readers get"), || {
            let status = world.attribute("app/key", "status");
            let Ok(value) = world.get("app/key") else { return false };
            let accepted = fs::read_to_string(world.outside("accepted")).unwrap();
            status.as_deref() == Some("active") && accepted.lines().eq([digest(&value)])
        });
        assert!(!world.outside("fault").exists(), "{step} {kind} has not struck");
        let now = world.get("app/key").unwrap();
        cells.push(if now == before { "as before" } else { "the new one" });
        // What was left undone may be being tried again just now.
        eventually(&format!("after {step} {kind} it can be rotated again"), || {
            bounded(world.secretfs().args(["rotate", "app/key"])).status.success()
        });
    }
    println!("{step:9} two={two:5} {}", cells.join(" | "));
}

#[test]
fn whatever_fails_at_set_the_target_accepts_what_readers_get() {
    fault_row("set", false);
    fault_row("set", true);
}

#[test]
fn whatever_fails_at_verify_the_target_accepts_what_readers_get() {
    fault_row("verify", false);
    fault_row("verify", true);
}

#[test]
fn whatever_fails_at_finish_the_target_accepts_what_readers_get() {
    fault_row("finish", false);
    fault_row("finish", true);
}

#[test]
fn whatever_fails_at_rollback_the_target_accepts_what_readers_get() {
    fault_row("rollback", false);
    fault_row("rollback", true);
}

#[test]
fn a_revoked_secret_is_read_by_nobody_also_not_by_who_has_it_open() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "canary-1");
    let open = fs::File::open(world.path("app/key")).unwrap();
    let mut byte = [0; 4];
    assert_eq!(open.read_at(&mut byte, 0).unwrap(), 4);
    let output = bounded(world.secretfs().args(["revoke", "app/key"]));
    assert!(output.status.success(), "{output:?}");
    let errno = open.read_at(&mut byte, 0).unwrap_err().raw_os_error();
    assert_eq!(errno, Some(libc::EKEYREVOKED));
    assert_eq!(world.get("app/key"), Err(libc::EKEYREVOKED));
    rotated(&world, "app/key");
    assert!(world.get("app/key").is_ok());
    assert_eq!(open.read_at(&mut byte, 0).unwrap_err().raw_os_error(), Some(libc::EKEYREVOKED));
}

#[test]
fn a_value_that_is_given_is_staged_proven_and_switched() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "canary-1");
    let file = world.outside("new");
    write_file(&file, b"canary-2");
    let outcome = rotate(&world, &["app/key", "--value-file", file.to_str().unwrap()]);
    assert_eq!((&outcome["success"], &outcome["verified_by"]), (&json!(true), &json!("read_back")));
    assert_eq!(outcome["verified"], false, "to read back proves nothing about where it is used");
    assert_eq!(world.get("app/key").unwrap(), b"canary-2");
    assert!(world.get("app/key@pending").is_err());
}

#[test]
fn the_verdict_of_a_command_is_its_errno_and_the_reply_the_result() {
    let Some(world) = World::start() else { return };
    configure(
        &world,
        "[[rotation]]\nnames = [\"app/key\"]\n[rotation.target]\nkind = \"exec\"\n\
         command = { argv = [\"/bin/false\"] }\n",
    );
    world.put("app/key", "canary-1");
    let refused = world.control("rotate", "app/key").unwrap_err();
    assert_eq!(refused.errno, libc::EIO);
    let reply: Value = serde_json::from_str(&refused.reply).unwrap();
    assert_eq!(reply["success"], false);
    assert!(reply["error"].as_str().unwrap().starts_with("set: refused"), "{reply:#}");
    assert_eq!(world.get("app/key").unwrap(), b"canary-1");
    let plan = world.control("rotate", "app/key dry_run=yes").unwrap();
    assert!(plan["plan"].as_array().unwrap().len() >= 5, "{plan:#}");
    for bad in ["app/none", "app/key verify=perhaps", "app/key sooner=yes"] {
        let refused = world.control("rotate", bad).unwrap_err();
        assert!([libc::EINVAL, libc::ENOENT].contains(&refused.errno), "{bad}: {refused:?}");
    }
    write_file(&world.outside("config/secretfs/rotation.toml"), b"[[rotation]]\nnames = 7\n");
    let refused = world.control("reload", "\n").unwrap_err();
    assert!(refused.reply.contains("line 2"), "{refused:?}");
}

#[test]
fn a_rotation_that_was_under_way_when_the_machine_went_down_ends_after_the_next_start() {
    let Some(mut world) = World::start() else { return };
    let program = world.outside("target");
    write_file(&program, TARGET.as_bytes());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    configure(
        &world,
        &format!(
            "[[rotation]]\nnames = [\"app/key\"]\n[rotation.target]\nkind = \"exec\"\n\
             command = {{ argv = [\"{}\"] }}\n",
            program.display()
        ),
    );
    world.put("app/key", "canary-first");
    write_file(&world.outside("accepted"), format!("{}\n", digest(b"canary-first")).as_bytes());
    write_file(&world.outside("fault"), b"set hang-after\n");
    let begun = world.control("rotate", "app/key wait=no").unwrap();
    assert_eq!(begun["state"], "running");
    eventually("the target is set", || !world.outside("fault").exists());
    world.kill_and_restart();
    eventually("it is brought back", || {
        let accepted = fs::read_to_string(world.outside("accepted")).unwrap();
        world.attribute("app/key", "status").as_deref() == Some("active")
            && accepted.lines().eq([digest(b"canary-first")])
    });
    assert_eq!(world.get("app/key").unwrap(), b"canary-first");
    let history = bounded(world.secretfs().args(["--json", "rotations", "app/key"]));
    let outcome: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!((&outcome["success"], &outcome["rolled_back"]), (&json!(false), &json!(true)));
}
