//! `.templates`: files with secrets in the middle, put together for who opens them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;
mod site;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Person, Refusal, Tried, World, eventually, list, number, read, write_file};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use site::Site;

const ADA: u32 = 61_001;
const EVE: u32 = 61_003;

/// Ada reads what is open, and may look at what is shut.
const ADA_READS_OPEN: &str = r#"
[[role]]
name = "open"
allow = [
    { names = ["app/open", "app/open-*"], levels = ["read"] },
    { names = ["app/shut"], levels = ["write"] },
]

[[binding]]
id = "ada"
role = "open"
uid = [61001]
"#;

/// Writes templates and a configuration that names them, and has it read. `more` is for each of them.
fn register(world: &World, templates: &[(&str, &str)], more: &str) -> Result<(), Refusal> {
    let mut config = String::new();
    for (name, text) in templates {
        let file = world.outside(&format!("config/secretfs/{name}.in"));
        write_file(&file, text.as_bytes());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        config.push_str(&format!("[[template]]\nname = {name:?}\nfile = {file:?}\n{more}\n"));
    }
    write_file(&world.outside("config/secretfs/secretfs.toml"), config.as_bytes());
    world.control("reload", "\n").map(drop)
}

fn as_person(world: &World, uid: u32, name: &str) -> Tried<Vec<u8>> {
    let path = world.path(name);
    Person::new(uid).run(|| read(&path))
}

#[test]
fn a_template_is_filled_for_who_opens_it_and_each_secret_is_on_record_before() {
    let Some(world) = World::with_policy(ADA_READS_OPEN) else { return };
    world.put("app/open", "canary-7f3a");
    world.put("app/open-too", "12345");
    let text = "u={{ APP_OPEN }} p=${SECRET_APP_OPEN} j={{ secret('app/open-too') | json }}\n";
    register(&world, &[("app.conf", text)], "").unwrap();
    let expected = b"u=canary-7f3a p=canary-7f3a j=\"12345\"\n";
    assert_eq!(as_person(&world, ADA, ".templates/app.conf").unwrap(), expected);
    for name in ["app/open", "app/open-too"] {
        let lines = world.audit_of(name, "read", "allowed", ADA);
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        assert_eq!(lines[0]["reason"], "for .templates/app.conf");
        assert_eq!(lines[0]["version"], 1);
    }
    world.put("app/open", "second");
    assert!(
        as_person(&world, ADA, ".templates/app.conf").unwrap().starts_with(b"u=second p=second")
    );
}

#[test]
fn one_secret_that_may_not_be_read_fails_the_open_and_nothing_is_on_record_as_read() {
    let Some(world) = World::with_policy(ADA_READS_OPEN) else { return };
    for name in ["app/open", "app/shut", "app/closed"] {
        world.put(name, "canary-7f3a");
    }
    let placeholders = [
        ("known", "{{ APP_SHUT }}"),
        ("hidden", "{{ APP_CLOSED }}"),
        ("named", "{{ secret('app/closed') }}"),
        ("absent", "{{ secret('app/nothing') }}"),
        ("unknown", "${SECRET_NOTHING}"),
    ];
    let texts = placeholders.map(|(name, text)| (name, format!("{{{{ APP_OPEN }}}} {text}")));
    let templates: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    register(&world, &templates, "").unwrap();
    for (name, _) in placeholders {
        let read = as_person(&world, ADA, &format!(".templates/{name}"));
        assert_eq!(read, Err(libc::EACCES), "{name}: there or not, the policy answers");
    }
    assert!(world.audit_of("app/open", "read", "allowed", ADA).is_empty());
    for (name, action) in [("app/shut", "read"), ("app/closed", "read"), ("app/nothing", "read")] {
        assert!(!world.audit_of(name, action, "denied", ADA).is_empty(), "{name}");
    }
    // Root may know of everything, so it is told that it is not there.
    assert_eq!(world.get(".templates/known").unwrap(), b"canary-7f3a canary-7f3a");
    for name in ["absent", "unknown"] {
        assert_eq!(world.get(&format!(".templates/{name}")), Err(libc::ENOENT), "{name}");
    }
    let lines = world.audit_of("app/open", "read", "allowed", 0);
    assert_eq!(lines.len(), 1, "only what came out");
}

