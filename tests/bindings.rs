//! Whom a binding binds (CONTRACT 8): users, groups, units, containers, programs and times.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::person::Cgroup;
use common::{Person, Tried, World, bounded, read};

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;

/// A role that reads everything, bound with these conditions.
fn readers(conditions: &str) -> String {
    format!(
        "[[role]]\nname = \"readers\"\nallow = [{{ names = [\"**\"], levels = [\"read\"] }}]\n\
         [[binding]]\nid = \"bound\"\nrole = \"readers\"\n{conditions}\n"
    )
}

/// A world with one secret, `name`, and such a role.
fn world_for(conditions: &str) -> Option<World> {
    let world = World::with_policy(&readers(conditions))?;
    world.put("name", "example-value");
    Some(world)
}

fn reads(world: &World, person: &Person) -> Tried<()> {
    let path = world.path("name");
    person.run(|| read(&path)).map(|value| assert_eq!(value, b"example-value"))
}

#[test]
fn a_uid_is_bound() {
    let Some(world) = world_for("uid = [61001]") else { return };
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()));
    assert_eq!(reads(&world, &Person::new(BOB)), Err(libc::EACCES));
}

#[test]
fn a_group_is_bound_by_the_effective_and_by_supplementary_groups() {
    let Some(world) = world_for("gid = [62000]") else { return };
    assert_eq!(reads(&world, &Person::new(ADA).in_groups(&[62_001, 62_000])), Ok(()));
    assert_eq!(reads(&world, &Person { gid: 62_000, ..Person::new(BOB) }), Ok(()));
    assert_eq!(reads(&world, &Person::new(ADA).in_groups(&[62_001])), Err(libc::EACCES));
    assert_eq!(reads(&world, &Person::new(ADA)), Err(libc::EACCES));
}

#[test]
fn groups_given_up_after_a_read_no_longer_count() {
    let Some(world) = world_for("gid = [62000]") else { return };
    let path = world.path("name");
    // In one process: what was known of it at its first read must not be believed at its second.
    let person = Person::new(0).in_groups(&[62_000]);
    let twice = person.run(|| {
        nix::unistd::setegid(nix::unistd::Gid::from_raw(62_001)).unwrap();
        let uid = nix::unistd::Uid::from_raw(ADA);
        nix::unistd::seteuid(uid).unwrap();
        let before = read(&path).map(drop);
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::seteuid(uid).unwrap();
        [before, read(&path).map(drop)]
    });
    assert_eq!(twice, [Ok(()), Err(libc::EACCES)]);
}

#[test]
fn a_systemd_unit_is_bound_by_its_full_path() {
    let unit = format!("secretfs-test-{}.service", std::process::id());
    let Some(world) = world_for(&format!("uid = [61001]\nunit = \"{unit}\"")) else { return };
    let groups = [
        (format!("system.slice/{unit}"), Ok(())),
        (format!("system.slice/{unit}/below"), Ok(())),
        (format!("user.slice/user-61001.slice/{unit}"), Err(libc::EACCES)),
        (format!("system.slice/x-{unit}"), Err(libc::EACCES)),
    ];
    for (path, expected) in groups {
        let Some(group) = Cgroup::make(&path) else { return common::skip("no cgroup here") };
        let ada = Person::new(ADA).in_cgroup(&group);
        assert_eq!(reads(&world, &ada), expected, "{path}");
        assert_eq!(reads(&world, &Person::new(BOB).in_cgroup(&group)), Err(libc::EACCES), "{path}");
    }
    assert_eq!(reads(&world, &Person::new(ADA)), Err(libc::EACCES), "outside of the unit");
}

#[test]
fn a_unit_is_recorded_and_renaming_oneself_makes_none() {
    let unit = format!("secretfs-test-{}r.service", std::process::id());
    let Some(world) = world_for(&format!("unit = \"{unit}\"")) else { return };
    let Some(group) = Cgroup::make(&format!("system.slice/{unit}")) else {
        return common::skip("no cgroup here");
    };
    assert_eq!(reads(&world, &Person::new(ADA).in_cgroup(&group)), Ok(()));
    let lines = world.audit_of("name", "read", "allowed", ADA);
    assert_eq!(lines[0]["unit"], format!("system.slice/{unit}"), "{lines:?}");
    let path = world.path("name");
    let pretending = Person::new(ADA).run(|| {
        nix::sys::prctl::set_name(c"nginx.service").unwrap();
        read(&path)
    });
    assert_eq!(pretending, Err(libc::EACCES));
}

