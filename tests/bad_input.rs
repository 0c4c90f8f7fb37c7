//! Bad input and bad surroundings: each is refused with a message that says what and where, or harmless;
//! nothing panics, gives a wrong value or lets a secret disappear in silence.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;
mod site;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};

use common::{Tried, World, eventually, read, skip, word, write, write_file};
use site::Site;

/// Exit codes, as `secretfs --help` lists them.
const NO_CONNECTION: i32 = 11;
const CONFIGURATION: i32 = 12;

/// Returns the arguments that mount a site, in the background.
fn mount_at(site: &Site) -> [String; 2] {
    ["mount".into(), site.secret("").to_str().unwrap().to_owned()]
}

/// Asserts that the site does not mount, and returns why.
fn does_not_mount(site: &Site, more: &[&str]) -> (i32, String) {
    let args = mount_at(site);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let refused = site.refused(&args);
    assert!(!site.is_mounted(), "{refused:?}");
    refused
}

#[test]
fn a_bad_name_cannot_be_created_and_is_not_found() {
    let Some(world) = World::start() else { return };
    let long = "x".repeat(256);
    let bad = ["a b", "a:b", "a\\b", "a*", "a\nb", "\u{e9}", "a@b", "@env2", "a@7@8", &long];
    for name in bad {
        let error = write(&world.path(name), b"example-value").unwrap_err();
        assert!([libc::EINVAL, libc::ENAMETOOLONG].contains(&error), "{name:?}: {}", word(error));
        let error = read(&world.path(name)).unwrap_err();
        assert!([libc::ENOENT, libc::ENAMETOOLONG].contains(&error), "{name:?}: {}", word(error));
        assert!(fs::create_dir(world.path(name)).is_err(), "{name:?}");
    }
    let deep = vec!["d"; 33].join("/");
    assert!(fs::create_dir_all(world.path(&deep)).is_err(), "33 segments");
    assert_eq!(
        world.list(""),
        if world.path("d").exists() {
            vec![".by", ".control", "d"]
        } else {
            vec![".by", ".control"]
        }
    );
}

#[test]
fn bytes_that_are_no_text_are_no_name() {
    use std::os::unix::ffi::OsStrExt;
    let Some(world) = World::start() else { return };
    for bytes in [&b"\xff\xfe"[..], b"a\x01b", b"a\x7f", b"\xc3\x28"] {
        let path = world.path("").join(std::ffi::OsStr::from_bytes(bytes));
        assert_eq!(write(&path, b"x"), Err(libc::EINVAL), "{bytes:?}");
        assert_eq!(read(&path), Err(libc::ENOENT), "{bytes:?}");
    }
}

#[test]
fn a_name_on_the_command_line_is_checked_before_anything_is_asked() {
    let Some(world) = World::start() else { return };
    for name in ["../x", "/etc/passwd", "a//b", "a/", ".hidden", "a/../b", "a b", "", "a@7"] {
        let output = common::bounded(world.secretfs().args(["put", "--generate", "--", name]));
        let (code, said) = site::refusal(&output, &["put", name]);
        assert_eq!(code, 2, "{name:?}: {said}");
    }
    assert_eq!(world.list(""), [".by", ".control"]);
}

