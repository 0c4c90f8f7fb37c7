//! The server that is held ready: what it has before its turn, what it serves by in it, and what becomes of it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::Signal;

use super::common::{self, Person, World, bounded, eventually, read};
use super::{Killer, campaign, replace, signal, state};

/// Returns the spare's pid, once it waits for its turn.
fn spare(world: &World) -> u32 {
    let mut found = Vec::new();
    eventually("a spare waits", || {
        found = spares(world);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "one is enough");
    found[0]
}

/// Returns the processes that wait to be a server.
fn spares(world: &World) -> Vec<u32> {
    let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children(world).into_iter().filter(|pid| comm(pid) == "secretfs-spare\n").collect()
}

fn children(world: &World) -> Vec<u32> {
    let keeper = world.keeper();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Kills the server and returns the pid of the one that serves then.
fn next_server(world: &World) -> u32 {
    replace(world, Signal::SIGKILL);
    world.pid()
}

fn program_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn is_gone(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z'))
}

#[test]
fn the_next_server_is_there_before_the_one_in_use_dies() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let mut before = world.pid();
    for round in 0..campaign(3, 30) {
        let waiting = spare(&world);
        assert_ne!(waiting, before);
        before = next_server(&world);
        assert_eq!(before, waiting, "round {round}");
        assert_eq!(world.get("a").unwrap(), b"value");
        assert_eq!(fs::read_to_string(format!("/proc/{before}/comm")).unwrap(), "secretfs\n");
    }
}

#[test]
fn before_its_turn_a_spare_has_nothing_open_but_its_channels_and_cannot_be_looked_into() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let waiting = spare(&world);
    let open = |pid: u32| -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        names.map(|name| format!("{}", fs::read_link(name).unwrap().display())).collect()
    };
    // What it got from whoever started the keeper, besides its output.
    let inherited = open(std::process::id());
    let stderr = world.outside("stderr").display().to_string();
    let mut own = open(waiting);
    own.retain(|name| !inherited.contains(name) && *name != stderr);
    // To the keeper, and to its observer.
    assert!(own.len() <= 2 && own.iter().all(|name| name.starts_with("socket:")), "{own:?}");
    let maps = fs::read_to_string(format!("/proc/{waiting}/maps")).unwrap();
    assert!(maps.contains("[stack]") && !maps.contains("memfd"), "{maps}");
    // The control: the server has the store open.
    assert!(open(world.pid()).iter().any(|name| name.ends_with("store.redb")));
    // A process that is not dumpable is root's in /proc, and its user's other processes cannot read it.
    let environ = PathBuf::from(format!("/proc/{waiting}/environ"));
    assert_eq!(Person::new(65534).run(|| read(&environ)), Err(libc::EACCES));
}

#[test]
fn a_spare_s_observer_is_there_before_it_and_they_do_not_pile_up() {
    let rule = "[[role]]\nname = \"reader\"\nallow = [{ names = [\"**\"], levels = [\"read\"] }]\n\
         [[binding]]\nid = \"cat\"\nrole = \"reader\"\nuid = [1234]\nexe = \"/usr/bin/cat\"\n";
    let Some(world) = World::with_policy(rule) else { return };
    world.put("a", "value");
    let path = world.path("a");
    for round in 0..5 {
        let waiting = spare(&world);
        eventually("its observer is there", || observers(&world) == 2);
        assert_eq!(next_server(&world), waiting);
        let output = bounded(Command::new("/usr/bin/cat").arg(&path).uid(1234).gid(1234));
        assert_eq!(output.stdout, b"value", "round {round}: {output:?}");
        assert_eq!(Person::new(1234).run(|| read(&path)), Err(libc::EACCES), "round {round}");
    }
    spare(&world);
    eventually("one each", || observers(&world) == 2);
    // The server, the spare, their observers, and what the last one ended and has not looked at since.
    assert!(children(&world).len() <= 6, "{:?}", children(&world));
}

/// Returns how many observers wait to be asked.
fn observers(world: &World) -> usize {
    let is_one = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.ends_with(b"\0observer\0")
    };
    children(world).iter().filter(|pid| is_one(pid)).count()
}

#[test]
fn a_spare_serves_by_the_policy_and_the_configuration_of_its_turn() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let (path, person) = (world.path("a"), Person::new(1234));
    assert_eq!(person.run(|| read(&path)), Err(libc::EACCES));
    let waiting = spare(&world);
    world.set_policy(
        "[[role]]\nname = \"reader\"\nallow = [{ names = [\"**\"], levels = [\"read\"] }]\n\
         [[binding]]\nid = \"one\"\nrole = \"reader\"\nuid = [1234]\n",
    );
    let config = world.outside("config/secretfs/secretfs.toml");
    common::write_file(&config, b"[limits]\nmax_value_bytes = 1024\n");
    assert_eq!(next_server(&world), waiting);
    assert_eq!(person.run(|| read(&path)), Ok(b"value".to_vec()));
    assert_eq!(common::write(&path, &[b'x'; 2000]), Err(libc::EFBIG));
    // And a right that is gone is gone.
    let waiting = spare(&world);
    world.set_policy("");
    assert_eq!(next_server(&world), waiting);
    assert_eq!(person.run(|| read(&path)), Err(libc::EACCES));
}