#[test]
fn a_file_that_is_no_template_is_refused_with_its_place_and_changes_nothing() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    register(&world, &[("good", "{{ A }}\n")], "").unwrap();
    let bad = [
        ("first\n  {{ A | nothing }}\n", "line 2, column 10"),
        ("{% if %}", "line 1, column"),
        ("\n\n${SECRET_}", "line 3, column 1"),
        ("{{ secret('../x') }}", "line 1, column 4"),
    ];
    for (text, place) in bad {
        let refused = register(&world, &[("good", text), ("more", "x")], "").unwrap_err();
        assert_eq!(refused.errno, libc::EINVAL, "{text:?}");
        let file = world.outside("config/secretfs/good.in").display().to_string();
        assert!(
            refused.reply.contains(&file) && refused.reply.contains(place),
            "{}",
            refused.reply
        );
        assert_eq!(world.get(".templates/good").unwrap(), b"value\n", "{text:?}");
        assert_eq!(world.list(".templates"), ["good"]);
    }
    let file = world.outside("config/secretfs/good.in");
    register(&world, &[("good", "{{ A }}")], "plain = true").unwrap();
    assert_eq!(world.get(".templates/good").unwrap(), b"{{ A }}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = world.control("reload", "\n").unwrap_err();
    assert!(refused.reply.contains("can be written by others"), "{}", refused.reply);
    let config = world.outside("config/secretfs/secretfs.toml");
    write_file(&config, b"[[template]]\nname = \"a/b\"\nfile = \"/x\"\n");
    let refused = world.control("reload", "\n").unwrap_err();
    assert!(refused.reply.contains("line 2, column 8"), "{}", refused.reply);
}

#[test]
fn what_is_in_one_text_was_current_at_one_moment() {
    const CHANGES: u32 = 300;
    let Some(world) = World::start() else { return };
    for name in ["d/a", "d/b", "d/c"] {
        world.put(name, "0");
    }
    let text = "{{ D_C }} {{ D_B }} {{ D_A }}";
    register(&world, &[("t", text)], "").unwrap();
    let done = AtomicBool::new(false);
    let mut texts = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each is raised in turn, so at every moment they differ by one at most, `a` leading.
            for value in 1..=CHANGES {
                for name in ["d/a", "d/b", "d/c"] {
                    common::write(&world.path(name), value.to_string().as_bytes()).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let text = String::from_utf8(world.get(".templates/t").unwrap()).unwrap();
            let values: Vec<u32> = text.split(' ').map(|value| value.parse().unwrap()).collect();
            let [c, b, a] = values[..] else { panic!("{text}") };
            assert!(a >= b && b >= c && a - c <= 1, "{text}");
            texts += 1;
        }
    });
    assert!(texts > 10, "{texts}");
}

#[test]
fn stat_shows_a_bound_and_reads_nothing_and_an_open_file_its_own_length() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    register(&world, &[("t", "{{ A }}\n")], "").unwrap();
    let path = world.path(".templates/t");
    let shown = fs::metadata(&path).unwrap();
    assert!(shown.is_file() && shown.size() >= 1 << 20);
    assert_eq!((shown.mode() & 0o777, shown.uid()), (0o400, 0));
    assert!(world.audit_of("a", "read", "allowed", 0).is_empty());
    let mut file = File::open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 6);
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), 6);
    world.put("a", "a longer one");
    let newer = File::open(&path).unwrap();
    assert_eq!(newer.metadata().unwrap().size(), 13);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "value\n", "what was opened stays as it was");
    drop(newer);
    drop(file);
    eventually("closed", || fs::metadata(&path).unwrap().size() >= 1 << 20);
    let other = thread::spawn(move || {
        let _file = File::open(&path).unwrap();
        path
    });
    let path = other.join().unwrap();
    assert!(fs::metadata(path).unwrap().size() >= 1 << 20, "no other thread's");
}

#[test]
fn hostile_values_come_out_as_they_are_and_what_is_too_large_not_at_all() {
    let Some(world) = World::start() else { return };
    register(&world, &[("t", "<{{ V }}|${SECRET_V}>\n"), ("j", "{{ V | json }}")], "").unwrap();
    let values: [&[u8]; 5] = [
        &(0..=255).collect::<Vec<u8>>(),
        b"{{ V }}${SECRET_V}{% if %}",
        b"it's \"x\" $(reboot) `id` \\\n",
        b"\n",
        &common::noise(3, 1 << 20),
    ];
    for value in values {
        world.put("v", value);
        let expected = [b"<", value, b"|", value, b">\n"].concat();
        assert!(world.get(".templates/t").unwrap() == expected);
    }
    // JSON is text, and this is none: no byte of it, and the log says why without a byte of it.
    assert_eq!(world.get(".templates/j"), Err(libc::EINVAL));
    assert!(world.said().contains("the filter json cannot take v"), "{}", world.said());
    let more = "{% for i in [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17] %}{{ V }}{% endfor %}";
    register(&world, &[("large", more)], "").unwrap();
    assert_eq!(world.get(".templates/large"), Err(libc::EFBIG));
}

