//! Ordinary tools on the mount: what they write becomes versions, and what walks the tree meets each
//! secret once.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its own environment says how much of it there is"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

use common::{Person, World, skip};

/// What a secret holds before a tool gets at it.
const BEFORE: &[u8] = b"first line\nexample-value\n";

/// What a tool is given, in a file beside the mount.
const NEW: &[u8] = b"canary-7f3a\nanother line\nand one more\n";

/// Runs `script` in a directory of the mount that holds the one secret `s`, of version 1. `$new` is a
/// file with [`NEW`] and `$old` one that can be given away.
fn run(world: &World, script: &str) -> Output {
    drop(fs::remove_dir(world.path("dir")));
    fs::create_dir_all(world.path("dir")).unwrap();
    world.put("dir/s", BEFORE);
    let new = world.outside("new");
    common::write_file(&new, NEW);
    let new = new.to_str().unwrap();
    world.sh(&format!("cd dir && export HOME=/nonexistent LC_ALL=C && new={new} && {script}"))
}

/// Asserts that a tool has said nothing, and left the secret with this version and value, and nothing
/// beside it. Clears the directory for the next one.
fn left(world: &World, script: &str, version: u64, value: &[u8]) {
    let output = run(world, script);
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{script}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&said), "", "{script}");
    let found = world.get("dir/s").unwrap();
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(value), "{script}");
    assert_eq!(world.version("dir/s"), version, "{script}");
    assert_eq!(world.list("dir"), ["s"], "{script}");
    fs::remove_file(world.path("dir/s")).unwrap();
}

