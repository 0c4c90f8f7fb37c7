//! Who may do what, as CONTRACT 8 promises it, with real users, groups, cgroups and programs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use common::person::Cgroup;
use common::{Person, Tried, World, bounded, list, number, read, write};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde_json::Value;

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;
const EVE: u32 = 61_003;

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
fn nobody_may_do_anything_unless_a_rule_says_so() {
    let Some(world) = World::start() else { return };
    world.put("name", "canary-7f3a");
    for person in [Person::new(ADA), Person::new(BOB).in_groups(&[0, 1, 2])] {
        assert_eq!(reads(&world, &person), Err(libc::EACCES));
        let path = world.path("name");
        assert_eq!(person.run(|| write(&path, b"x")), Err(libc::EACCES));
        assert_eq!(person.run(|| fs::remove_file(&path).is_ok()), false);
    }
    assert_eq!(world.get("name").unwrap(), b"canary-7f3a");
}

#[test]
fn levels_do_not_imply_each_other_but_admin_implies_all() {
    let mut policy = String::new();
    for (uid, level) in (ADA..).zip(["read", "write", "delete", "admin"]) {
        policy += &format!(
            "[[role]]\nname = \"{level}s\"\nallow = [{{ names = [\"*\"], levels = [\"{level}\"] }}]\n\
             [[binding]]\nrole = \"{level}s\"\nuid = [{uid}]\n"
        );
    }
    let Some(world) = World::with_policy(&policy) else { return };
    let allowed = |uid: u32| {
        world.put("name", "v");
        let path = world.path("name");
        Person::new(uid).run(|| {
            let reads = read(&path).is_ok();
            let tags = xattr::set(&path, "user.secretfs.tags", b"t").is_ok();
            let writes = write(&path, b"w").is_ok();
            [reads, writes, fs::remove_file(&path).is_ok(), tags]
        })
    };
    assert_eq!(allowed(ADA), [true, false, false, false]);
    assert_eq!(allowed(ADA + 1), [false, true, false, false]);
    assert_eq!(allowed(ADA + 2), [false, false, true, false]);
    assert_eq!(allowed(ADA + 3), [true; 4]);
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
    fs::copy(fs::canonicalize("/bin/cat").unwrap(), &copy).unwrap();
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

#[test]
fn deny_wins_over_every_allow_even_an_admin_s() {
    let policy = r#"
[[role]]
name = "all"
allow = [{ names = ["**"], levels = ["read", "write", "admin"] }]
[[role]]
name = "not-that"
deny = [{ names = ["prod/root-*"], levels = ["read"] }]
[[binding]]
role = "all"
uid = [61001]
[[binding]]
role = "not-that"
gid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("prod/root-key", "canary-7f3a");
    world.put("prod/key", "v");
    let (denied, allowed) = (world.path("prod/root-key"), world.path("prod/key"));
    let ada = Person::new(ADA);
    assert_eq!(ada.run(|| read(&denied)), Err(libc::EACCES));
    assert_eq!(ada.run(|| read(&denied.with_file_name("root-key@1"))), Err(libc::EACCES));
    assert_eq!(ada.run(|| write(&denied, b"new")), Ok(()), "write is not denied");
    assert_eq!(ada.run(|| read(&allowed)).unwrap(), b"v");
}

#[test]
fn what_somebody_may_delete_and_not_read_cannot_be_read_by_moving_it() {
    let policy = r#"
[[role]]
name = "deleter"
allow = [
  { names = ["theirs"], levels = ["write", "delete"] },
  { names = ["mine", "other"], levels = ["read", "write", "delete"] },
]
[[binding]]
role = "deleter"
uid = [61001]
"#;
    let ways = [
        "mv theirs mine",
        "printf x > other && mv theirs other && cp other mine",
        "rm theirs && mv .control/trash/* mine",
    ];
    let gives_read = |way: &&str| {
        let world = World::with_policy(policy)?;
        world.put("theirs", "canary-7f3a");
        let script = format!("cd {}; {{ {way}; }} 2>/dev/null; cat mine", world.mountpoint());
        (Person::new(ADA).sh(&script).stdout == b"canary-7f3a").then_some(())
    };
    let leaks: Vec<_> = ways.into_iter().filter(|way| gives_read(way).is_some()).collect();
    assert!(leaks.is_empty(), "no level implies another, and these gave read: {leaks:?}");
}

#[test]
fn root_is_not_exempt() {
    let policy = common::ROOT_IS_ADMIN.replace("[0]", "[61001]");
    let Some(world) = World::with(&policy, "") else { return };
    let path = world.path("name");
    let ada = Person::new(ADA);
    assert_eq!(ada.run(|| write(&path, b"canary-7f3a")), Ok(()));
    assert_eq!(read(&path), Err(libc::EACCES));
    assert_eq!(write(&path, b"x"), Err(libc::EACCES));
    assert_eq!(fs::metadata(&path).map_err(|err| number(&err)).err(), Some(libc::EACCES));
    assert_eq!(fs::remove_file(&path).map_err(|err| number(&err)), Err(libc::EACCES));
    let log = world.path(".control/audit/log");
    let lines = common::parse_lines(&ada.run(|| read(&log)).unwrap());
    let refused =
        |line: &&Value| line["secret"] == "name" && line["uid"] == 0 && line["outcome"] == "denied";
    assert!(lines.iter().any(|line| refused(&line)), "{lines:?}");
    assert_eq!(read(&log), Err(libc::EACCES));
}

#[test]
fn default_level_is_everybody_s() {
    let policy = format!("default_level = [\"read\"]\n{}", common::ROOT_IS_ADMIN);
    let Some(world) = World::with(&policy, "") else { return };
    world.put("name", "example-value");
    let path = world.path("name");
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()));
    assert_eq!(Person::new(ADA).run(|| write(&path, b"x")), Err(libc::EACCES));
}