#[test]
fn a_container_is_bound_by_the_cgroup_that_its_runtime_made() {
    // A digest of the pid: ids of containers are 64 hexadecimal digits.
    let id = format!("{:064x}", u64::from(std::process::id()) << 20 | 0xabc);
    let conditions = format!("container = [\"podman:{id}\", \"docker:{id}\"]");
    let Some(world) = world_for(&conditions) else { return };
    let groups = [
        (format!("machine.slice/libpod-{id}.scope"), Ok(())),
        (format!("machine.slice/libpod-{id}.scope/container"), Ok(())),
        (format!("system.slice/docker-{id}.scope"), Ok(())),
        (format!("machine.slice/libpod-conmon-{id}.scope"), Err(libc::EACCES)),
        (format!("machine.slice/crio-{id}.scope"), Err(libc::EACCES)),
    ];
    for (path, expected) in groups {
        let Some(group) = Cgroup::make(&path) else { return common::skip("no cgroup here") };
        assert_eq!(reads(&world, &Person::new(ADA).in_cgroup(&group)), expected, "{path}");
    }
    let lines = world.audit_of("name", "read", "allowed", ADA);
    assert_eq!(lines[0]["container"], format!("podman:{id}"), "{lines:?}");
    assert_eq!(reads(&world, &Person::new(ADA)), Err(libc::EACCES));
}

#[test]
fn a_container_s_cgroup_made_where_a_user_may_make_one_is_not_believed() {
    let id = format!("{:064x}", u64::from(std::process::id()) << 20 | 0xdef);
    let Some(world) = world_for(&format!("container = \"podman:{id}\"")) else { return };
    let delegated = format!("secretfs-test-{}.slice", std::process::id());
    let Some(above) = Cgroup::make(&delegated) else { return common::skip("no cgroup here") };
    std::os::unix::fs::chown(above.path(), Some(ADA), Some(ADA)).unwrap();
    let group = Cgroup::make(&format!("{delegated}/libpod-{id}.scope")).unwrap();
    assert_eq!(reads(&world, &Person::new(ADA).in_cgroup(&group)), Err(libc::EACCES));
}

/// A copy of cat beside the mount.
fn copy_of_cat(world: &World, name: &str) -> std::path::PathBuf {
    let copy = world.outside(name);
    common::copy_program(Path::new("/bin/cat"), &copy);
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

fn cats(world: &World, program: &Path, uid: u32) -> bool {
    let output = bounded(Person::new(uid).command(program).arg(world.path("name")));
    assert!(output.stdout.is_empty() || output.stdout == b"example-value");
    output.status.success()
}

#[test]
fn a_program_is_bound_by_its_path() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let (program, other) = (copy_of_cat(&world, "program"), copy_of_cat(&world, "other"));
    world.set_policy(&readers(&format!("uid = [61001]\nexe = \"{}\"", program.display())));
    world.control("reload", "\n").unwrap();
    assert!(cats(&world, &program, ADA));
    assert!(!cats(&world, &other, ADA));
    assert!(!cats(&world, Path::new("/bin/cat"), ADA));
    assert!(!cats(&world, &program, BOB));
    let lines = world.audit_of("name", "read", "allowed", ADA);
    assert_eq!(lines[0]["exe"], program.to_str().unwrap(), "{lines:?}");
}

#[test]
fn a_program_is_bound_by_its_digest() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let (program, same) = (copy_of_cat(&world, "program"), copy_of_cat(&world, "same"));
    let digest = world.sh_ok(&format!("sha256sum < {}", program.display()));
    let digest = digest.split_whitespace().next().unwrap();
    world.set_policy(&readers(&format!("uid = [61001]\nexe_sha256 = \"{digest}\"")));
    world.control("reload", "\n").unwrap();
    assert!(cats(&world, &program, ADA));
    assert!(cats(&world, &same, ADA));
    // One byte more behind what is run: another program, also after the first was seen.
    let mut changed = fs::read(&program).unwrap();
    changed.push(0);
    common::write_file(&program, &changed);
    assert!(!cats(&world, &program, ADA));
    assert!(!cats(&world, Path::new("/bin/sh"), ADA));
}

