//! A daemon's life: made, mounted, told things by signals, unmounted, killed and started again; its
//! keys changed and its store saved and brought back meanwhile.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its own environment says how much of it there is"
)]

mod common;
mod site;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;

use common::{Person, bounded, control, eventually, noise, read, skip, write, write_file};
use site::{Site, refusal};

const SEED: u64 = 0x11fe;

fn campaign(small: usize, full: usize) -> usize {
    let asked = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full");
    if asked { full } else { small }
}

/// Returns an ordinary user who can mount; says SKIP where there is none.
fn somebody() -> Option<Person> {
    let user = User::from_name("nobody").unwrap();
    let everybodys = fs::metadata("/dev/fuse").is_ok_and(|device| device.mode() & 0o006 == 0o006);
    if user.is_none() || !everybodys || !Path::new("/usr/bin/fusermount3").exists() {
        skip("no ordinary user, no fusermount3 or no /dev/fuse for everybody here");
        return None;
    }
    let user = user?;
    let mut person = Person::new(user.uid.as_raw());
    person.gid = user.gid.as_raw();
    Some(person)
}

/// Asserts that nothing is mounted any more and that even root cannot write into the mountpoint.
fn is_closed(site: &Site) {
    assert!(!site.is_mounted());
    let mountpoint = site.secret("");
    assert_eq!(fs::metadata(&mountpoint).unwrap().mode() & 0o7777, 0);
    let error = File::create(mountpoint.join("plaintext")).unwrap_err();
    assert!([Some(libc::EPERM), Some(libc::EACCES)].contains(&error.raw_os_error()), "{error}");
    assert!(fs::create_dir(mountpoint.join("directory")).is_err());
    assert_eq!(fs::read_dir(&mountpoint).unwrap().count(), 0);
}

fn is_gone(site: &Site) {
    eventually("its processes end", || site::processes_with(&site.path("")).is_empty());
}

#[test]
fn up_makes_a_store_mounts_it_in_the_background_and_finds_it_again() {
    let Some(site) = Site::new() else { return };
    let mount = site.secret("");
    let mount = mount.to_str().unwrap();
    let said = site.ok(&["up", mount]);
    assert_eq!(said, format!("mounted at {mount}\n"));
    write(&site.secret("s"), b"example-value").unwrap();
    assert!(site.refused(&["up", mount]).1.contains("another secretfs"), "one daemon a store");
    site.unmount(&[]);
    is_gone(&site);
    is_closed(&site);
    // The configuration remembers the mountpoint.
    site.ok(&["up"]);
    assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
    for (file, mode) in [(site.key(), 0o400), (site.store(), 0o600), (site.state(), 0o700)] {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, mode, "{}", file.display());
    }
}

#[test]
fn an_ordinary_user_mounts_uses_and_unmounts_a_store_of_their_own() {
    let Some(person) = somebody() else { return };
    let Some(site) = Site::of(person.clone()) else { return };
    let mount = site.secret("");
    let mount = mount.to_str().unwrap();
    site.ok(&["up", mount]);
    assert_eq!(site.health().as_deref(), Some("ok"));
    let path = site.secret("dir/s");
    let found = person.run(|| {
        fs::create_dir(path.parent().unwrap()).unwrap();
        write(&path, b"example-value").unwrap();
        let found = fs::metadata(&path).unwrap();
        (read(&path), found.uid(), found.mode() & 0o777)
    });
    assert_eq!(found, (Ok(b"example-value".to_vec()), person.uid, 0o600));
    // Without `user_allow_other` the kernel keeps others out; with it, the policy does.
    assert_eq!(Person::new(1234).run(|| read(&path)), Err(libc::EACCES));
    let server = site.pid();
    kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(person.run(|| read(&path)), Ok(b"example-value".to_vec()), "another took over");
    assert_ne!(site.pid(), server);
    let pid = Pid::from_raw(site.keeper().cast_signed());
    kill(pid, Signal::SIGKILL).unwrap();
    is_gone(&site);
    site.ok(&["up", mount]);
    assert_eq!(person.run(|| read(&path)), Ok(b"example-value".to_vec()));
    site.unmount(&[]);
    is_gone(&site);
    assert!(!site.is_mounted());
    assert_eq!(person.run(|| write(&site.secret("plaintext"), b"x")), Err(libc::EACCES));
}