#[test]
fn rules_by_tag_service_environment_and_type_follow_the_secret_s_attributes() {
    let policy = r#"
[[role]]
name = "tagged"
allow = [{ tags = ["web"], environments = ["prod"], levels = ["read"] }]
[[binding]]
role = "tagged"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("name", "example-value");
    let ada = Person::new(ADA);
    assert_eq!(reads(&world, &ada), Err(libc::EACCES));
    world.set_attribute("name", "tags", "db,web");
    assert_eq!(reads(&world, &ada), Err(libc::EACCES));
    world.set_attribute("name", "environment", "prod");
    assert_eq!(reads(&world, &ada), Ok(()));
    world.set_attribute("name", "tags", "db");
    assert_eq!(reads(&world, &ada), Err(libc::EACCES));
}

#[test]
fn a_writer_cannot_widen_access_by_a_tag() {
    let policy = r#"
[[role]]
name = "writer"
allow = [{ names = ["*"], levels = ["write"] }, { tags = ["open"], levels = ["read"] }]
[[binding]]
role = "writer"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("name", "canary-7f3a");
    let path = world.path("name");
    let got = Person::new(ADA).run(|| {
        let set = xattr::set(&path, "user.secretfs.tags", b"open").map_err(|err| number(&err));
        (set.is_ok(), read(&path))
    });
    assert_eq!(got, (false, Err(libc::EACCES)));
}