#[test]
fn a_bad_configuration_is_refused_with_its_line_and_column() {
    let Some(site) = Site::new() else { return };
    site.init();
    let good = fs::read_to_string(site.config()).unwrap();
    for (line, place, part) in [
        ("colour = 1", "line 1, column 1", "unknown field `colour`"),
        ("threads = 0", "line 1, column 11", "0"),
        ("threads = 65", "line 1, column 11", "64"),
        ("threads = \"four\"", "line 1, column 11", ""),
        ("io = \"fast\"", "line 1, column 6", "fast"),
        ("mountpoint2 = \"/x\"", "line 1, column 1", "mountpoint2"),
        ("threads = 4\nthreads = 5", "line 2, column 1", "duplicate"),
        ("[audit]\nsegment_mib = 0", "line 2, column 15", ""),
        ("[audit]\n  retention = 4", "line 2, column 3", "retention"),
        ("[limits]\nmax_value_bytes = 99999999", "line 2, column 19", ""),
        ("threads = ", "line 1, column ", ""),
        ("= 4", "line 1, column 1", ""),
        ("\"", "line 1, column ", ""),
    ] {
        // In front of the good rest, so that the line is known.
        let rest = if line.contains('[') { "" } else { &good };
        write_file(&site.config(), format!("{line}\n{rest}").as_bytes());
        let (code, said) = does_not_mount(&site, &[]);
        assert_eq!(code, CONFIGURATION, "{line:?}: {said}");
        let named = said.contains("secretfs.toml") && said.contains(place) && said.contains(part);
        assert!(named, "{line:?} wants {place:?} and {part:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_configuration_that_is_no_text_or_no_file_is_refused() {
    let Some(site) = Site::new() else { return };
    site.init();
    write_file(&site.config(), b"\xff\xfe\x00");
    assert_eq!(does_not_mount(&site, &[]).0, CONFIGURATION);
    fs::remove_file(site.config()).unwrap();
    fs::create_dir(site.config()).unwrap();
    assert_eq!(does_not_mount(&site, &[]).0, CONFIGURATION);
    let (code, said) = does_not_mount(&site, &["--config", "/nonexistent/x.toml"]);
    assert!(code == CONFIGURATION && said.contains("/nonexistent/x.toml"), "{said}");
}

#[test]
fn a_bad_environment_variable_is_refused_by_its_name() {
    let Some(site) = Site::new() else { return };
    site.init();
    for (variable, value) in [
        ("SECRETFS_THREADS", "many"),
        ("SECRETFS_IO", "fast"),
        ("SECRETFS_MOUNTPOINT", "relative/path"),
        ("SECRETFS_TRASH_DAYS", "-1"),
    ] {
        let [verb, _] = mount_at(&site);
        let output = common::bounded(site.command(&[&verb]).env(variable, value));
        let (code, said) = site::refusal(&output, &[variable, value]);
        assert!(code == CONFIGURATION && said.contains(variable), "{variable}: {said}");
    }
}

/// A text, the place of what is wrong, and a part of the message; `ROLE` stands for a good role.
const BAD_POLICIES: [(&str, &str, &str); 8] = [
    ("[[role]]\nnames = 1\n", "line 2, column 1", "names"),
    (
        "[[role]]\nname = \"x\"\nallow = [{ names = [\"**\"], levels = [\"reed\"] }]\n",
        "line 3, column 38",
        "reed",
    ),
    (
        "[[role]]\nname = \"x\"\nallow = [{ names = [\"a//b\"], levels = [\"read\"] }]\n",
        "line 3, column 21",
        "",
    ),
    ("[[binding]]\nrole = \"nobody\"\nuid = [0]\n", "line 2, column 8", "nobody"),
    (
        "ROLE[[binding]]\nid = \"x\"\nrole = \"admin\"\nuid = [\"no-such-user-7f3a\"]\n",
        "line 7, column 8",
        "no-such-user-7f3a",
    ),
    ("ROLE[[binding]]\nrole = \"admin\"\nuid = []\n", "line 6, column 7", "empty"),
    ("ROLE[[binding]]\nrole = \"admin\"\nuid = [4294967296]\n", "line 6, column 8", ""),
    ("[[role]\n", "line 1, column ", ""),
];

fn with_role(text: &str) -> String {
    let role = "[[role]]\nname = \"admin\"\nallow = [{ names = [\"**\"], levels = [\"admin\"] }]\n";
    text.replace("ROLE", role)
}

#[test]
fn a_bad_policy_stops_the_start_with_its_line_and_column() {
    let Some(site) = Site::new() else { return };
    site.init();
    for (text, place, part) in BAD_POLICIES {
        write_file(&site.policy(), with_role(text).as_bytes());
        for (_, said) in [
            does_not_mount(&site, &[]),
            site.refused(&["policy", "check", site.policy().to_str().unwrap()]),
        ] {
            let named = said.contains("policy.toml") && said.contains(place) && said.contains(part);
            assert!(named, "{text:?} wants {place:?} and {part:?}: {said}");
        }
    }
}

#[test]
fn a_bad_policy_changes_nothing_at_a_reload_and_says_which_line() {
    let Some(world) = World::with_policy(
        "[[role]]\nname = \"app\"\nallow = [{ names = [\"app\"], levels = [\"read\"] }]\n[[binding]]\nrole = \"app\"\nuid = [1000]\n",
    ) else {
        return;
    };
    world.put("app", "example-value");
    let app = || common::Person::new(1000).run(|| read(&world.path("app")));
    let good = fs::read(world.policy_file()).unwrap();
    for (text, place, _) in BAD_POLICIES {
        write_file(&world.policy_file(), with_role(text).as_bytes());
        let refused = world.control("reload", "now").unwrap_err();
        assert_eq!(refused.errno, libc::EINVAL, "{text:?}");
        let status = world.sh_ok("cat .control/status .control/health");
        assert!(status.contains(place) && status.contains("degraded"), "{text:?}: {status}");
        assert_eq!(app(), Ok(b"example-value".to_vec()));
        assert_eq!(world.get("app"), Ok(b"example-value".to_vec()));
    }
    write_file(&world.policy_file(), &good);
    world.control("reload", "now").unwrap();
    assert!(world.sh_ok("cat .control/health").starts_with("ok"));
}

#[test]
fn a_policy_that_others_can_write_is_not_believed() {
    let Some(site) = Site::new() else { return };
    site.init();
    fs::set_permissions(site.policy(), Permissions::from_mode(0o666)).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("policy.toml"));
    fs::set_permissions(site.policy(), Permissions::from_mode(0o644)).unwrap();
    chown(site.policy(), Some(1000), None).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("uid 1000"));
    fs::remove_file(site.policy()).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("policy.toml"));
}

