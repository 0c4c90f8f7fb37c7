//! Reading, as CONTRACT 3 promises it: every way to read gives the exact bytes of one version, and
//! leaves no page behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::person::Cgroup;
use common::syscall::{self, Mapping};
use common::{Person, Tried, World, bounded, eventually, noise};
use nix::errno::Errno;
use nix::sys::mman::MapFlags;
use nix::sys::uio::{pread, preadv, readv};

const SIZES: [usize; 8] = [1, 41, 100, 4095, 4096, 4097, 65_536, 1 << 20];
const ADA: u32 = 61_001;
const BOB: u32 = 61_002;

/// A way to read a whole file of that length.
type Way = fn(&Path, usize) -> Tried<Vec<u8>>;

/// Compares a way to read with what was stored, at every size. `refusal` is the one errno that may
/// stand in for the bytes.
fn is_exact(world: &World, way: Way, refusal: Option<i32>) {
    for size in SIZES {
        let value = noise(size as u64, size);
        world.put("name", &value);
        match way(&world.path("name"), size) {
            Ok(found) => assert!(found == value, "{size}: {} bytes, or others", found.len()),
            Err(errno) => assert_eq!(Some(errno), refusal, "{size}: {}", common::word(errno)),
        }
    }
}

fn open(path: &Path) -> Tried<File> {
    syscall::open(path, 0)
}

/// Calls a read until it returns nothing.
fn to_the_end(mut part: impl FnMut(usize) -> Result<Vec<u8>, Errno>) -> Tried<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let read = part(all.len()).map_err(|errno| errno as i32)?;
        if read.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&read);
    }
}

fn offset(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap()
}

fn by_read(path: &Path, chunk: usize) -> Tried<Vec<u8>> {
    let file = open(path)?;
    to_the_end(|_| {
        let mut buffer = vec![0; chunk];
        let read = nix::unistd::read(&file, &mut buffer)?;
        buffer.truncate(read);
        Ok(buffer)
    })
}

fn by_pread(path: &Path, _: usize) -> Tried<Vec<u8>> {
    let file = open(path)?;
    to_the_end(|at| {
        let mut buffer = vec![0; 5000];
        let read = pread(&file, &mut buffer, offset(at))?;
        buffer.truncate(read);
        Ok(buffer)
    })
}

/// Reads into three buffers of odd lengths at once.
fn vectored(
    read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let (mut a, mut b, mut c) = (vec![0; 13], vec![0; 4096], vec![0; 7000]);
    let read = {
        let mut parts = [&mut a, &mut b, &mut c].map(|part| IoSliceMut::new(part));
        read(&mut parts)?
    };
    let mut all = [a, b, c].concat();
    all.truncate(read);
    Ok(all)
}

fn by_mapping(path: &Path, size: usize, flags: MapFlags) -> Tried<Vec<u8>> {
    syscall::read_mapping(&open(path)?, size, flags)
}

fn by_splice(path: &Path, _: usize) -> Tried<Vec<u8>> {
    let file = open(path)?;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    to_the_end(|_| {
        let moved = syscall::splice(&file, &writer, 50_000)?;
        drain(&reader, moved)
    })
}

fn by_sendfile(path: &Path, _: usize) -> Tried<Vec<u8>> {
    let file = open(path)?;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    to_the_end(|_| {
        let moved = syscall::sendfile(&file, &writer, 50_000)?;
        drain(&reader, moved)
    })
}

fn drain(reader: &impl AsFd, bytes: usize) -> Result<Vec<u8>, Errno> {
    let mut all = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        filled += nix::unistd::read(reader, &mut all[filled..])?;
    }
    Ok(all)
}

fn cached_world() -> Option<World> {
    World::with(common::ROOT_IS_ADMIN, "io = \"cached\"\n")
}

#[test]
fn read_is_exact_in_pieces_of_any_size() {
    let Some(world) = World::start() else { return };
    is_exact(&world, |path, size| by_read(path, size.div_ceil(300).max(1)), None);
    is_exact(&world, |path, _| by_read(path, 4096), None);
    is_exact(&world, |path, _| by_read(path, 2 << 20), None);
}

#[test]
fn pread_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, by_pread, None);
}

#[test]
fn readv_is_exact() {
    let Some(world) = World::start() else { return };
    let way: Way = |path, _| {
        let file = open(path)?;
        to_the_end(|_| vectored(|parts| readv(&file, parts)))
    };
    is_exact(&world, way, None);
}