#[test]
fn a_program_that_becomes_another_by_exec_is_judged_anew() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let program = copy_of_cat(&world, "program");
    world.set_policy(&readers(&format!("uid = [61001]\nexe = \"{}\"", program.display())));
    world.control("reload", "\n").unwrap();
    let name = world.path("name");
    let script = format!(
        "read x < {name} || echo refused; exec {program} {name}",
        name = name.display(),
        program = program.display()
    );
    let output = Person::new(ADA).sh(&script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused\nexample-value", "{output:?}");
}

#[test]
fn until_a_time_a_binding_holds_and_after_it_not() {
    let policy = format!(
        "{}[[binding]]\nrole = \"readers\"\nuid = [61002]\nuntil = 2020-01-01T00:00:00Z\n",
        readers("uid = [61001]\nuntil = 2999-01-01T00:00:00Z")
    );
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("name", "example-value");
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()));
    assert_eq!(reads(&world, &Person::new(BOB)), Err(libc::EACCES));
}

#[test]
fn a_binding_ends_while_it_is_used() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().tv_sec();
    let until = jiff::Timestamp::from_second(now + 2).unwrap();
    let Some(world) = world_for(&format!("uid = [61001]\nuntil = {until}")) else { return };
    let ada = Person::new(ADA);
    common::eventually("the binding ends", || reads(&world, &ada) == Err(libc::EACCES));
}

#[test]
fn hours_bind_the_time_of_day() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().tv_sec();
    let hour = now / 3600 % 24;
    let window = |from: i64, to: i64| {
        format!(
            "hours = \"{:02}:00-{:02}:00\"\ntimezone = \"UTC\"",
            (hour + from) % 24,
            (hour + to) % 24
        )
    };
    let policy = format!(
        "{}[[binding]]\nrole = \"readers\"\nuid = [61002]\n{}\n",
        readers(&format!("uid = [61001]\n{}", window(22, 26))),
        window(4, 20)
    );
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("name", "example-value");
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()));
    assert_eq!(reads(&world, &Person::new(BOB)), Err(libc::EACCES));
}

#[test]
fn max_uses_counts_reads_and_survives_the_daemon() {
    let Some(mut world) = world_for("uid = [61001]\nmax_uses = 3") else { return };
    let ada = Person::new(ADA);
    assert_eq!(reads(&world, &ada), Ok(()));
    let path = world.path("name");
    assert!(ada.run(|| fs::metadata(&path).is_ok()), "looking is no use");
    assert_eq!(reads(&world, &ada), Ok(()));
    world.kill_and_restart();
    assert_eq!(reads(&world, &ada), Ok(()));
    assert_eq!(reads(&world, &ada), Err(libc::EACCES));
    assert_eq!(world.audit_of("name", "read", "allowed", ADA).len(), 3);
}

#[test]
fn of_many_readers_at_once_no_more_than_max_uses_get_the_value() {
    let Some(world) = world_for("uid = [61001]\nmax_uses = 5") else { return };
    let ada = Person::new(ADA);
    let got: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..5).filter(|_| reads(&world, &ada).is_ok()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(got, 5);
}

#[test]
fn after_start_holds_for_the_first_seconds_of_a_process_only() {
    let Some(world) = world_for("uid = [61001]\nafter_start = \"2s\"") else { return };
    let path = world.path("name");
    let (first, later) = Person::new(ADA).run(|| {
        let first = read(&path).map(drop);
        let mut later = first;
        let start = std::time::Instant::now();
        while later.is_ok() && start.elapsed() < common::DEADLINE / 2 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            later = read(&path).map(drop);
        }
        (first, later)
    });
    assert_eq!((first, later), (Ok(()), Err(libc::EACCES)));
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()), "a new process starts anew");
}

#[test]
fn several_conditions_must_all_hold() {
    let unit = format!("secretfs-test-{}a.service", std::process::id());
    let conditions = format!("uid = [61001]\ngid = [62000]\nunit = \"{unit}\"");
    let Some(world) = world_for(&conditions) else { return };
    let Some(group) = Cgroup::make(&format!("system.slice/{unit}")) else {
        return common::skip("no cgroup here");
    };
    let person = |uid| Person::new(uid).in_groups(&[62_000]);
    assert_eq!(reads(&world, &person(ADA).in_cgroup(&group)), Ok(()));
    assert_eq!(reads(&world, &person(BOB).in_cgroup(&group)), Err(libc::EACCES));
    assert_eq!(reads(&world, &person(ADA)), Err(libc::EACCES));
    assert_eq!(reads(&world, &Person::new(ADA).in_cgroup(&group)), Err(libc::EACCES));
}