#[test]
fn a_mount_that_failed_leaves_the_mountpoint_closed() {
    let Some(person) = somebody() else { return };
    let Some(site) = Site::of(person.clone()) else { return };
    site.init();
    // Without new privileges the setuid helper cannot mount.
    let mut command = person.command("/usr/bin/setpriv");
    site.surround(&mut command);
    command.arg("--no-new-privs").arg(env!("CARGO_BIN_EXE_secretfs"));
    let output = bounded(command.arg("mount").arg(site.secret("")));
    refusal(&output, &["mount"]);
    assert!(!site.is_mounted());
    assert_eq!(person.run(|| write(&site.secret("plaintext"), b"x")), Err(libc::EACCES));
}

#[test]
fn init_makes_everything_once_and_mounts_nothing() {
    let Some(mut site) = Site::new() else { return };
    let made: Value =
        serde_json::from_str(&site.ok(&["--json", "init", "--admin", "root"])).unwrap();
    assert_eq!(made["admins"], serde_json::json!([0]));
    assert!(site.store().exists() && site.key().exists() && site.policy().exists());
    assert!(!site.secret("").exists() && site::processes_with(&site.path("")).is_empty());
    let key = fs::read(site.key()).unwrap();
    assert!(site.refused(&["init"]).1.contains("exists already"));
    assert_eq!(fs::read(site.key()).unwrap(), key);
    site.serve();
}

#[test]
fn sigterm_and_sigint_unmount_and_close_the_mountpoint_for_root_too() {
    let Some(mut site) = Site::new() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        site.serve();
        let status = site.end(signal);
        assert!(status.success(), "{signal}: {status}");
        is_closed(&site);
        is_gone(&site);
    }
    assert!(!site.state().join("daemon.log").exists(), "a daemon in the foreground logs to stderr");
    assert!(site.said().contains("serving") && site.said().contains("stopped"), "{}", site.said());
}

#[test]
fn sigterm_ends_a_daemon_whose_files_are_open_and_fails_their_readers() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let held = File::open(site.secret("s")).unwrap();
    assert!(site.end(Signal::SIGTERM).success());
    is_closed(&site);
    let mut buffer = [0; 16];
    assert!(nix::unistd::read(&held, &mut buffer).is_err());
}

#[test]
fn sighup_reads_the_policy_again_and_a_bad_one_changes_nothing() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let app = || Person::new(1000).run(|| read(&site.secret("s")));
    assert_eq!(app(), Err(libc::EACCES));
    let before = fs::read_to_string(site.policy()).unwrap();
    let more = "\n[[role]]\nname = \"app\"\nallow = [{ names = [\"s\"], levels = [\"read\"] }]\n\
                [[binding]]\nrole = \"app\"\nuid = [1000]\n";
    let hup = || kill(Pid::from_raw(site.pid().cast_signed()), Signal::SIGHUP).unwrap();
    write_file(&site.policy(), format!("{before}{more}").as_bytes());
    hup();
    eventually("the new policy is in force", || app() == Ok(b"example-value".to_vec()));
    write_file(&site.policy(), b"[[role]\n");
    hup();
    eventually("the fault is shown", || site.health().as_deref() == Some("degraded"));
    assert_eq!(app(), Ok(b"example-value".to_vec()));
}

#[test]
fn umount_refuses_while_files_are_open_and_can_be_made_to() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let held = File::open(site.secret("s")).unwrap();
    let mount = site.secret("");
    let (_, said) = site.refused(&["--mount", mount.to_str().unwrap(), "umount"]);
    assert!(said.contains("--lazy"), "{said}");
    assert_eq!(site.health().as_deref(), Some("ok"));
    site.ask(&["umount", "--lazy"]);
    assert!(!site.is_mounted());
    drop(held);
    assert!(site.ended().expect("it ends when the last file is closed").success());
    is_closed(&site);
}