#[test]
fn a_key_file_that_others_can_read_or_own_is_refused_with_the_command_that_helps() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    for mode in [0o440, 0o404, 0o644, 0o410, 0o402] {
        fs::set_permissions(site.key(), Permissions::from_mode(mode)).unwrap();
        let (_, said) = does_not_mount(&site, &[]);
        assert!(said.contains(&format!("{mode:04o}")) && said.contains("chmod 0400"), "{said}");
    }
    fs::set_permissions(site.key(), Permissions::from_mode(0o600)).unwrap();
    chown(site.key(), Some(1000), None).unwrap();
    let (_, said) = does_not_mount(&site, &[]);
    assert!(said.contains("user 1000") && said.contains("chown 0"), "{said}");
    chown(site.key(), Some(0), None).unwrap();
    site.serve();
}

#[test]
fn a_key_file_that_holds_no_key_or_the_wrong_one_is_refused_and_the_right_one_works_again() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    let right = fs::read(site.key()).unwrap();
    let place = |bytes: &[u8]| {
        drop(fs::remove_file(site.key()));
        write_file(&site.key(), bytes);
        fs::set_permissions(site.key(), Permissions::from_mode(0o400)).unwrap();
        does_not_mount(&site, &[]).1
    };
    let wrong = [b"0123456789abcdef".repeat(4), b"\n".to_vec()].concat();
    assert!(place(&wrong).contains("wrong"));
    for bad in [
        &right[..63],
        &[&right[..64], b"0\n"].concat(),
        b"",
        b"\n",
        &[b"g", &right[1..]].concat(),
        &[0; 32],
        &right.repeat(1000),
    ] {
        let said = place(bad);
        assert!(said.contains("64 hexadecimal digits"), "{} bytes: {said}", bad.len());
    }
    fs::remove_file(site.key()).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("is missing"));
    let elsewhere = site.path("elsewhere.key");
    write_file(&elsewhere, &right);
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o400)).unwrap();
    symlink(&elsewhere, site.key()).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("symbolic link"));
    fs::remove_file(site.key()).unwrap();
    fs::create_dir(site.key()).unwrap();
    assert!(does_not_mount(&site, &[]).1.contains("not a regular file"));
    fs::remove_dir(site.key()).unwrap();
    fs::rename(&elsewhere, site.key()).unwrap();
    site.serve();
}