#[test]
fn names_are_listed_to_who_has_any_right_and_nothing_else_can_be_done_there() {
    let Some(world) = World::with_policy(ADA_READS_OPEN) else { return };
    world.put("app/open", "value");
    register(&world, &[("one", "{{ APP_OPEN }}"), ("two.conf", "x")], "").unwrap();
    let directory = world.path(".templates");
    let ada = Person::new(ADA).run(|| list(&directory));
    assert_eq!(ada.unwrap(), ["one", "two.conf"]);
    let (one, absent) = (world.path(".templates/one"), world.path(".templates/absent"));
    for path in [&directory, &one, &absent] {
        let eve = Person::new(EVE).run(|| fs::metadata(path).map(drop).map_err(|e| number(&e)));
        assert_eq!(eve, Err(libc::EACCES), "{}", path.display());
    }
    assert_eq!(world.get(".templates/absent"), Err(libc::ENOENT));
    // As views, so that who walks the tree meets each secret once.
    assert!(!world.list("").iter().any(|name| name == ".templates" || name == ".oneiric"));
    let write = OpenOptions::new().write(true).open(&one).unwrap_err();
    assert_eq!(number(&write), libc::EACCES);
    assert!(common::write(&absent, b"x").is_err());
    for made in [fs::create_dir(&absent), fs::remove_file(&one)] {
        assert!(made.is_err());
    }
    assert_eq!(common::write(&world.path(".oneiric"), b"x"), Err(libc::EEXIST));
    assert_eq!(world.get(".oneiric/secrets.json"), Err(libc::ENOENT));
}

#[test]
fn below_a_directory_variables_are_the_names_there_and_texts_can_stand_for_secrets() {
    let Some(world) = World::start() else { return };
    world.put("prod/db/password", "value");
    world.put("db/password", "another");
    let more = "dir = \"prod\"\npatterns = { \"@@PW@@\" = \"prod/db/password\" }";
    register(&world, &[("t", "{{ DB_PASSWORD }} @@PW@@")], more).unwrap();
    assert_eq!(world.get(".templates/t").unwrap(), b"value value");
    world.set_attribute("prod/db/password", "env_name", "OWN");
    assert_eq!(world.get(".templates/t"), Err(libc::ENOENT), "it has another variable now");
    register(&world, &[("t", "{{ OWN }} @@PW@@")], more).unwrap();
    assert_eq!(world.get(".templates/t").unwrap(), b"value value");
    world.set_attribute("db/password", "env_name", "OWN");
    assert!(world.get(".templates/t").is_ok(), "that one is not below the directory");
    world.put("prod/own", "another");
    assert_eq!(world.get(".templates/t"), Err(libc::EINVAL), "it could be either");
}

#[test]
fn sealing_revoking_and_another_server_end_what_is_open() {
    let Some(world) = World::start() else { return };
    for name in ["a", "b"] {
        world.put(name, "value");
    }
    register(&world, &[("t", "{{ A }}"), ("u", "{{ B }}")], "").unwrap();
    let open = |name: &str| File::open(world.path(&format!(".templates/{name}"))).unwrap();
    let byte = |file: &File| file.read_at(&mut [0; 1], 0).map_err(|err| number(&err));
    let first = open("t");
    assert_eq!(byte(&first), Ok(1));
    world.set_attribute("a", "status", "revoked");
    assert_eq!(byte(&first), Err(libc::EKEYREVOKED));
    assert_eq!(world.get(".templates/t"), Err(libc::EKEYREVOKED));
    let second = open("u");
    let server = world.pid();
    kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
    eventually("another server", || world.pid() != server);
    assert_eq!(byte(&second), Err(libc::ESTALE));
    let third = open("u");
    assert_eq!(byte(&third), Ok(1));
    world.control("seal", "\n").unwrap();
    assert_eq!(byte(&third), Err(libc::ENOKEY));
    assert_eq!(world.get(".templates/u"), Err(libc::ENOKEY));
}

/// Waits until each watch was told that its file was closed after writing; returns how often.
fn told(inotify: &Inotify, watches: &[WatchDescriptor]) -> Vec<usize> {
    let mut counts = vec![0; watches.len()];
    eventually("all watches are told", || {
        for event in inotify.read_events().unwrap_or_default() {
            let of = watches.iter().position(|watch| *watch == event.wd).unwrap();
            counts[of] += 1;
        }
        !counts.contains(&0)
    });
    counts
}