#[test]
fn what_was_unmounted_can_be_mounted_again_at_once() {
    let Some(site) = Site::new() else { return };
    site.init();
    let mount = site.secret("").to_str().unwrap().to_owned();
    for _ in 0..5 {
        site.ok(&["mount", &mount]);
        site.unmount(&[]);
    }
}

#[test]
fn doctor_does_not_hang_with_a_daemon_and_abort_frees_who_does() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    write_file(&site.config(), b"keeper = \"off\"\ndeadline_seconds = 1\n");
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let mount = site.secret("").to_str().unwrap().to_owned();
    let healthy = site.run(&["--mount", &mount, "doctor"]);
    let said = String::from_utf8_lossy(&healthy.stdout).into_owned();
    assert!(said.contains("the daemon is well"), "{said}");
    let pid = Pid::from_raw(site.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut reader =
        Command::new("cat").arg(site.secret("s")).stderr(Stdio::null()).spawn().unwrap();
    let output = site.run(&["--mount", &mount, "doctor"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = format!("{mount} does not answer");
    assert!(said.contains(&expected) && said.contains(&format!("kill -CONT {pid}")), "{said}");
    assert!(reader.try_wait().unwrap().is_none(), "it hangs");
    site.ok(&["--mount", &mount, "abort"]);
    eventually("the reader is free", || reader.try_wait().unwrap().is_some());
    kill(pid, Signal::SIGCONT).unwrap();
    site.ended().expect("the daemon ends with its connection");
}

#[test]
fn umount_8_ends_the_daemon_and_umount_rmdir_removes_the_directory() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    eventually("the mount is not busy", || {
        bounded(Command::new("umount").arg(site.secret(""))).status.success()
    });
    assert!(site.ended().expect("the daemon ends").success());
    is_closed(&site);
    site.serve();
    site.unmount(&["--rmdir"]);
    assert!(site.ended().unwrap().success());
    assert!(!site.secret("").exists());
    site.refused(&["umount", site.secret("").to_str().unwrap()]);
}

#[test]
fn a_dead_mount_is_explained_and_cleaned_by_the_next_start() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    for _ in 0..3 {
        site.kill();
        assert_eq!(read(&site.secret("s")), Err(libc::ENOTCONN));
        let mount = site.secret("");
        let (_, said) = site.refused(&["--mount", mount.to_str().unwrap(), "get", "s"]);
        assert!(said.contains("secretfs up"), "{said}");
        site.serve();
        assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
    }
    site.kill();
    site.unmount(&[]);
    assert!(!site.is_mounted(), "a dead mount can be unmounted");
}

/// Runs a command line with a passphrase on descriptor 3.
fn with_phrase(site: &Site, phrase: &str, args: &[&str]) -> Output {
    let file = site.path("phrase");
    write_file(&file, format!("{phrase}\n").as_bytes());
    let mut shell = Command::new("sh");
    site.surround(&mut shell);
    shell.args(["-c", "exec \"$0\" \"$@\" 3<\"$FILE\""]).env("FILE", &file);
    let output = bounded(
        shell.arg(env!("CARGO_BIN_EXE_secretfs")).args(args).args(["--passphrase-fd", "3"]),
    );
    fs::remove_file(file).unwrap();
    output
}

#[test]
fn a_passphrase_from_a_descriptor_opens_the_store_and_stands_in_no_argument_or_environment() {
    let Some(site) = Site::new() else { return };
    let mount = site.secret("");
    let mount = mount.to_str().unwrap();
    let output = with_phrase(&site, "canary-7f3a right", &["up", mount, "--passphrase"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!site.key().exists());
    write(&site.secret("s"), b"canary-7f3a value").unwrap();
    for pid in site::processes_with(&site.path("")) {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("canary-7f3a"), "{file} of {pid}");
        }
    }
    site.unmount(&[]);
    is_gone(&site);
    let output = with_phrase(&site, "canary-7f3a wrong", &["mount"]);
    let (_, said) = refusal(&output, &["mount"]);
    assert!(said.contains("wrong") && !said.contains("canary-7f3a"), "{said}");
    assert!(!site.is_mounted());
    assert!(with_phrase(&site, "canary-7f3a right", &["mount"]).status.success());
    assert_eq!(read(&site.secret("s")), Ok(b"canary-7f3a value".to_vec()));
}