#[test]
fn preadv_and_preadv2_are_exact() {
    let Some(world) = World::start() else { return };
    let way: Way = |path, _| {
        let file = open(path)?;
        to_the_end(|at| vectored(|parts| preadv(&file, parts, offset(at))))
    };
    is_exact(&world, way, None);
    is_exact(&world, |path, _| syscall::preadv2(&open(path)?), None);
}

#[test]
fn a_private_mapping_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, |path, size| by_mapping(path, size, MapFlags::MAP_PRIVATE), None);
}

#[test]
fn a_shared_mapping_is_exact_or_refused_in_direct_mode_and_exact_in_cached_mode() {
    // FUSE maps a direct file MAP_SHARED only with a flag that FUSE.md says never to ask for.
    let shared: Way = |path, size| by_mapping(path, size, MapFlags::MAP_SHARED);
    let Some(world) = World::start() else { return };
    is_exact(&world, shared, Some(libc::ENODEV));
    let Some(world) = cached_world() else { return };
    is_exact(&world, shared, None);
}

#[test]
fn splice_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, by_splice, None);
}

#[test]
fn sendfile_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, by_sendfile, None);
}

#[test]
fn libaio_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, |path, _| syscall::libaio(&open(path)?), None);
}

#[test]
fn o_direct_is_exact() {
    let Some(world) = World::start() else { return };
    is_exact(&world, |path, _| syscall::read_aligned(&syscall::open(path, libc::O_DIRECT)?), None);
}

#[test]
fn copy_file_range_is_exact_or_not_possible() {
    let Some(world) = World::start() else { return };
    let way: Way = |path, _| {
        let (file, target) = (open(path)?, tempfile::tempfile().unwrap());
        to_the_end(|_| {
            let copied = syscall::copy_file_range(&file, &target, 1 << 20)?;
            let mut bytes = vec![0; copied];
            let at = target.metadata().unwrap().len() - copied as u64;
            target.read_exact_at(&mut bytes, at).unwrap();
            Ok(bytes)
        })
    };
    is_exact(&world, way, Some(libc::EXDEV));
}

#[test]
fn every_way_is_exact_in_cached_mode_while_versions_have_one_length() {
    let ways: [Way; 8] = [
        |path, _| by_read(path, 4096),
        by_pread,
        |path, size| by_mapping(path, size, MapFlags::MAP_PRIVATE),
        by_splice,
        by_sendfile,
        |path, _| syscall::libaio(&open(path)?),
        |path, _| syscall::preadv2(&open(path)?),
        |path, _| syscall::read_aligned(&syscall::open(path, libc::O_DIRECT)?),
    ];
    let Some(world) = cached_world() else { return };
    for (index, size) in SIZES.into_iter().enumerate() {
        let name = format!("name-{index}");
        for (seed, way) in (1..).zip(ways) {
            let value = noise(seed, size);
            world.put(&name, &value);
            assert!(
                way(&world.path(&name), size).as_ref() == Ok(&value),
                "way {seed}, size {size}"
            );
        }
    }
}

#[test]
fn io_uring_at_an_explicit_offset_is_exact() {
    let Some(world) = World::start() else { return };
    for size in SIZES {
        let value = noise(9, size);
        world.put("name", &value);
        let file = open(&world.path("name")).unwrap();
        let Some(read) = syscall::io_uring_read(&file, size.max(4096), 0) else {
            return common::skip("no io_uring here");
        };
        let read = read.unwrap();
        assert!(value.starts_with(&read) && !read.is_empty(), "{size}: {} bytes", read.len());
        let past = syscall::io_uring_read(&file, 4096, size as u64).unwrap().unwrap();
        assert!(past.is_empty(), "{size}: {} bytes past the end", past.len());
    }
}

#[test]
fn io_uring_at_the_current_position_is_known_to_repeat_bytes_on_some_kernels() {
    let Some(world) = World::start() else { return };
    let value = noise(10, 41);
    world.put("name", &value);
    let file = open(&world.path("name")).unwrap();
    let Some(read) = syscall::io_uring_read(&file, 4096, u64::MAX) else {
        return common::skip("no io_uring here");
    };
    // DECISIONS 1: the one known fault. Nothing but bytes of this very secret may come, however often.
    let read = read.unwrap();
    let faulty = read != value;
    eprintln!(
        "io_uring at the current position: {} ({} bytes)",
        if faulty { "faulty" } else { "exact" },
        read.len()
    );
    assert!(read.chunks(41).all(|chunk| value.starts_with(chunk)));
}