#[test]
fn every_caller_sees_a_secret_that_it_may_read_as_its_own() {
    let policy = format!(
        "{}[[role]]\nname = \"writers\"\nallow = [{{ names = [\"*\"], levels = [\"read\", \"write\"] }}]\n\
         [[binding]]\nrole = \"writers\"\nuid = [61002]\n",
        readers("uid = [61001]")
    );
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("name", "example-value");
    let path = world.path("name");
    let seen = |uid| {
        Person::new(uid).run(|| {
            let found = fs::metadata(&path).unwrap();
            let handle = File::open(&path).unwrap().metadata().unwrap();
            [(found.uid(), found.mode()), (handle.uid(), handle.mode())]
        })
    };
    for _ in 0..3 {
        assert_eq!(seen(ADA), [(ADA, 0o100_400); 2]);
        assert_eq!(seen(BOB), [(BOB, 0o100_600); 2]);
        assert_eq!(seen(0), [(0, 0o100_600); 2]);
    }
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

#[test]
fn owner_and_mode_can_be_pinned_to_a_secret() {
    let Some(world) = world_for("uid = [61001]") else { return };
    world.set_attribute("name", "owner", "61002");
    world.set_attribute("name", "mode", "440");
    let path = world.path("name");
    let seen = Person::new(ADA).run(|| {
        let found = fs::metadata(&path).unwrap();
        (found.uid(), found.mode() & 0o7777)
    });
    assert_eq!(seen, (BOB, 0o440));
    assert_eq!(reads(&world, &Person::new(ADA)), Ok(()), "the policy decides, not the mode");
}

#[test]
fn ssh_keygen_takes_a_private_key_from_the_mount_for_two_users() {
    // It refuses to run for a uid that no user has.
    let uid = |name: &str| Some(nix::unistd::User::from_name(name).ok()??.uid.as_raw());
    let (Some(first), Some(second)) = (uid("daemon"), uid("nobody")) else {
        return common::skip("no users daemon and nobody here");
    };
    let policy = readers(&format!("uid = [{first}, {second}]"));
    let Some(world) = World::with_policy(&policy) else { return };
    let key = world.outside("key");
    let mut keygen = std::process::Command::new("ssh-keygen");
    if keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output().is_err() {
        return common::skip("no ssh-keygen here");
    }
    world.put("key", fs::read(&key).unwrap());
    for uid in [first, second] {
        let output = bounded(
            Person::new(uid).command("ssh-keygen").args(["-y", "-f"]).arg(world.path("key")),
        );
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn listing_shows_only_what_may_be_known() {
    let policy = r#"
[[role]]
name = "some"
allow = [
  { names = ["a/one", "b/*"], levels = ["read"] },
  { names = ["a/two"], levels = ["write"] },
]
[[binding]]
role = "some"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    for name in ["a/one", "a/two", "a/three", "b/four", "c/five", "six"] {
        world.put(name, "v");
    }
    let (root, a) = (world.path(""), world.path("a"));
    let lists = |person: Person| person.run(|| (list(&root).unwrap(), list(&a)));
    let visible = |mut names: Vec<String>| {
        names.retain(|name| !name.starts_with('.'));
        names
    };
    let (top, inner) = lists(Person::new(ADA));
    assert_eq!(visible(top), ["a", "b"]);
    assert_eq!(inner.unwrap(), ["one", "two"]);
    let (top, inner) = lists(Person::new(BOB));
    assert_eq!(visible(top), [""; 0]);
    assert_eq!(inner, Err(libc::EACCES));
    assert_eq!(visible(world.list("")), ["a", "b", "c", "six"]);
}

#[test]
fn symlinks_by_attribute_show_only_what_may_be_known() {
    let Some(world) = World::with_policy(&readers("uid = [61001]").replace("**", "mine")) else {
        return;
    };
    world.put("mine", "v");
    world.put("theirs", "canary-7f3a");
    for name in ["mine", "theirs"] {
        world.set_attribute(name, "service", if name == "mine" { "web" } else { "hidden-service" });
        world.set_attribute(name, "tags", "common-tag");
    }
    let root = world.path(".by");
    let output =
        Person::new(ADA).sh(&format!("cd {} && find . && cat tag/common-tag/mine", root.display()));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("./service/web/mine") && found.ends_with('v'), "{found}");
    assert!(!found.contains("theirs") && !found.contains("hidden-service"), "{found}");
}

#[test]
fn what_one_user_looked_up_is_not_shown_to_another_from_a_cache() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let (path, absent) = (world.path("name"), world.path("absent"));
    for _ in 0..20 {
        let size = Person::new(ADA).run(|| fs::metadata(&path).unwrap().len());
        assert_eq!(size, 13);
        let stat =
            |path: &Path| fs::metadata(path).map(|found| found.len()).map_err(|err| number(&err));
        let theirs = Person::new(BOB).run(|| [stat(&path), stat(&absent)]);
        assert_eq!(theirs, [Err(libc::EACCES); 2]);
        assert_eq!(Person::new(ADA).run(|| stat(&absent)), Err(libc::ENOENT));
        assert_eq!(fs::metadata(&path).unwrap().len(), 13, "a refusal is not cached either");
    }
}

#[test]
fn root_of_a_user_namespace_is_the_user_it_is_outside() {
    let policy = readers("uid = [61001]");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("name", "example-value");
    let as_root_inside = |uid: u32| {
        let mut command = Person::new(uid).command("unshare");
        bounded(command.args(["-Ur", "sh", "-c", "id -u; cat \"$0\""]).arg(world.path("name")))
    };
    let output = as_root_inside(BOB);
    if output.stdout != b"0\n" {
        return common::skip("no user namespaces for users here");
    }
    assert!(!output.status.success(), "root is an admin, but this is not root: {output:?}");
    assert_eq!(as_root_inside(ADA).stdout, b"0\nexample-value");
    assert_eq!(world.audit_of("name", "read", "allowed", ADA).len(), 1);
    assert_eq!(world.audit_of("name", "read", "allowed", 0).len(), 0);
}

#[test]
fn a_descriptor_passed_on_does_not_widen_access() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let (path, file) = (world.path("name"), File::open(world.path("name")).unwrap());
    let got = Person::new(BOB).run(|| {
        let mut buffer = [0; 64];
        let read_on = nix::unistd::read(&file, &mut buffer).map_err(|errno| errno as i32);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let again = File::open(format!("/proc/self/fd/{fd}")).map(drop).map_err(|err| number(&err));
        (read_on, again, read(&path).map(drop))
    });
    assert_eq!(got, (Err(libc::EACCES), Err(libc::EACCES), Err(libc::EACCES)));
    assert!(!world.audit_of("name", "read", "denied", BOB).is_empty());
}