#[test]
fn without_anybody_to_ask_for_the_passphrase_the_store_is_sealed_until_it_is_given() {
    let Some(mut site) = Site::new() else { return };
    let output = with_phrase(&site, "canary-7f3a right", &["init", "--passphrase"]);
    assert!(output.status.success(), "{output:?}");
    site.serve();
    assert_eq!(site.health().as_deref(), Some("sealed"));
    assert_eq!(write(&site.secret("s"), b"example-value"), Err(libc::ENOKEY));
    let mount = site.secret("");
    let unseal = ["--mount", mount.to_str().unwrap(), "unseal", "--passphrase"];
    let refused = with_phrase(&site, "canary-7f3a wrong", &unseal);
    refusal(&refused, &unseal);
    assert_eq!(site.health().as_deref(), Some("sealed"));
    assert!(with_phrase(&site, "canary-7f3a right", &unseal).status.success());
    write(&site.secret("s"), b"example-value").unwrap();
    site.ask(&["seal"]);
    assert_eq!(read(&site.secret("s")), Err(libc::ENOKEY));
    let log = fs::read_dir(site.state().join("audit")).unwrap().map(|entry| entry.unwrap().path());
    for segment in log {
        let text = String::from_utf8(fs::read(segment).unwrap()).unwrap();
        assert!(!text.contains("canary-7f3a"), "a passphrase in the log");
    }
}

#[test]
fn a_root_key_from_a_systemd_credential_opens_the_store_and_only_that_one() {
    let Some(site) = Site::new() else { return };
    let credentials = site.path("credentials");
    fs::create_dir(&credentials).unwrap();
    let place = |bytes: &[u8]| {
        write_file(&credentials.join("root-key"), bytes);
        fs::set_permissions(credentials.join("root-key"), Permissions::from_mode(0o400)).unwrap();
    };
    let run =
        |args: &[&str]| bounded(site.command(args).env("CREDENTIALS_DIRECTORY", &credentials));
    let mount = site.secret("");
    let mount = mount.to_str().unwrap();
    let (_, said) = refusal(&run(&["up", mount, "--credential", "root-key"]), &["no credential"]);
    assert!(said.contains("LoadCredentialEncrypted"), "{said}");
    place(b"short");
    let (_, said) = refusal(&run(&["up", mount, "--credential", "root-key"]), &["short"]);
    assert!(said.contains("shorter than 32 bytes") && !site.store().exists(), "{said}");
    place(&[7; 32]);
    let output = run(&["up", mount, "--credential", "root-key"]);
    assert!(output.status.success(), "{output:?}");
    write(&site.secret("s"), b"example-value").unwrap();
    site.unmount(&[]);
    is_gone(&site);
    place(&[8; 32]);
    assert!(refusal(&run(&["mount"]), &["another credential"]).1.contains("wrong"));
    site.refused(&["mount"]);
    place(&[7; 32]);
    assert!(run(&["mount"]).status.success());
    assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
}

/// Puts secrets into a mounted site, several versions each.
fn put_many(site: &Site, count: usize) {
    for n in 0..count {
        for version in ["old", "new"] {
            write(
                &site.secret(&format!("s{n}")),
                format!("{version} example-value {n}").as_bytes(),
            )
            .unwrap();
        }
    }
}

fn assert_all(site: &Site, count: usize) {
    for n in 0..count {
        for (view, version) in [("", "new"), ("@1", "old")] {
            let found = read(&site.secret(&format!("s{n}{view}")));
            let expected = format!("{version} example-value {n}").into_bytes();
            assert_eq!(found, Ok(expected), "s{n}{view}");
        }
    }
}

fn key_status(site: &Site) -> Value {
    serde_json::from_str(&site.ask(&["--json", "key", "status"])).unwrap()
}