#[test]
fn a_second_daemon_on_one_store_is_refused_and_the_first_goes_on() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let other = site.path("other");
    for verb in ["mount", "up"] {
        let (code, said) = site.refused(&[verb, other.to_str().unwrap()]);
        assert_eq!(code, NO_CONNECTION, "{said}");
        let named = said.contains("another secretfs uses the store")
            && said.contains(&site.pid().to_string());
        assert!(named, "{said}");
    }
    let (_, said) = site.refused(&["init"]);
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
    site.assert_whole();
}

#[test]
fn a_mountpoint_that_cannot_be_one_is_refused_and_says_why() {
    let Some(site) = Site::new() else { return };
    site.init();
    write_file(&site.path("file"), b"");
    fs::create_dir(site.path("full")).unwrap();
    write_file(&site.path("full/something"), b"");
    fs::create_dir(site.path("real")).unwrap();
    symlink(site.path("real"), site.path("link")).unwrap();
    for (name, why) in [
        ("file", "is not a directory"),
        ("file/below", "not a directory"),
        ("full", "is not empty"),
        ("missing/below", "does not exist and cannot be made"),
    ] {
        let (code, said) = site.refused(&["mount", site.path(name).to_str().unwrap()]);
        assert!([NO_CONNECTION, CONFIGURATION].contains(&code), "{name}: {code} {said}");
        assert!(said.to_lowercase().contains(why), "{name} wants {why:?}: {said}");
    }
    site.refused(&["mount", site.path("link").to_str().unwrap()]);
    assert_eq!(fs::read_dir(site.path("real")).unwrap().count(), 0);
    assert!(site.path("full/something").exists());
}

#[test]
fn a_mountpoint_where_another_secretfs_serves_is_busy() {
    let (Some(mut first), Some(second)) = (Site::new(), Site::new()) else { return };
    first.serve();
    write(&first.secret("s"), b"example-value").unwrap();
    second.init();
    let (code, said) = second.refused(&["mount", first.secret("").to_str().unwrap()]);
    assert!(code == NO_CONNECTION && said.contains("already serves"), "{said}");
    assert_eq!(read(&first.secret("s")), Ok(b"example-value".to_vec()));
}

/// Makes a store with three versions of `s`, and keeps a copy of it after the second.
fn with_history() -> Option<(Site, PathBuf)> {
    let mut site = Site::new()?;
    let old = site.path("old.redb");
    site.serve();
    write(&site.secret("s"), b"first").unwrap();
    write(&site.secret("s"), b"second").unwrap();
    site.stop();
    fs::copy(site.store(), &old).unwrap();
    site.serve();
    write(&site.secret("s"), b"third").unwrap();
    site.stop();
    Some((site, old))
}

#[test]
fn an_older_copy_of_the_store_is_refused_unless_an_admin_accepts_it_on_record() {
    let Some((mut site, old)) = with_history() else { return };
    fs::copy(&old, site.store()).unwrap();
    for _ in 0..2 {
        let (_, said) = does_not_mount(&site, &[]);
        assert!(said.contains("an older copy was put back"), "{said}");
    }
    site.serve_with(&["--accept-rollback"]);
    assert_eq!(read(&site.secret("s")), Ok(b"second".to_vec()));
    let log = read(&site.secret(".control/audit/log")).unwrap();
    assert!(
        String::from_utf8(log).unwrap().contains("taken up again behind"),
        "the acceptance is on record"
    );
    write(&site.secret("s"), b"fourth").unwrap();
    site.assert_whole();
    site.stop();
    site.serve();
    assert_eq!(read(&site.secret("s")), Ok(b"fourth".to_vec()));
}