#[test]
fn a_mapping_of_a_passed_descriptor_does_not_widen_access() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let file = File::open(world.path("name")).unwrap();
    let pipe = Person::new(BOB).run(|| {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        [
            common::syscall::sendfile(&file, &writer, 64).map_err(|errno| errno as i32),
            common::syscall::splice(&file, &writer, 64).map_err(|errno| errno as i32),
        ]
    });
    assert!(pipe.iter().all(Result::is_err), "{pipe:?}");
}

#[test]
fn what_is_written_through_a_passed_descriptor_is_its_opener_s_version_or_refused() {
    let Some(world) = world_for("uid = [61001]") else { return };
    let file = OpenOptions::new().write(true).truncate(true).open(world.path("name")).unwrap();
    let wrote =
        Person::new(BOB).run(|| nix::unistd::write(&file, b"theirs").map_err(|errno| errno as i32));
    let closed = common::close(file);
    // What a root shell redirects for `su -c` is root's, as everywhere; it must not be nobody's.
    let expected: &[u8] =
        if wrote.is_ok() && closed.is_ok() { b"theirs" } else { b"example-value" };
    assert_eq!(world.get("name").unwrap(), expected);
    let written = world.audit().into_iter().filter(|line| line["secret"] == "name");
    let versions: Vec<_> =
        written.filter(|line| line["version"] == world.version("name")).collect();
    assert!(
        versions.iter().any(|line| line["action"] != "read" && line["uid"] == 0),
        "{versions:?}"
    );
}