#[test]
fn keys_are_rotated_while_mounted_and_everything_opens_before_and_after_a_restart() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    put_many(&site, 20);
    for verb in ["rotate-epoch", "rotate-root", "rotate-epoch"] {
        site.ask(&["key", verb]);
        assert_all(&site, 20);
    }
    eventually("the old epochs are gone", || {
        key_status(&site)["epochs"].as_array().is_some_and(|epochs| epochs.len() == 1)
    });
    site.assert_whole();
    site.kill();
    site.serve();
    assert_all(&site, 20);
    site.assert_whole();
    let changes = site.audit().iter().filter(|line| line["action"] == "key_change").count();
    assert!(changes >= 3, "{changes} key changes on record");
}

#[test]
fn a_daemon_killed_while_it_rotates_keys_opens_everything_afterwards() {
    const SECRETS: usize = 30;
    let rounds = campaign(12, 300);
    println!("seed {SEED:#x}, {rounds} rounds");
    let Some(mut site) = Site::new() else { return };
    site.serve();
    put_many(&site, SECRETS);
    for (round, moment) in noise(SEED, rounds).into_iter().enumerate() {
        let verb = ["key-rotate-epoch", "key-rotate-root"][round % 2];
        let admin = site.secret(".control/admin");
        let rotating =
            thread::spawn(move || control(&admin, &format!("{{\"do\":\"{verb}\"}}")).is_ok());
        thread::sleep(Duration::from_micros(u64::from(moment) * 100));
        site.kill();
        // Answered or not: the store opens with the key that is in the key file.
        drop(rotating.join());
        site.serve();
        assert_all(&site, SECRETS);
        site.assert_whole();
    }
    eventually("what was begun is finished", || {
        key_status(&site)["epochs"].as_array().is_some_and(|epochs| epochs.len() == 1)
    });
}

#[test]
fn the_key_source_is_changed_while_mounted_and_the_old_one_opens_nothing_any_more() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    put_many(&site, 3);
    let other = site.key().with_file_name("other.key");
    let mount = site.secret("");
    let args = [
        "--mount",
        mount.to_str().unwrap(),
        "key",
        "change-source",
        "file",
        "--file",
        other.to_str().unwrap(),
    ];
    let output = site.run(&args);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o400);
    assert_all(&site, 3);
    site.kill();
    let (_, said) = site.refused(&["mount"]);
    assert!(said.contains("wrong") || said.contains("slot"), "the old source: {said}");
    let config = fs::read_to_string(site.config()).unwrap();
    let renamed = config.replace(site.key().to_str().unwrap(), other.to_str().unwrap());
    assert_ne!(config, renamed);
    write_file(&site.config(), renamed.as_bytes());
    site.serve();
    assert_all(&site, 3);

    let change = ["--mount", mount.to_str().unwrap(), "key", "change-source", "passphrase"];
    let output = with_phrase(&site, "canary-7f3a right", &change);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("[key]"), "the configuration must be changed: {told}");
    site.kill();
    site.refused(&["mount"]);
    let (before, _) = renamed.split_once("[key]").unwrap();
    write_file(&site.config(), format!("{before}[key]\nsource = \"passphrase\"\n").as_bytes());
    assert!(with_phrase(&site, "canary-7f3a right", &["mount"]).status.success());
    assert_all(&site, 3);
}

#[test]
fn a_daemon_killed_while_the_key_source_is_changed_opens_with_one_of_both() {
    let rounds = campaign(8, 200);
    println!("seed {SEED:#x}, {rounds} rounds");
    let Some(mut site) = Site::new() else { return };
    site.serve();
    put_many(&site, 3);
    let mut current = site.key();
    for (round, moment) in noise(SEED + 1, rounds).into_iter().enumerate() {
        let next = site.path(&format!("key{round}"));
        let command =
            format!("{{\"do\":\"key-change-source\",\"source\":\"file\",\"file\":{next:?}}}");
        let admin = site.secret(".control/admin");
        let changing = thread::spawn(move || control(&admin, &command).is_ok());
        thread::sleep(Duration::from_micros(u64::from(moment) * 40));
        site.kill();
        let answered = changing.join().unwrap();
        let config = fs::read_to_string(site.config()).unwrap();
        let changed = config.replace(current.to_str().unwrap(), next.to_str().unwrap());
        write_file(&site.config(), changed.as_bytes());
        let output = site.run(&["mount"]);
        if output.status.success() {
            current = next;
        } else {
            assert!(!answered, "round {round}: acknowledged, but {output:?}");
            refusal(&output, &["mount"]);
            write_file(&site.config(), config.as_bytes());
            site.ok(&["mount"]);
        }
        assert_all(&site, 3);
        site.unmount(&[]);
        is_gone(&site);
        site.serve();
    }
    site.assert_whole();
}