/// Returns whose files were closed until one of that watch was.
fn until_told(inotify: &Inotify, last: WatchDescriptor) -> Vec<WatchDescriptor> {
    let mut all = Vec::new();
    eventually("the watch is told", || {
        all.extend(inotify.read_events().unwrap_or_default().iter().map(|event| event.wd));
        all.contains(&last)
    });
    all
}

/// Waits until something was told, and asserts that it was one change's.
fn until_told_once(inotify: &Inotify) {
    let mut count = 0;
    eventually("something is told", || {
        count += inotify.read_events().unwrap_or_default().len();
        count > 0
    });
    assert_eq!(count, 1);
}

fn watcher() -> Inotify {
    Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap()
}

fn watch(inotify: &Inotify, path: &Path) -> WatchDescriptor {
    inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE).unwrap()
}

#[test]
fn who_watches_a_template_is_told_when_a_secret_in_it_has_changed_in_whatever_way() {
    let Some(world) = World::start() else { return };
    for name in ["a", "b", "c"] {
        world.put(name, "value");
    }
    register(&world, &[("t", "{{ A }}{{ B }}"), ("other", "{{ C }}")], "").unwrap();
    let (t, other) = (world.path(".templates/t"), world.path(".templates/other"));
    for path in [&t, &other] {
        read(path).unwrap();
    }
    let inotify = watcher();
    let watches = [watch(&inotify, &t), watch(&inotify, &world.path(".templates"))];
    let bystander = watcher();
    watch(&bystander, &other);
    let put = |name: &str, value: &str| common::write(&world.path(name), value.as_bytes()).unwrap();
    let changes: [&dyn Fn(); 6] = [
        &|| put("a", "written"),
        &|| drop(world.sh_ok("printf renamed > .b.tmp && mv .b.tmp b")),
        &|| world.set_attribute("a", "status", "revoked"),
        &|| put("a", "again"),
        &|| fs::remove_file(world.path("b")).unwrap(),
        &|| put("b", "made again"),
    ];
    for change in changes {
        change();
        assert_eq!(told(&inotify, &watches), [1, 1]);
    }
    assert_eq!(read(&t).unwrap(), b"againmade again");
    assert!(bystander.read_events().is_err(), "nothing in it has changed");
    world.put("c", "another");
    eventually("its turn", || bystander.read_events().is_ok());
}

#[test]
fn who_watches_a_template_or_a_layer_is_told_of_a_restored_backup_that_changes_it() {
    let Some(world) = World::start() else { return };
    for name in ["a", "b", "same"] {
        world.put(name, "old");
    }
    let templates = [("t", "{{ A }}"), ("gone", "{{ secret('late') }}"), ("same", "{{ SAME }}")];
    register(&world, &templates, "").unwrap();
    let config = world.outside("config/secretfs/secretfs.toml");
    let text = fs::read_to_string(&config).unwrap();
    write_file(&config, format!("{text}[oneiric]\nprojects = [\"app\"]\n").as_bytes());
    world.control("reload", "\n").unwrap();
    let backup = world.outside("backup");
    let create = common::bounded(world.secretfs().args(["backup", "create"]).arg(&backup));
    assert!(create.status.success(), "{create:?}");
    world.put("late", "made after it");
    world.put("b", "new");
    let paths = [".templates/t", ".templates/gone", ".oneiric/app.yaml", ".templates/same"];
    let paths = paths.map(|path| world.path(path));
    paths.iter().for_each(|path| drop(read(path).unwrap()));
    world.set_attribute("a", "status", "revoked");
    let (inotify, bystander) = (watcher(), watcher());
    let watches = [0, 1, 2].map(|number: usize| watch(&inotify, &paths[number]));
    watch(&bystander, &paths[3]);
    let restore =
        common::bounded(world.secretfs().args(["backup", "restore", "--force"]).arg(&backup));
    assert!(restore.status.success(), "{restore:?}");
    told(&inotify, &watches);
    assert_eq!(read(&paths[0]).unwrap(), b"old", "it was revoked after the backup");
    assert_eq!(read(&paths[1]), Err(libc::ENOENT), "its secret was made after the backup");
    assert!(!String::from_utf8(read(&paths[2]).unwrap()).unwrap().contains("new"));
    world.put("same", "new");
    until_told_once(&bystander);
}