#[test]
fn a_directory_s_descriptor_gives_no_right_to_anything_below_or_above_it() {
    let policy = readers("uid = [61001]").replace("**", "mine/*");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("mine/a", "v");
    world.put("theirs/b", "canary-7f3a");
    world.put("top", "canary-7f3a");
    let open_directory = |path: &str| {
        let flags = OFlag::O_DIRECTORY.bits() | OFlag::O_PATH.bits();
        OpenOptions::new().read(true).custom_flags(flags).open(world.path(path)).unwrap()
    };
    let (mine, theirs, root) =
        (open_directory("mine"), open_directory("theirs"), open_directory(""));
    let names: Vec<Vec<u8>> = hostile_names();
    let opened = Person::new(ADA).run(|| {
        let tried = |at: &File, name: &[u8]| {
            let name = std::ffi::OsStr::from_bytes(name);
            let fd = openat(at.as_fd(), name, OFlag::O_RDONLY, Mode::empty()).ok()?;
            let mut buffer = [0; 64];
            let read = nix::unistd::read(&fd, &mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..read]).into_owned())
        };
        let at = [&mine, &theirs, &root];
        let all =
            at.into_iter().flat_map(|at| names.iter().filter_map(move |name| tried(at, name)));
        all.filter(|value| value.contains("canary")).collect::<Vec<_>>()
    });
    assert!(opened.is_empty(), "{opened:?}");
    let (read_a, read_b) = (theirs.as_fd(), root.as_fd());
    let direct = Person::new(ADA).run(|| {
        let open = |at, name: &str| openat(at, name, OFlag::O_RDONLY, Mode::empty()).is_ok();
        [open(read_a, "b"), open(read_b, "top"), open(read_b, "theirs/b"), open(read_b, "mine/a")]
    });
    assert_eq!(direct, [false, false, false, true]);
}

/// Names that should lead nowhere, and mutations of them from a fixed seed.
fn hostile_names() -> Vec<Vec<u8>> {
    let pieces: [&[u8]; 14] = [
        b"..",
        b".",
        b"//",
        b"/",
        b"b",
        b"top",
        b"theirs",
        b"mine",
        b"@1",
        b"@meta",
        b"\xff\xfe",
        b"\n",
        b"%2e%2e",
        b" ",
    ];
    let count = if std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|c| c == "full") {
        10_000
    } else {
        500
    };
    let noise = common::noise(77, count * 6);
    let name = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().flat_map(|byte| pieces[usize::from(*byte) % pieces.len()]).copied().collect()
    };
    let mut names: Vec<Vec<u8>> = noise.chunks(6).map(name).collect();
    names.extend([
        b"../theirs/b".to_vec(),
        b"../top".to_vec(),
        b"./../top".to_vec(),
        vec![b'a'; 4000],
    ]);
    names
}

#[test]
fn inotify_tells_nothing_of_a_directory_in_which_somebody_has_no_right() {
    let Some(world) = World::with_policy(&readers("uid = [61001]").replace("**", "mine/*")) else {
        return;
    };
    world.put("theirs/b", "v");
    let (directory, file) = (world.path("theirs"), world.path("theirs/b"));
    let watched = Person::new(ADA)
        .run(|| [&directory, &file].map(|path| common::syscall::watch(path).map(drop)));
    assert_eq!(watched, [Err(libc::EACCES); 2]);
}

/// The policy of the campaign, and apart from it what it means: levels by uid and group over names.
mod oracle {
    use std::collections::BTreeSet;