#[test]
fn st_size_is_exact_without_opening() {
    let Some(world) = World::start() else { return };
    for size in SIZES {
        world.put("name", noise(11, size));
        assert_eq!(fs::metadata(world.path("name")).unwrap().len(), size as u64);
        assert_eq!(world.sh_ok("stat -c %s name").trim(), size.to_string());
    }
    let reads = |world: &World| world.audit_of("name", "read", "allowed", 0).len();
    let before = reads(&world);
    world.sh_ok("stat name; ls -l; ls -lR . >/dev/null 2>&1 || true; find . -name name -size +1k");
    assert_eq!(reads(&world), before);
}

/// A value so large that its pages stand out from all else that a process needs.
const HUGE: usize = 8 << 20;

fn world_of_huge_values(io: &str) -> Option<World> {
    let config = format!("io = \"{io}\"\n[limits]\nmax_value_bytes = 16777216\n");
    let world = World::with(common::ROOT_IS_ADMIN, &config)?;
    world.put("name", noise(12, HUGE));
    Some(world)
}

fn reading_ahead(path: &Path, size: usize) -> Tried<Vec<u8>> {
    let file = open(path)?;
    for at in (0..size).step_by(128 << 10) {
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        nix::fcntl::posix_fadvise(&file, offset(at), 128 << 10, advice).map_err(|e| e as i32)?;
    }
    syscall::read_ahead(&file, size);
    by_read(path, 65_536)
}

#[test]
fn no_page_stays_cached_after_the_last_close_in_direct_mode() {
    leaves_no_page("direct");
}

#[test]
fn no_page_stays_cached_after_the_last_close_in_cached_mode() {
    leaves_no_page("cached");
}

/// Reads in a process of its own in a cgroup of its own: what is charged to the group once the process
/// has ended are the pages that stayed. Opening the file again would drop them before they were seen.
fn leaves_no_page(io: &str) {
    let Some(world) = world_of_huge_values(io) else { return };
    let ways: [(&str, Way); 6] = [
        ("read", |path, _| by_read(path, 4096)),
        ("mapping", |path, size| by_mapping(path, size, MapFlags::MAP_PRIVATE)),
        ("splice", by_splice),
        ("sendfile", by_sendfile),
        ("libaio", |path, _| syscall::libaio(&open(path)?)),
        ("readahead", reading_ahead),
    ];
    let path = world.path("name");
    for (how, way) in ways {
        let name = format!("secretfs-test-{}-{io}-{how}", std::process::id());
        let Some(group) = Cgroup::make_counting_memory(&name) else {
            return common::skip("no cgroup that counts memory here");
        };
        let read = Person::new(0).in_cgroup(&group).run(|| way(&path, HUGE).map(|read| read.len()));
        assert_eq!(read, Ok(HUGE), "{how}");
        let stays = || group.memory().unwrap() > HUGE as u64 / 4;
        eventually(&format!("no page of {how} in {io} mode"), || !stays());
    }
}

#[test]
fn the_pages_of_an_open_mapping_are_seen_by_the_test_of_none() {
    let Some(world) = world_of_huge_values("direct") else { return };
    let name = format!("secretfs-test-{}-control", std::process::id());
    let Some(group) = Cgroup::make_counting_memory(&name) else { return };
    let path = world.path("name");
    let charged = Person::new(0).in_cgroup(&group).run(|| {
        let mapping = Mapping::new(&open(&path).unwrap(), HUGE, MapFlags::MAP_PRIVATE).unwrap();
        drop(mapping.bytes());
        group.memory().unwrap()
    });
    assert!(charged > HUGE as u64, "{charged}: a test of no pages must be able to fail");
}

#[test]
fn a_handle_pins_its_version() {
    let Some(world) = World::start() else { return };
    let (old, new) = (noise(14, 100_000), noise(15, 70_000));
    world.put("name", &old);
    let mut file = open(&world.path("name")).unwrap();
    let mut half = vec![0; 50_000];
    file.read_exact(&mut half).unwrap();
    world.put("name", &new);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!([half, rest].concat() == old);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut again = Vec::new();
    file.read_to_end(&mut again).unwrap();
    assert!(again == old);
    assert!(world.get("name").unwrap() == new);
}