#[test]
fn each_caller_s_own_file_is_what_it_is_told_of() {
    let policy = ADA_READS_OPEN.replace("levels = [\"read\"]", "levels = [\"read\", \"write\"]");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("app/open", "value");
    register(&world, &[("t", "{{ APP_OPEN }}")], "").unwrap();
    let (template, secret) = (world.path(".templates/t"), world.path("app/open"));
    world.get(".templates/t").unwrap();
    let roots = watcher();
    let mine = watch(&roots, &template);
    let (found, count) = Person::new(ADA).run(|| {
        let before = read(&template).unwrap();
        let inotify = watcher();
        let watches = [watch(&inotify, &template)];
        common::write(&secret, b"by Ada").unwrap();
        let count = told(&inotify, &watches);
        (vec![before, read(&template).unwrap()], count[0])
    });
    assert_eq!((found, count), (vec![b"value".to_vec(), b"by Ada".to_vec()], 1));
    told(&roots, &[mine]);
}

#[test]
fn nobody_is_told_of_a_secret_in_a_template_that_they_may_not_read() {
    let policy = ADA_READS_OPEN.replace("levels = [\"read\"]", "levels = [\"read\", \"write\"]");
    let Some(world) = World::with_policy(&policy) else { return };
    for name in ["app/open", "app/open-mark", "app/open-last", "app/closed"] {
        world.put(name, "value");
    }
    let both = "{{ APP_OPEN }}{{ secret('app/closed') }}";
    let others = [("mark", "{{ APP_OPEN_MARK }}"), ("last", "{{ APP_OPEN_LAST }}")];
    register(&world, &[&[("t", both)], &others[..]].concat(), "").unwrap();
    let path = |name: &str| world.path(name);
    let write = |name: &str, value: &str| common::write(&path(name), value.as_bytes()).unwrap();
    let told_of_both = thread::scope(|scope| {
        let ada = scope.spawn(|| {
            Person::new(ADA).run(|| {
                assert_eq!(read(&path(".templates/t")), Err(libc::EACCES));
                let inotify = watcher();
                for other in [".templates/mark", ".templates/last"] {
                    read(&path(other)).unwrap();
                }
                let files = [".templates/t", ".templates/mark", ".templates/last"];
                let [t, _, last] = files.map(|file| watch(&inotify, &path(file)));
                write("app/open", "go");
                until_told(&inotify, t);
                write("app/open-mark", "go");
                eventually("root is done", || read(&path("app/open")).unwrap() == b"done");
                // Files are touched one after the other, so nothing of before comes after this one.
                write("app/open-last", "go");
                until_told(&inotify, last).into_iter().filter(|told| *told == t).count()
            })
        });
        eventually("Ada watches", || world.get("app/open-mark").unwrap() == b"go");
        world.put("app/closed", "another");
        // Between the two, because events that are alike become one.
        world.put("app/open-mark", "between");
        world.put("app/open", "done");
        ada.join().unwrap()
    });
    assert_eq!(told_of_both, 1, "of what she may read");
}

#[test]
fn in_the_hidden_mode_each_caller_opens_its_own_by_name_and_nobody_lists_them() {
    let policy = format!("{}{ADA_READS_OPEN}", common::ROOT_IS_ADMIN);
    let Some(world) = World::with(&policy, "names = \"hidden\"") else { return };
    world.put("app/open", "value");
    register(&world, &[("t", "{{ secret('app/open') }}")], "").unwrap();
    world.get(".templates/t").unwrap();
    assert_eq!(as_person(&world, ADA, ".templates/t").unwrap(), b"value");
    assert_eq!(as_person(&world, EVE, ".templates/t"), Err(libc::EACCES));
    let directory = world.path(".templates");
    assert_eq!(Person::new(ADA).run(|| list(&directory)), Err(libc::EACCES));
    assert_eq!(world.list(".templates"), ["t"]);
}

#[test]
fn a_daemon_does_not_start_with_a_file_that_is_no_template() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    let file = site.path("config/secretfs/t.in");
    write_file(&file, b"fine\n{{ A | }}");
    let config = fs::read_to_string(site.config()).unwrap();
    let table = format!("[[template]]\nname = \"t\"\nfile = {file:?}\n");
    write_file(&site.config(), format!("{config}\n{table}").as_bytes());
    let (code, said) = site.refused(&["mount", site.secret("").to_str().unwrap()]);
    let place = format!("{}: line 2, column", file.display());
    assert!(code == 12 && said.contains(&place), "{code}: {said}");
    let doctor = String::from_utf8(site.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains(&place), "{doctor}");
    write_file(&file, b"fine\n{{ A }}");
    site.serve();
    common::write(&site.secret("a"), b"value").unwrap();
    assert_eq!(read(&site.secret(".templates/t")).unwrap(), b"fine\nvalue");
}