    /// Who: a uid or a group. What: a directory, the beginning of the last segment, levels, yes or no.
    pub(crate) struct Rule {
        pub who: Who,
        pub directory: &'static str,
        pub beginning: &'static str,
        pub levels: &'static [&'static str],
        pub allows: bool,
    }

    #[derive(Clone, Copy)]
    pub(crate) enum Who {
        Uid(u32),
        Gid(u32),
    }

    const fn allow(
        who: Who,
        directory: &'static str,
        beginning: &'static str,
        levels: &'static [&'static str],
    ) -> Rule {
        Rule { who, directory, beginning, levels, allows: true }
    }

    const fn deny(
        who: Who,
        directory: &'static str,
        beginning: &'static str,
        levels: &'static [&'static str],
    ) -> Rule {
        Rule { who, directory, beginning, levels, allows: false }
    }

    pub(crate) const RULES: [Rule; 14] = [
        allow(Who::Uid(61_000), "d0", "", &["read"]),
        allow(Who::Uid(61_001), "d1", "", &["write"]),
        allow(Who::Uid(61_002), "d2", "n1", &["read", "write"]),
        allow(Who::Uid(61_003), "d3", "", &["delete"]),
        allow(Who::Uid(61_004), "d4", "", &["admin"]),
        allow(Who::Uid(61_005), "d0", "n", &["read", "write", "delete"]),
        deny(Who::Uid(61_005), "d0", "n1", &["read", "write"]),
        allow(Who::Gid(62_000), "d5", "", &["read"]),
        allow(Who::Gid(62_001), "d6", "n2", &["read", "delete"]),
        deny(Who::Gid(62_000), "d4", "n3", &["read"]),
        allow(Who::Gid(62_002), "d7", "", &["admin"]),
        deny(Who::Uid(61_012), "d7", "", &["write", "delete"]),
        allow(Who::Uid(61_013), "d8", "n4", &["write", "delete"]),
        allow(Who::Gid(62_001), "d8", "n4", &["read"]),
    ];

    /// The groups of the person with that uid: every third is in each of the three.
    pub(crate) fn groups(uid: u32) -> Vec<u32> {
        vec![62_000 + uid % 3]
    }

    pub(crate) fn levels(uid: u32, name: &str) -> BTreeSet<&'static str> {
        let (directory, leaf) = name.split_once('/').unwrap();
        let fits = |rule: &&Rule| {
            let by = match rule.who {
                Who::Uid(bound) => bound == uid,
                Who::Gid(gid) => groups(uid).contains(&gid),
            };
            by && rule.directory == directory && leaf.starts_with(rule.beginning)
        };
        let mut allowed = BTreeSet::new();
        for rule in RULES.iter().filter(fits).filter(|rule| rule.allows) {
            allowed.extend(rule.levels);
            if rule.levels.contains(&"admin") {
                allowed.extend(["read", "write", "delete"]);
            }
        }
        for rule in RULES.iter().filter(fits).filter(|rule| !rule.allows) {
            for level in rule.levels {
                allowed.remove(level);
            }
        }
        allowed
    }

    pub(crate) fn policy() -> String {
        let mut text = String::new();
        for (index, rule) in RULES.iter().enumerate() {
            let (binds, id) = match rule.who {
                Who::Uid(id) => ("uid", id),
                Who::Gid(id) => ("gid", id),
            };
            let word = if rule.allows { "allow" } else { "deny" };
            text += &format!(
                "[[role]]\nname = \"r{index}\"\n{word} = [{{ names = [\"{}/{}*\"], levels = {:?} }}]\n\
                 [[binding]]\nrole = \"r{index}\"\n{binds} = [{id}]\n",
                rule.directory, rule.beginning, rule.levels
            );
        }
        text
    }
}

/// What may come of one operation on one name.
fn expected(uid: u32, name: &str, exists: bool, needs: Option<&str>) -> Tried<()> {
    let levels = oracle::levels(uid, name);
    match (levels.is_empty(), exists) {
        (true, _) => Err(libc::EACCES),
        (false, false) => Err(libc::ENOENT),
        (false, true) if needs.is_none_or(|level| levels.contains(level)) => Ok(()),
        (false, true) => Err(libc::EACCES),
    }
}

type Probe = (&'static str, Option<&'static str>, fn(&Path) -> Tried<()>);