#[test]
fn a_handle_goes_on_after_its_secret_was_renamed_over_removed_or_hidden() {
    let Some(world) = World::start() else { return };
    for after in ["printf new > .n.tmp && mv .n.tmp name", "rm name", "mv name other"] {
        world.put("name", "old value");
        let mut file = open(&world.path("name")).unwrap();
        world.sh_ok(after);
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "old value", "{after}");
    }
}

#[test]
fn of_readers_during_many_versions_none_sees_a_torn_value() {
    const VERSIONS: u8 = 60;
    let Some(world) = World::start() else { return };
    let value = |version: u8| vec![version; 1000 + usize::from(version) * 531];
    world.put("name", value(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for chunk in [512, 100_000] {
            let (path, done) = (world.path("name"), &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let read = by_read(&path, chunk).unwrap();
                    assert!(read == value(read[0]), "torn: {} bytes of {}", read.len(), read[0]);
                }
            });
        }
        for version in 1..=VERSIONS {
            world.put("name", value(version));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn versions_are_opened_by_their_views() {
    let Some(world) = World::start() else { return };
    for value in ["one", "two", "three"] {
        world.put("dir/name", value);
    }
    assert_eq!(world.get("dir/name@1").unwrap(), b"one");
    assert_eq!(world.get("dir/name@previous").unwrap(), b"two");
    assert_eq!(world.get("dir/name@3").unwrap(), b"three");
    assert_eq!(world.get("dir/name@4"), Err(libc::ENOENT));
    let meta: serde_json::Value =
        serde_json::from_slice(&world.get("dir/name@meta").unwrap()).unwrap();
    assert_eq!(meta["version"], 3, "{meta}");
    assert!(!meta.to_string().contains("three"));
    assert_eq!(world.list("dir"), ["name"]);
}

#[test]
fn a_single_file_bind_mount_follows_new_versions_rename_over_and_recreation() {
    let Some(world) = World::start() else { return };
    world.put("name", "one");
    let script = format!(
        "set -e; cd {}; touch target; mount --bind secrets/name target; cat target; echo
         printf two > secrets/name; cat target; echo
         printf three > secrets/.name.tmp; mv secrets/.name.tmp secrets/name; cat target; echo
         rm secrets/name; ! cat target 2>/dev/null; printf four > secrets/name; cat target",
        world.outside("").display()
    );
    let output = bounded(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\nthree\nfour", "{output:?}");
}

#[test]
fn a_descriptor_passed_to_somebody_without_the_right_reads_nothing_and_is_recorded_once() {
    let Some(world) = World::start() else { return };
    world.put("name", "canary-7f3a");
    let file = open(&world.path("name")).unwrap();
    let read = Person::new(ADA).run(|| [read_all(&file), read_all(&file), read_all(&file)]);
    assert_eq!(read, [Err(libc::EACCES), Err(libc::EACCES), Err(libc::EACCES)]);
    assert_eq!(world.audit_of("name", "read", "denied", ADA).len(), 1);
    assert_eq!(read_all(&file).unwrap(), b"canary-7f3a", "the opener's own reads go on");
}

#[test]
fn a_descriptor_passed_to_somebody_with_the_right_is_read_and_recorded_once() {
    let policy = r#"
[[role]]
name = "reader"
allow = [{ names = ["name"], levels = ["read"] }]
[[binding]]
role = "reader"
uid = [61001, 61002]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("name", "example-value");
    let file = open(&world.path("name")).unwrap();
    for uid in [ADA, BOB] {
        let read = Person::new(uid).run(|| [read_all(&file), read_all(&file)]);
        assert_eq!(read, [Ok(b"example-value".to_vec()), Ok(b"example-value".to_vec())]);
        assert_eq!(world.audit_of("name", "read", "allowed", uid).len(), 1, "{uid}");
    }
}

#[test]
fn a_child_of_the_same_uid_is_the_same_caller() {
    let Some(world) = World::start() else { return };
    world.put("name", "example-value");
    assert_eq!(world.sh_ok("exec 3< name; (cat <&3)"), "example-value");
    assert_eq!(world.audit_of("name", "read", "allowed", 0).len(), 1);
}

fn read_all(file: &File) -> Tried<Vec<u8>> {
    to_the_end(|at| {
        let mut buffer = vec![0; 4096];
        let read = pread(file, &mut buffer, offset(at))?;
        buffer.truncate(read);
        Ok(buffer)
    })
}