#[test]
fn a_log_that_was_cut_or_removed_stops_the_start() {
    let Some((mut site, _)) = with_history() else { return };
    // Then a commit remembers every line up to its own; otherwise those of the last second are not.
    let config = fs::read_to_string(site.config()).unwrap();
    write_file(&site.config(), format!("{config}[audit]\ndurability = \"synced\"\n").as_bytes());
    site.serve();
    write(&site.secret("s"), b"fourth").unwrap();
    site.stop();
    let audit = site.state().join("audit");
    let mut segments: Vec<_> =
        fs::read_dir(&audit).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let newest = segments.last().unwrap();
    let whole = fs::read(newest).unwrap();
    let half = whole.len() / 2;
    let line = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    write_file(newest, &whole[..line]);
    does_not_mount(&site, &[]);
    let mut edited = whole.clone();
    edited[half] ^= 1;
    write_file(newest, &edited);
    does_not_mount(&site, &[]);
    fs::remove_file(newest).unwrap();
    does_not_mount(&site, &[]);
    fs::remove_dir_all(&audit).unwrap();
    does_not_mount(&site, &[]);
}

#[test]
fn a_store_that_was_replaced_by_another_one_is_refused_even_under_the_same_key_file() {
    let (Some((mut site, _)), Some(mut other)) = (with_history(), Site::new()) else { return };
    fs::create_dir_all(other.key().parent().unwrap()).unwrap();
    fs::copy(site.key(), other.key()).unwrap();
    other.serve();
    write(&other.secret("s"), b"forged").unwrap();
    other.stop();
    let own = site.path("own.redb");
    fs::rename(site.store(), &own).unwrap();
    fs::copy(other.store(), site.store()).unwrap();
    does_not_mount(&site, &[]);
    fs::rename(&own, site.store()).unwrap();
    site.serve();
    assert_eq!(read(&site.secret("s")), Ok(b"third".to_vec()));
}

#[test]
fn a_truncated_or_flipped_store_either_does_not_mount_or_serves_what_was_stored() {
    let Some((site, _)) = with_history() else { return };
    let mut site = site;
    let image = fs::read(site.store()).unwrap();
    let mut damaged: Vec<Vec<u8>> = [0, 1, 4096, image.len() / 2, image.len() - 1]
        .map(|length| image[..length].to_vec())
        .into();
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    for at in
        common::noise(5, 12).chunks(2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]))
    {
        let mut flipped = image.clone();
        flipped[used[at % used.len()]] ^= 4;
        damaged.push(flipped);
    }
    for (n, bytes) in damaged.into_iter().enumerate() {
        write_file(&site.store(), &bytes);
        let args = mount_at(&site);
        let output = site.run(&[&args[0], &args[1]]);
        if !output.status.success() {
            site::refusal(&output, &["damage", &n.to_string()]);
            assert!(!site.is_mounted());
            continue;
        }
        let found: Tried<Vec<u8>> = read(&site.secret("s"));
        assert!(
            [Ok(b"third".to_vec()), Err(libc::EBADMSG), Err(libc::EIO)].contains(&found),
            "damage {n}: {found:?}"
        );
        site.unmount(&[]);
        eventually("the daemon is gone", || site::processes_with(&site.path("")).is_empty());
    }
    write_file(&site.store(), &image);
    site.serve();
    assert_eq!(read(&site.secret("s")), Ok(b"third".to_vec()));
    site.assert_whole();
}

/// Puts a small filesystem under a directory of the site, with room that a test can take and give back.
struct SmallDisk {
    filler: PathBuf,
}