/// Operations that change nothing, each with the level that it needs.
const PROBES: [Probe; 8] = [
    ("open to read", Some("read"), |path| read(path).map(drop)),
    ("open to write", Some("write"), |path| tried(OpenOptions::new().write(true).open(path))),
    ("open to read and write", Some("both"), |path| {
        tried(OpenOptions::new().read(true).write(true).open(path))
    }),
    ("stat", None, |path| tried(fs::metadata(path))),
    ("getxattr", None, |path| tried(xattr::get(path, "user.secretfs.version"))),
    ("reopen", Some("read"), |path| {
        let flags = OFlag::O_PATH.bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = opened.map_err(|err| number(&err))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        tried(File::open(format!("/proc/self/fd/{fd}")))
    }),
    ("unlink", Some("delete"), |path| tried(fs::remove_file(path))),
    ("rename", Some("delete"), |path| tried(fs::rename(path, path.with_file_name("nowhere")))),
];

fn tried<T>(result: std::io::Result<T>) -> Tried<()> {
    result.map(drop).map_err(|err| number(&err))
}

#[test]
fn every_operation_of_every_user_on_every_path_is_as_an_independent_oracle_says() {
    const USERS: u32 = 20;
    let Some(world) = World::with_policy(&oracle::policy()) else { return };
    let names: Vec<String> =
        (0..10).flat_map(|d| (0..20).map(move |n| format!("d{d}/n{}{}", n % 5, n / 5))).collect();
    let exists = |name: &str| !name.ends_with(['1', '3']);
    let existing: Vec<_> = names.iter().filter(|name| exists(name)).collect();
    for name in &existing {
        world.put(name, "v");
    }
    let mut differences = Vec::new();
    for uid in 61_000..61_000 + USERS {
        let person = Person::new(uid).in_groups(&oracle::groups(uid));
        differences.extend(person.run(|| {
            let mut differences = Vec::new();
            for name in &names {
                for (what, needs, probe) in PROBES {
                    let expected = if needs == Some("both") {
                        let [a, b] =
                            ["read", "write"].map(|l| expected(uid, name, exists(name), Some(l)));
                        a.and(b)
                    } else {
                        expected(uid, name, exists(name), needs)
                    };
                    // Those that would change something are tried where they must be refused.
                    if expected.is_ok() && needs == Some("delete") {
                        continue;
                    }
                    let found = probe(&world.path(name));
                    if found != expected {
                        differences
                            .push(format!("{uid} {what} {name}: {found:?}, not {expected:?}"));
                    }
                }
            }
            differences
        }));
        differences.extend(listing_differs(&world, &person, &existing));
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n")
    );
    assert!(existing.iter().all(|name| world.version(name) == 1));
}

fn listing_differs(world: &World, person: &Person, existing: &[&String]) -> Vec<String> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in existing.iter().filter(|name| !oracle::levels(person.uid, name).is_empty()) {
        let (directory, leaf) = name.split_once('/').unwrap();
        expected.entry(directory.into()).or_default().push(leaf.into());
    }
    let found = person.run(|| {
        let all = (0..10).map(|d| format!("d{d}"));
        let listed = all.filter_map(|d| Some((d.clone(), list(&world.path(&d)).ok()?)));
        listed.filter(|(_, names)| !names.is_empty()).collect::<BTreeMap<_, _>>()
    });
    for names in expected.values_mut() {
        names.sort();
    }
    if found == expected {
        Vec::new()
    } else {
        vec![format!("{} lists {found:?}, not {expected:?}", person.uid)]
    }
}

#[test]
fn users_that_come_and_go_at_once_never_get_each_other_s_rights() {
    let policy = readers("uid = [61001]");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("name", "example-value");
    let count =
        if std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|c| c == "full") { 2000 } else { 40 };
    std::thread::scope(|scope| {
        for (uid, expected) in [(ADA, Ok(())), (EVE, Err(libc::EACCES)), (BOB, Err(libc::EACCES))] {
            let world = &world;
            scope.spawn(move || {
                for _ in 0..count {
                    assert_eq!(reads(world, &Person::new(uid)), expected, "{uid}");
                }
            });
        }
    });
}