#[test]
fn a_backup_brings_everything_back_while_mounted_and_offline() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    put_many(&site, 5);
    let file = site.path("backup");
    let path = file.to_str().unwrap();
    site.ask(&["backup", "create", path]);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(13).any(|part| part == b"example-value"), "plaintext in a backup");
    let mount = site.secret("");
    let (_, said) = site.refused(&["--mount", mount.to_str().unwrap(), "backup", "create", path]);
    assert!(
        said.contains(path) && fs::read(&file).unwrap() == bytes,
        "a backup is never overwritten"
    );

    let spoil = || {
        fs::remove_file(site.secret("s0")).unwrap();
        write(&site.secret("s1"), b"later").unwrap();
        write(&site.secret("later"), b"later").unwrap();
    };
    spoil();
    site.ask(&["backup", "restore", "--force", path]);
    assert_all(&site, 5);
    assert!(!site.secret("later").exists());
    site.assert_whole();
    write(&site.secret("after"), b"example-value").unwrap();

    spoil();
    site.stop();
    // Another store that is mounted meanwhile is not taken for ours.
    let Some(mut other) = Site::new() else { return };
    other.serve();
    write(&other.secret("s"), b"example-value").unwrap();
    site.ok(&["backup", "restore", "--force", path]);
    assert_eq!(read(&other.secret("s")), Ok(b"example-value".to_vec()));
    site.serve();
    assert_all(&site, 5);
    assert!(!site.secret("later").exists() && !site.secret("after").exists());
    site.assert_whole();
    let restores = site.audit().iter().filter(|line| line["action"] == "restore").count();
    assert!(restores >= 2, "{restores} restores on record");
}

#[test]
fn a_backup_that_is_damaged_cut_or_of_another_store_changes_nothing() {
    let (Some(mut site), Some(mut other)) = (Site::new(), Site::new()) else { return };
    site.serve();
    put_many(&site, 3);
    other.serve();
    let (file, foreign) = (site.path("backup"), site.path("foreign"));
    site.ask(&["backup", "create", file.to_str().unwrap()]);
    other.ask(&["backup", "create", foreign.to_str().unwrap()]);
    let bytes = fs::read(&file).unwrap();
    let mut bad = vec![fs::read(&foreign).unwrap(), Vec::new(), b"no backup at all".to_vec()];
    for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        bad.extend([flipped, bytes[..at].to_vec()]);
    }
    let mount = site.secret("");
    for (n, bytes) in bad.into_iter().enumerate() {
        write_file(&file, &bytes);
        let args = [
            "--mount",
            mount.to_str().unwrap(),
            "backup",
            "restore",
            "--force",
            file.to_str().unwrap(),
        ];
        site.refused(&args);
        assert_all(&site, 3);
        assert_eq!(site.health().as_deref(), Some("ok"), "bad backup {n}");
    }
    site.assert_whole();
}

#[test]
fn only_an_admin_backs_up_or_restores_or_rotates() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    let outcomes = Person::new(1000).run(|| {
        let control_file = |name: &str| site.secret(&format!(".control/{name}"));
        let rotate = control(&control_file("admin"), "{\"do\":\"key-rotate-root\"}");
        (
            read(&control_file("backup")),
            write(&control_file("restore"), b"x"),
            rotate.map_err(|err| err.errno).err(),
        )
    });
    assert_eq!(outcomes, (Err(libc::EACCES), Err(libc::EACCES), Some(libc::EACCES)));
}