impl SmallDisk {
    /// Mounts one and binds a directory of it at `under`.
    fn at(site: &Site, kind: &str, under: PathBuf) -> Option<Self> {
        let disk = site.path("disk");
        fs::create_dir(&disk).unwrap();
        let script = match kind {
            "tmpfs" => format!("mount -t tmpfs -o size=16m,mode=711 small {}", disk.display()),
            _ => format!(
                "truncate -s 24M {0}.img && mkfs.ext4 -q -m 0 {0}.img && mount -o loop {0}.img {0}",
                disk.display()
            ),
        };
        let output = common::bounded(Command::new("sh").args(["-c", &script]));
        if !output.status.success() {
            skip(&format!(
                "no {kind} can be mounted here: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
            return None;
        }
        let inside = disk.join("inside");
        fs::create_dir(&inside).unwrap();
        fs::create_dir_all(&under).unwrap();
        mount(Some(&inside), &under, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Some(Self { filler: disk.join("filler") })
    }

    /// Fills it but for `left` bytes.
    fn fill(&self, left: usize) {
        let script = format!(
            "dd if=/dev/zero of={0} bs=4k 2>/dev/null; truncate -s -{left} {0}",
            self.filler.display()
        );
        drop(common::bounded(Command::new("sh").args(["-c", &script])));
    }

    fn free(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

/// A site whose log has the smallest segments there are.
fn site_with_small_segments() -> Option<Site> {
    let site = Site::new()?;
    fs::create_dir_all(site.config().parent().unwrap()).unwrap();
    fs::set_permissions(site.config().parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    write_file(&site.config(), b"[audit]\nsegment_mib = 1\n");
    Some(site)
}

fn survive_a_full_disk(kind: &str) {
    const FULL: [i32; 3] = [libc::ENOSPC, libc::EIO, libc::EDQUOT];
    let Some(mut site) = site_with_small_segments() else { return };
    let Some(disk) = SmallDisk::at(&site, kind, site.state()) else { return };
    site.serve();
    let value = |n: usize| common::noise(n as u64 + 1, 20_000);
    let put = |site: &Site, n: usize| write(&site.secret(&format!("s{n}")), &value(n));
    (0..5).for_each(|n| put(&site, n).unwrap());
    disk.fill(512 << 10);
    let mut done = 5;
    let error = loop {
        match put(&site, done) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 1000, "it never gets full");
    };
    assert!(FULL.contains(&error), "{}", word(error));
    // What was refused may not appear, or only whole; what was acknowledged is there and can be read.
    for n in 0..done {
        let found = read(&site.secret(&format!("s{n}")));
        assert!(found == Ok(value(n)) || found == Err(libc::EIO), "s{n} on a full disk");
    }
    assert_eq!(read(&site.secret("s0")), Ok(value(0)), "reads go on while the log has room");
    assert!(
        put(&site, done).is_err() || read(&site.secret(&format!("s{done}"))) == Ok(value(done))
    );

    disk.free();
    let mut last = Ok(());
    eventually("writes work again when there is room", || {
        last = put(&site, done);
        last.is_ok()
    });
    for n in 0..=done {
        assert_eq!(read(&site.secret(&format!("s{n}"))), Ok(value(n)), "s{n} afterwards");
    }
    site.assert_whole();
    site.stop();
    site.serve();
    for n in 0..=done {
        assert_eq!(read(&site.secret(&format!("s{n}"))), Ok(value(n)), "s{n} after a restart");
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged_and_goes_on_when_there_is_room() {
    survive_a_full_disk("tmpfs");
}

#[test]
fn a_full_ext4_loses_nothing_that_was_acknowledged_and_goes_on_when_there_is_room() {
    survive_a_full_disk("ext4");
}

#[test]
fn nothing_is_read_or_written_off_the_record_while_the_log_is_full() {
    let Some(mut site) = site_with_small_segments() else { return };
    let Some(disk) = SmallDisk::at(&site, "tmpfs", site.state().join("audit")) else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    disk.fill(0);
    let mut opened = 0;
    let error = loop {
        match read(&site.secret("s")) {
            Ok(_) => opened += 1,
            Err(error) => break error,
        }
        assert!(opened < 20_000, "the log never gets full");
    };
    assert_eq!(error, libc::EIO, "{}", word(error));
    for _ in 0..20 {
        assert_eq!(read(&site.secret("s")), Err(libc::EIO));
        assert_eq!(write(&site.secret("t"), b"example-value"), Err(libc::EIO));
    }
    disk.free();
    eventually("reads work again when there is room", || read(&site.secret("s")).is_ok());
    assert!(!site.secret("t").exists());
    write(&site.secret("t"), b"example-value").unwrap();
    let fits = |line: &&serde_json::Value| {
        line["secret"] == "s" && line["action"] == "read" && line["outcome"] == "allowed"
    };
    assert_eq!(site.audit().iter().filter(fits).count(), opened + 1);
    site.assert_whole();
}

#[test]
fn a_backup_or_a_restore_without_room_fails_and_leaves_everything_as_it_was() {
    let Some(mut site) = site_with_small_segments() else { return };
    let Some(disk) = SmallDisk::at(&site, "tmpfs", site.state()) else { return };
    site.serve();
    let value = |n: usize| common::noise(n as u64 + 1, 100_000);
    (0..8).for_each(|n| write(&site.secret(&format!("s{n}")), &value(n)).unwrap());
    let (outside, inside) = (site.path("backup"), site.state().join("backup"));
    site.ask(&["backup", "create", outside.to_str().unwrap()]);
    disk.fill(256 << 10);
    let mount = site.secret("");
    let mount = ["--mount", mount.to_str().unwrap()];
    let refused = |args: &[&str]| site.refused(&[&mount[..], &["backup"], args].concat());
    let (code, said) = refused(&["create", inside.to_str().unwrap()]);
    assert!(code == 6 && !inside.exists(), "half a backup is none: {said}");
    // It takes no room where the store is.
    site.ask(&["backup", "create", site.path("second").to_str().unwrap()]);
    let (code, said) = refused(&["restore", "--force", outside.to_str().unwrap()]);
    assert_eq!(code, 6, "{said}");
    for n in 0..8 {
        assert_eq!(read(&site.secret(&format!("s{n}"))), Ok(value(n)), "s{n}");
    }
    disk.free();
    eventually("it is taken when there is room", || {
        let args = [&mount[..], &["backup", "restore", "--force", outside.to_str().unwrap()]];
        site.run(&args.concat()).status.success()
    });
    site.assert_whole();
}

#[test]
fn a_daemon_that_does_not_start_has_the_exit_code_of_its_reason_in_the_background_too() {
    let Some(site) = Site::new() else { return };
    site.init();
    let policy = fs::read(site.policy()).unwrap();
    let agree = |expected: i32, why: &str| {
        let (background, said) = does_not_mount(&site, &[]);
        let (foreground, _) = does_not_mount(&site, &["--foreground"]);
        assert_eq!([background, foreground], [expected; 2], "{why}: {said}");
    };
    write_file(&site.policy(), b"[[role]]\nname = 7\n");
    agree(CONFIGURATION, "a bad policy");
    write_file(&site.policy(), &policy);
    fs::create_dir(site.secret("")).unwrap();
    write_file(&site.secret("plain"), b"example-value");
    agree(CONFIGURATION, "a mountpoint that is not empty");
    fs::remove_file(site.secret("plain")).unwrap();
    fs::rename(site.key(), site.path("key")).unwrap();
    agree(7, "a missing key");
    let other = Site::new().unwrap();
    other.init();
    fs::copy(other.key(), site.key()).unwrap();
    fs::set_permissions(site.key(), Permissions::from_mode(0o400)).unwrap();
    agree(7, "another store's key");
    fs::remove_file(site.key()).unwrap();
    fs::rename(site.path("key"), site.key()).unwrap();
    let mut busy = Site::new().unwrap();
    busy.serve();
    let at = busy.secret("");
    let refused =
        |more: &[&str]| site.refused(&[&["mount", at.to_str().unwrap()], more].concat()).0;
    assert_eq!([refused(&[]), refused(&["--foreground"])], [NO_CONNECTION; 2]);
}

#[test]
fn another_store_under_the_same_key_file_is_refused_behind_this_store_s_log() {
    let (Some(mut site), Some(other)) = (Site::new(), Site::new()) else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    site.stop();
    // A second store for the same key file, as somebody makes it who copies a configuration.
    fs::create_dir_all(other.key().parent().unwrap()).unwrap();
    fs::set_permissions(other.key().parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    fs::copy(site.key(), other.key()).unwrap();
    fs::set_permissions(other.key(), Permissions::from_mode(0o400)).unwrap();
    other.ok(&["init", "--key-file", other.key().to_str().unwrap()]);
    fs::copy(site.store(), site.path("ours")).unwrap();
    fs::copy(other.store(), site.store()).unwrap();
    for more in [&[][..], &["--accept-rollback"]] {
        let (_, said) = does_not_mount(&site, more);
        assert!(said.contains("another store"), "{more:?}: {said}");
    }
    fs::copy(site.path("ours"), site.store()).unwrap();
    site.serve();
    assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
    site.stop();
    // Behind a log that begins anew it is a store like any other.
    fs::copy(other.store(), site.store()).unwrap();
    fs::rename(site.state().join("audit"), site.path("audit")).unwrap();
    site.serve_with(&["--accept-rollback"]);
    assert!(!site.secret("s").exists());
}

/// A filesystem that stands still: whatever writes to it waits. It goes on when this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn freeze(path: PathBuf) -> Option<Self> {
        let output = common::bounded(Command::new("fsfreeze").arg("-f").arg(&path));
        if output.status.success() {
            return Some(Self(path));
        }
        skip("no filesystem can be frozen here");
        None
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(common::bounded(Command::new("fsfreeze").arg("-u").arg(&self.0)));
    }
}

#[test]
fn while_the_log_s_disk_stands_still_opens_fail_at_the_deadline_and_none_is_granted_off_the_record()
{
    let Some(mut site) = site_with_small_segments() else { return };
    let config = "deadline_seconds = 1\n[audit]\nsegment_mib = 1\ndurability = \"synced\"\n";
    write_file(&site.config(), config.as_bytes());
    let Some(_disk) = SmallDisk::at(&site, "ext4", site.state().join("audit")) else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    assert_eq!(read(&site.secret("s")), Ok(b"example-value".to_vec()));
    let path = site.secret("s");
    let Some(frozen) = Frozen::freeze(site.path("disk")) else { return };
    let late: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| read(&path))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    drop(frozen);
    assert_eq!(late, vec![Err(libc::ETIMEDOUT); 8]);
    eventually("reads go on when the disk does", || read(&path).is_ok());
    let fits = |line: &&serde_json::Value| {
        line["secret"] == "s" && line["action"] == "read" && line["outcome"] == "allowed"
    };
    assert!(site.audit().iter().filter(fits).count() >= 2);
    site.assert_whole();
}

#[test]
fn a_reader_that_is_killed_while_the_log_s_disk_stands_still_is_gone_by_the_deadline() {
    let Some(mut site) = site_with_small_segments() else { return };
    let config = "deadline_seconds = 1\n[audit]\nsegment_mib = 1\ndurability = \"synced\"\n";
    write_file(&site.config(), config.as_bytes());
    let Some(_disk) = SmallDisk::at(&site, "ext4", site.state().join("audit")) else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let Some(frozen) = Frozen::freeze(site.path("disk")) else { return };
    let mut readers: Vec<_> = (0..4)
        .map(|_| Command::new("cat").arg(site.secret("s")).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    readers.iter_mut().for_each(|reader| reader.kill().unwrap());
    for reader in &mut readers {
        eventually("the killed reader is gone", || reader.try_wait().unwrap().is_some());
    }
    drop(frozen);
    eventually("reads go on when the disk does", || read(&site.secret("s")).is_ok());
}