/// Asserts that the programs are there; says SKIP where they are not.
fn have(programs: &[&str]) -> bool {
    let found = |program: &&str| {
        let paths = std::env::var("PATH").unwrap_or_default();
        paths.split(':').any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    if !missing.is_empty() {
        skip(&format!("no {missing:?} here"));
    }
    missing.is_empty()
}

#[test]
fn a_redirection_of_the_shell_makes_one_version() {
    let Some(world) = World::start() else { return };
    let appended = [BEFORE, b"more\n"].concat();
    let overwritten = [b"FIRST", &BEFORE[5..]].concat();
    left(&world, "printf %s canary-7f3a > s", 2, b"canary-7f3a");
    left(&world, "cat \"$new\" > s", 2, NEW);
    left(&world, "echo more >> s", 2, &appended);
    left(&world, "printf FIRST 1<> s", 2, &overwritten);
    left(&world, "cat > s < \"$new\"", 2, NEW);
    left(&world, "set -C; printf x >| s", 2, b"x");
}

#[test]
fn truncation_and_touch_alone_make_no_version() {
    let Some(world) = World::start() else { return };
    left(&world, ": > s", 1, BEFORE);
    left(&world, "> s", 1, BEFORE);
    left(&world, "touch s", 1, BEFORE);
    left(&world, "chmod 600 s", 1, BEFORE);
    left(&world, "true >> s", 1, BEFORE);
    left(&world, "cp /dev/null s", 1, BEFORE);
}

#[test]
fn a_subshell_with_two_writers_makes_one_version_for_each() {
    // A FLUSH comes with every close of the shared file, and each that follows new data publishes.
    let Some(world) = World::start() else { return };
    left(&world, "(/bin/echo a; /bin/echo b) > s", 3, b"a\nb\n");
}

#[test]
fn a_program_that_copies_into_the_file_makes_one_version() {
    if !have(&["dd", "tee"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    let doubled = [BEFORE, NEW].concat();
    let overlaid = [NEW, BEFORE.get(NEW.len()..).unwrap_or_default()].concat();
    for script in [
        "cp \"$new\" s",
        "cp --no-preserve=all \"$new\" s",
        "cat \"$new\" | tee s >/dev/null",
        "dd if=\"$new\" of=s status=none",
        "dd if=\"$new\" of=s bs=1 status=none",
        "dd if=\"$new\" of=s bs=7 conv=fsync status=none",
        "dd if=\"$new\" of=s oflag=sync status=none",
    ] {
        left(&world, script, 2, NEW);
    }
    left(&world, "tee -a s < \"$new\" >/dev/null", 2, &doubled);
    left(&world, "dd if=\"$new\" of=s conv=notrunc status=none", 2, &overlaid);
}

#[test]
fn a_program_that_renames_over_the_file_makes_one_version_and_keeps_its_history() {
    if !have(&["sed", "rsync"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    let edited = b"first line\ncanary-7f3a\n";
    left(&world, "sed -i s/example-value/canary-7f3a/ s", 2, edited);
    left(&world, "sed -i -e 1d -e s/example-value/x/ s", 2, b"x\n");
    left(&world, "cp \"$new\" .s.tmp && mv .s.tmp s", 2, NEW);
    left(&world, "cp \"$new\" s~ && mv -f s~ s", 2, NEW);
    left(&world, "rsync \"$new\" s", 2, NEW);
    left(&world, "rsync -a \"$new\" s", 2, NEW);
    left(&world, "rsync -c \"$new\" s", 2, NEW);
    left(&world, "rsync --inplace \"$new\" s", 2, NEW);
    left(&world, "rsync --inplace --no-whole-file \"$new\" s", 2, NEW);
}

#[test]
fn a_rename_of_one_secret_over_another_makes_one_version_of_the_target() {
    let Some(world) = World::start() else { return };
    left(&world, "cp \"$new\" other && mv other s", 2, NEW);
    assert_eq!(world.audit_of("dir/s", "write", "allowed", 0).len(), 2);
}

#[test]
fn a_program_that_removes_the_file_first_leaves_the_old_secret_in_the_trash() {
    if !have(&["install"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    for script in
        ["install -m 600 \"$new\" s", "cp --remove-destination \"$new\" s", "rm s; cp \"$new\" s"]
    {
        let before = world.list(".control/trash").len();
        left(&world, script, 1, NEW);
        // What `left` removes at its end comes on top.
        assert_eq!(world.list(".control/trash").len(), before + 2, "{script}");
    }
}

/// Makes a tree beside the mount, `tree/a` and `tree/b/c`, with these modes and times of long ago.
const TREE: &str = "rm -rf $tree; mkdir -p $tree/b; printf example-value > $tree/a; printf x > $tree/b/c; \
     chmod $dirs $tree $tree/b; chmod $files $tree/a $tree/b/c; \
     touch -d '2001-01-01' $tree/a $tree/b/c $tree/b $tree; ";

/// Asserts that somebody who brings the tree along is told of no error, and that all of it has arrived.
fn arrives(world: &World, person: &Person, (dirs, files): (&str, &str), script: &str) {
    let beside = world.outside(&person.uid.to_string());
    if !beside.exists() {
        fs::create_dir(&beside).unwrap();
        std::os::unix::fs::chown(&beside, Some(person.uid), Some(person.gid)).unwrap();
    }
    let tree = beside.join("tree");
    let output = person.sh(&format!(
        "export LC_ALL=C dirs={dirs} files={files} tree={}; {TREE} cd {}/dir && {script}",
        tree.display(),
        world.mountpoint()
    ));
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let who = format!("{script} by {}", person.uid);
    assert!(output.status.success() && said.is_empty(), "{who}: {output:?}");
    assert_eq!(world.get("dir/tree/a").unwrap(), b"example-value", "{who}");
    assert_eq!(world.get("dir/tree/b/c").unwrap(), b"x", "{who}");
    assert_eq!(world.list("dir/tree"), ["a", "b"], "{who}");
    world.sh_ok("rm -r dir/tree");
}

/// A world with a directory in which root and Ada may do everything but administer.
fn migration() -> Option<(World, [Person; 2])> {
    const ADA: u32 = 61_001;
    let world = World::with_policy(&format!(
        "[[role]]\nname = \"all\"\n\
         allow = [{{ names = [\"**\"], levels = [\"read\", \"write\", \"delete\"] }}]\n\
         [[binding]]\nrole = \"all\"\nuid = [{ADA}]\n"
    ))?;
    fs::create_dir(world.path("dir")).unwrap();
    Some((world, [Person::new(0), Person::new(ADA)]))
}

#[test]
fn a_tree_that_is_as_strict_as_what_is_presented_is_brought_along_without_an_error() {
    if !have(&["rsync", "tar"]) {
        return;
    }
    let Some((world, people)) = migration() else { return };
    for person in &people {
        for script in [
            "cp -a $tree .",
            "cp -rp $tree .",
            "mv $tree .",
            "rsync -a $tree .",
            "rsync -rt $tree .",
            "rsync -a --inplace $tree .",
            "tar -C $tree/.. -cf - tree | tar -xf -",
            "tar -C $tree/.. -cf - tree | tar -xpf -",
        ] {
            arrives(&world, person, ("700", "600"), script);
        }
    }
}

#[test]
fn a_tree_that_is_open_to_others_is_brought_along_without_an_error_by_those_who_say_so() {
    if !have(&["rsync", "tar", "install"]) {
        return;
    }
    let Some((world, people)) = migration() else { return };
    for person in &people {
        for script in [
            "cp -r $tree .",
            "cp -r --preserve=timestamps $tree .",
            "rsync -r --chmod=D700 $tree .",
            "rsync -a --chmod=D700,F600 $tree .",
            "rsync -a --no-perms --chmod=D700,F600 --inplace $tree .",
            "tar -C $tree/.. -cf - tree | (umask 077; tar -xf - --no-same-permissions)",
            "install -d -m 700 tree tree/b && install -m 600 $tree/a tree/a && install -m 600 -p $tree/b/c tree/b/c",
        ] {
            arrives(&world, person, ("755", "644"), script);
        }
    }
}

#[test]
fn a_program_that_insists_on_another_mode_says_so_and_keeps_the_value() {
    let Some(world) = World::start() else { return };
    for script in ["cp -p \"$new\" s", "cp -a \"$new\" s", "rsync -a --inplace \"$new\" s"] {
        let output = run(&world, &format!("chmod 644 \"$new\"; {script}"));
        let said = String::from_utf8(output.stderr).unwrap();
        let allowed = |line: &str| {
            let about = ["preserving permissions", "failed to set permissions", "some files/attrs"];
            about.iter().any(|part| line.contains(part))
        };
        assert!(said.lines().all(allowed) && !said.is_empty(), "{script}: {said}");
        assert_eq!(world.get("dir/s").unwrap(), NEW, "{script}");
        assert_eq!(world.version("dir/s"), 2, "{script}");
        fs::remove_file(world.path("dir/s")).unwrap();
    }
}

#[test]
fn vim_makes_one_version_in_each_way_that_it_has_to_write_a_file() {
    if !have(&["vim"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    let edited = b"first line\ncanary-7f3a\n";
    for options in [
        "",
        "set backupcopy=yes",
        "set backupcopy=no",
        "set backupcopy=auto",
        "set nowritebackup",
        "set noswapfile nobackup nowritebackup",
        "set fsync",
        "set undofile undodir=.",
    ] {
        let script =
            format!("vim -u NONE -es -c '{options}' -c '%s/example-value/canary-7f3a/' -c wq s");
        // The undo file is the user's wish; it is a scratch file and goes with the daemon.
        let script =
            if options.contains("undofile") { format!("{script} && rm -f .s.un~") } else { script };
        left(&world, &script, 2, edited);
    }
    let twice = "-c '%s/first/1st/' -c w -c '%s/example-value/x/' -c w -c q";
    left(&world, &format!("vim -u NONE -es {twice} s"), 3, b"1st line\nx\n");
}

#[test]
fn vim_that_quits_without_writing_makes_no_version() {
    if !have(&["vim"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    left(&world, "vim -u NONE -es -c '%s/example/x/' -c 'qa!' s", 1, BEFORE);
}

#[test]
fn vim_writes_a_new_secret_as_its_first_version() {
    if !have(&["vim"]) {
        return;
    }
    let Some(world) = World::start() else { return };
    world.put("dir/s", BEFORE);
    let script = "cd dir && vim -u NONE -es -c 'normal icanary-7f3a' -c wq new";
    assert_eq!(world.sh_ok(script), "");
    assert_eq!(world.get("dir/new").unwrap(), b"canary-7f3a\n");
    assert_eq!((world.version("dir/new"), world.list("dir")), (1, vec!["new".into(), "s".into()]));
}

#[test]
fn a_scratch_file_is_seen_by_its_creator_alone_and_ends_with_the_daemon() {
    let Some(mut world) = World::with_policy(
        "[[role]]\nname = \"app\"\nallow = [{ names = [\"dir/*\"], levels = [\"read\"] }]\n\
         [[binding]]\nrole = \"app\"\nuid = [1000]\n",
    ) else {
        return;
    };
    world.put("dir/s", BEFORE);
    world.sh_ok("cp dir/s dir/.s.swp; cp dir/s dir/s~");
    assert_eq!(world.list("dir"), [".s.swp", "s", "s~"]);
    let (dir, swap) = (world.path("dir"), world.path("dir/.s.swp"));
    let seen = Person::new(1000).run(|| (common::list(&dir), common::read(&swap)));
    assert_eq!(seen, (Ok(vec!["s".to_owned()]), Err(libc::ENOENT)));
    world.kill_and_restart();
    assert_eq!(world.list("dir"), ["s"]);
}

/// Mounts a tree of secrets with directories, tags and history, so that there is something to meet twice.
fn forest() -> Option<(World, Vec<&'static str>)> {
    let world = World::start()?;
    let names = vec!["top", "prod/db/password", "prod/db/user", "prod/tls-key", "dev/db/password"];
    for name in &names {
        world.put(name, format!("canary-7f3a {name}"));
        world.put(name, format!("canary-7f3a again {name}"));
        world.set_attribute(name, "tags", "shared");
        world.set_attribute(name, "service", "shop");
    }
    Some((world, names))
}

/// Counts the reads of each secret while a script runs, and returns them with what it printed.
fn reads_of(world: &World, script: &str) -> (BTreeMap<String, usize>, String) {
    let before = world.audit().len();
    let output = world.sh(script);
    let mut reads = BTreeMap::new();
    for line in world.audit().split_off(before) {
        if line["action"] == "read" && line["outcome"] == "allowed" {
            *reads.entry(line["secret"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    (reads, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_reads_a_whole_tree_reads_each_secret_exactly_once() {
    if !have(&["rsync"]) {
        return;
    }
    let Some((world, names)) = forest() else { return };
    let each_once: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
    for (at, script) in [
        "tar cf OUT .",
        "tar cf OUT --exclude=./.control .",
        "grep -r canary-7f3a .",
        "grep -rl canary-7f3a prod dev top",
        "cp -r . OUT",
        "cp -rL prod dev top OUT.d",
        "cp -a . OUT",
        "rsync -r --exclude=.control ./ OUT/",
        "find . -path ./.control -prune -o -type f -exec cat {} +",
        "find . -type f -not -path './.control/*' -print0 | xargs -0 cat",
    ]
    .into_iter()
    .enumerate()
    {
        let out = world.outside(&format!("out{at}"));
        let out = out.to_str().unwrap();
        fs::create_dir_all(format!("{out}.d")).unwrap();
        let (reads, _) = reads_of(&world, &script.replace("OUT", out));
        assert_eq!(reads, each_once, "{script}");
    }
}

#[test]
fn what_walks_a_tree_meets_each_secret_once_and_no_view() {
    let Some((world, names)) = forest() else { return };
    let mut expected: Vec<String> = names.iter().map(|name| format!("./{name}")).collect();
    expected.sort();
    let (reads, found) = reads_of(&world, "find . -path ./.control -prune -o -type f -print");
    let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
    found.sort();
    assert_eq!((reads.len(), found), (0, expected));
    for script in ["find .", "ls -laR", "du -a .", "tar c . | tar t"] {
        let (_, found) = reads_of(&world, script);
        assert!(found.contains("password") && !found.contains('@'), "{script}: {found}");
    }
}

#[test]
fn what_only_looks_at_a_tree_reads_nothing() {
    let Some((world, _)) = forest() else { return };
    for script in ["ls -laR", "du -s .", "find . -type f -size +0", "stat prod/db/*", "test -s top"]
    {
        let (reads, _) = reads_of(&world, script);
        assert!(reads.is_empty(), "{script}: {reads:?}");
    }
}

#[test]
fn a_copy_of_the_tree_has_each_value_and_comes_back_as_it_was() {
    let Some((world, names)) = forest() else { return };
    let out = world.outside("copy");
    fs::create_dir(&out).unwrap();
    let out = out.to_str().unwrap();
    world.sh_ok(&format!("tar c prod dev top | tar x -C {out}"));
    world.sh_ok("rm -r prod dev top");
    assert_eq!(world.list(""), [".by", ".control"]);
    world.sh_ok(&format!("cp -r {out}/. ."));
    for name in names {
        assert_eq!(
            world.get(name).unwrap(),
            format!("canary-7f3a again {name}").as_bytes(),
            "{name}"
        );
    }
}