#[test]
fn a_configuration_that_a_spare_cannot_use_is_not_served_by_an_earlier_one() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    spare(&world);
    let config = world.outside("config/secretfs/secretfs.toml");
    common::write_file(&config, b"this is no configuration");
    let server = world.pid();
    signal(server, Signal::SIGKILL);
    eventually("a server was refused", || world.said().contains("secretfs.toml, line 1"));
    let reader = {
        let path = world.path("a");
        thread::spawn(move || read(&path))
    };
    common::write_file(&config, b"");
    assert_eq!(reader.join().unwrap(), Ok(b"value".to_vec()));
    assert_ne!(world.pid(), server);
}

#[test]
fn after_an_upgrade_neither_the_server_nor_its_spare_is_of_the_program_before() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let old = spare(&world);
    let program = world.outside("secretfs-next");
    fs::copy(env!("CARGO_BIN_EXE_secretfs"), &program).unwrap();
    let upgraded = bounded(world.secretfs().arg("upgrade").arg(&program));
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_ne!(world.pid(), old);
    assert_eq!(program_of(world.pid()), program);
    // It, too, was there before the server made room.
    let arguments = fs::read(format!("/proc/{}/cmdline", world.pid())).unwrap();
    assert!(arguments.ends_with(b"\0--spare\0"), "{}", arguments.escape_ascii());
    eventually("the old program's spare is gone", || is_gone(old));
    let waiting = spare(&world);
    assert_eq!(program_of(waiting), program);
    assert_eq!(next_server(&world), waiting);
    // One that does not serve leaves the spare of the one that does.
    let bad = world.outside("no-secretfs");
    fs::copy("/bin/false", &bad).unwrap();
    assert!(!bounded(world.secretfs().arg("upgrade").arg(&bad)).status.success());
    assert_eq!(world.get("a").unwrap(), b"value");
    assert_eq!(program_of(world.pid()), program);
    assert_eq!(program_of(spare(&world)), program);
}

#[test]
fn a_spare_does_not_outlive_its_keeper_even_if_it_is_stopped() {
    for stopped in [false, true] {
        let Some(world) = World::start() else { return };
        let waiting = spare(&world);
        if stopped {
            signal(waiting, Signal::SIGSTOP);
            eventually("the spare is stopped", || state(waiting) == Some('T'));
        }
        signal(world.keeper(), Signal::SIGKILL);
        eventually("the spare is gone", || is_gone(waiting));
    }
}

#[test]
fn an_unmount_takes_the_spare_along() {
    let Some(world) = World::start() else { return };
    let waiting = spare(&world);
    let unmounted = bounded(world.secretfs().arg("umount"));
    assert!(unmounted.status.success(), "{unmounted:?}");
    eventually("the spare is gone", || is_gone(waiting));
}

#[test]
fn a_spare_that_is_stopped_when_its_turn_comes_is_replaced() {
    let config = "watchdog_seconds = 1";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    let waiting = spare(&world);
    signal(waiting, Signal::SIGSTOP);
    eventually("the spare is stopped", || state(waiting) == Some('T'));
    signal(world.pid(), Signal::SIGKILL);
    assert_eq!(world.get("a").unwrap(), b"value");
    assert_ne!(world.pid(), waiting);
    assert!(is_gone(waiting));
}

#[test]
fn an_upgrade_s_server_that_is_stopped_on_its_way_holds_nobody_up() {
    let config = "watchdog_seconds = 1";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    let old = world.pid();
    let program = world.outside("secretfs-next");
    fs::copy(env!("CARGO_BIN_EXE_secretfs"), &program).unwrap();
    let mut upgrade = world.secretfs();
    upgrade.arg("upgrade").arg(&program).stdout(Stdio::null()).stderr(Stdio::null());
    let mut upgrade = upgrade.spawn().unwrap();
    // At whatever point it is: it has just been started, waits for its turn, or serves already.
    let link = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let is_coming = |pid: &u32| link(pid).is_some_and(|found| found == program);
    let coming = || children(&world).into_iter().find(is_coming);
    eventually("the program is started", || coming().is_some());
    coming().into_iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
    assert_eq!(world.get("a").unwrap(), b"value");
    let upgraded = upgrade.wait().unwrap().success();
    assert_ne!(world.pid(), old);
    // One that was stopped in its turn, before it served, is given up.
    assert_eq!(program_of(world.pid()) == program, upgraded);
    assert_eq!(world.get("a").unwrap(), b"value");
}

#[test]
fn whoever_kills_the_spare_the_server_or_both_leaves_a_mount_that_works() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let mut killer = Killer::new();
    for round in 0..campaign(10, 300) {
        let server = world.pid();
        // Whatever there is: also one that is just being started, or none.
        thread::sleep(killer.pause());
        let waiting = spares(&world);
        let spares = waiting.iter().copied();
        let victims: Vec<u32> = match round % 4 {
            0 => spares.chain([server]).collect(),
            1 => [server].into_iter().chain(spares).collect(),
            2 => spares.collect(),
            _ => vec![server],
        };
        victims.iter().for_each(|victim| signal(*victim, Signal::SIGKILL));
        assert_eq!(world.get("a").unwrap(), b"value", "round {round}");
        assert_eq!(world.pid() == server, !victims.contains(&server), "round {round}");
    }
    assert_eq!(program_of(spare(&world)), program_of(world.keeper()));
}