#[test]
fn a_value_given_as_an_argument_is_a_usage_error_and_is_not_stored() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    let mount = site.secret("");
    for args in [
        &["put", "s", "canary-7f3a"][..],
        &["put", "s", "--value", "canary-7f3a"],
        &["put", "s", "--value=canary-7f3a"],
    ] {
        let args = [&["--mount", mount.to_str().unwrap()], args].concat();
        assert_eq!(site.refused(&args).0, 2, "{args:?}");
        assert!(!site.secret("s").exists());
    }
}

#[test]
fn completion_scripts_are_accepted_by_their_shells_and_complete_names() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("openai-api-key"), b"canary-7f3a").unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = site.ok(&["completions", shell]);
        assert!(script.contains("secretfs"), "{shell}");
        let file = site.path(&format!("completion.{shell}"));
        write_file(&file, script.as_bytes());
        if Path::new("/usr/bin").join(shell).exists() || Path::new("/bin").join(shell).exists() {
            let output = bounded(Command::new(shell).arg("-n").arg(&file));
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
        }
    }
    let mut asked = Command::new(env!("CARGO_BIN_EXE_secretfs"));
    site.surround(&mut asked);
    asked.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
    asked.env("SECRETFS_MOUNT", site.secret("")).args(["--", "secretfs", "get", "open"]);
    let output = bounded(&mut asked);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "openai-api-key");
}

#[test]
fn the_manual_has_a_page_for_each_command_that_a_formatter_accepts() {
    let Some(site) = Site::new() else { return };
    let pages = site.path("man1");
    fs::create_dir(&pages).unwrap();
    site.ok(&["man", pages.to_str().unwrap()]);
    let help = site.ok(&["--help"]);
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let page = fs::read_to_string(pages.join(format!("secretfs-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{name}");
    }
    if Path::new("/usr/bin/groff").exists() {
        for page in fs::read_dir(&pages).unwrap() {
            let page = page.unwrap().path();
            let output =
                bounded(Command::new("groff").args(["-man", "-Tascii", "-ww", "-z"]).arg(&page));
            assert!(output.stderr.is_empty(), "{}: {output:?}", page.display());
        }
    }
}

#[test]
fn a_root_owned_site_is_not_taken_over_by_an_ordinary_user() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    chown(site.path(""), Some(0), Some(0)).unwrap();
    let mut command = Person::new(1000).command(env!("CARGO_BIN_EXE_secretfs"));
    site.surround(&mut command);
    let output = bounded(command.args(["mount", "/tmp/none-7f3a"]));
    refusal(&output, &["mount"]);
    let mut command = Person::new(1000).command(env!("CARGO_BIN_EXE_secretfs"));
    site.surround(&mut command);
    let output = bounded(command.arg("umount").arg(site.secret("")));
    refusal(&output, &["umount"]);
    assert_eq!(site.health().as_deref(), Some("ok"));
}

#[test]
fn without_a_named_mount_the_configured_one_is_talked_to_and_else_several_are_listed() {
    let (Some(mut one), Some(mut two)) = (Site::new(), Site::new()) else { return };
    for (site, value) in [(&mut one, "one"), (&mut two, "two")] {
        site.serve();
        write(&site.secret("s"), value.as_bytes()).unwrap();
    }
    assert_eq!(one.ok(&["get", "s"]), "one");
    assert_eq!(two.ok(&["get", "s"]), "two");
    let third = Site::new().unwrap();
    let (code, said) = third.refused(&["get", "s"]);
    assert_eq!(code, 11);
    for site in [&one, &two] {
        assert!(said.contains(site.secret("").to_str().unwrap()), "{said}");
    }
    let mut named = third.command(&["get", "s"]);
    named.env("SECRETFS_MOUNT", two.secret(""));
    assert_eq!(common::bounded(&mut named).stdout, b"two");
    one.ok(&["umount", "--lazy"]);
    assert!(!one.is_mounted() && two.is_mounted());
}
