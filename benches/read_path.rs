//! Opening, reading and closing a secret, beside libfuse's `hello_ll` in the same run.
//!
//! `cargo bench --bench read_path [-- --smoke]`, as root, with libfuse3-dev and its examples. Policy,
//! audit (`written`) and decryption are on. Pinned: client and server on one CPU at a real-time priority.
//!
//! `hello_ll` lets the kernel keep names and pages. The same program in secretfs's mode, which keeps neither, says how much of
//! the difference is the mode's, with libfuse and without any work.
//!
//! Short slices of the two that are compared alternate, and the ratio is the median of their pairs': what else the
//! machine does, which may halve its speed for seconds, falls on both of a pair.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{Mounted, Placement, median};

const EXAMPLE: &str = "/usr/share/doc/libfuse3-dev/examples/hello_ll.c";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--client") {
        return client(&arguments[at + 1..]);
    }
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    if !Path::new(EXAMPLE).exists() || !Path::new("/dev/fuse").exists() {
        println!("SKIP: needs /dev/fuse and libfuse3-dev (scripts/setup.sh)");
        return;
    }
    let (rounds, operations) = if smoke { (1, 50) } else { (101, 500) };
    let directory = tempfile::tempdir().unwrap();
    let [hello, uncached] = [&[][..], UNCACHED].map(|edits| build_hello(directory.path(), edits));

    println!("open + read + close, median microseconds; the ratio is to hello_ll in the same run");
    let pinned = Pair::start(Placement::Pinned, directory.path(), &hello);
    let Compared { one, other, ratio } = pinned.compare("orc", 1, rounds, operations);
    println!("pinned, 1 client     secretfs {one:6.2}  hello_ll {other:6.2}  ratio {ratio:.3}");
    let (uncached, file) = hello_at(Placement::Pinned, directory.path(), &uncached);
    let Compared { one, other, ratio } = pinned.mode(&file, rounds, operations);
    println!(
        "pinned, 1 client     libfuse, same mode {one:6.2}  hello_ll {other:6.2}  ratio {ratio:.3}"
    );
    drop(uncached);
    let Compared { one, other, ratio } = pinned.keeper(directory.path(), rounds, operations);
    println!("pinned, 1 client     with a keeper {one:6.2}  without {other:6.2}  ratio {ratio:.3}");
    println!("where it goes, pinned:");
    for (work, what) in [("stat", "stat"), ("open", "open + close"), ("read", "pread")] {
        let Compared { one, other, .. } = pinned.compare(work, 1, rounds, operations);
        println!(
            "  {what:18} secretfs {one:6.2}  hello_ll {other:6.2}  difference {:6.2}",
            one - other
        );
    }
    let (fresh, theirs) = pinned.fresh(rounds, operations.min(200));
    println!(
        "  a fresh process each time: secretfs {fresh:6.1}  hello_ll {theirs:6.1} (cat, with its start)"
    );
    drop(pinned);
    let free = Pair::start(Placement::Free, directory.path(), &hello);
    for clients in [1, 2, 4] {
        let Compared { one, other, ratio } = free.compare("orc", clients, rounds, operations);
        println!(
            "free, {clients} clients      secretfs {one:6.2}  hello_ll {other:6.2}  ratio {ratio:.3}"
        );
    }
}

/// The medians of two, in microseconds an operation, and of their ratios in pairs of slices.
struct Compared {
    one: f64,
    other: f64,
    ratio: f64,
}

impl Compared {
    /// Has slices of the two alternate, in turns begun by either.
    fn in_turns(
        rounds: usize,
        mut one: impl FnMut() -> f64,
        mut other: impl FnMut() -> f64,
    ) -> Self {
        let pairs: Vec<_> = (0..rounds)
            .map(|round| {
                if round % 2 == 0 {
                    (one(), other())
                } else {
                    let other = other();
                    (one(), other)
                }
            })
            .collect();
        Self {
            one: median(pairs.iter().map(|pair| pair.0).collect()),
            other: median(pairs.iter().map(|pair| pair.1).collect()),
            ratio: median(pairs.iter().map(|pair| pair.0 / pair.1).collect()),
        }
    }
}

/// Both filesystems, mounted at once.
struct Pair {
    placement: Placement,
    secretfs: (Mounted, PathBuf),
    hello: (Mounted, PathBuf),
}

impl Pair {
    fn start(placement: Placement, directory: &Path, hello: &Path) -> Self {
        let home = tempfile::tempdir_in(directory).unwrap().keep();
        let ours = support::secretfs(placement, &home, &[]);
        let secret = fill(&ours);
        Self { placement, secretfs: (ours, secret), hello: hello_at(placement, directory, hello) }
    }

    /// Compares secretfs with `hello_ll`.
    fn compare(&self, work: &str, clients: usize, rounds: usize, operations: usize) -> Compared {
        let run = |file| self.run(work, file, clients, operations);
        Compared::in_turns(rounds, || run(&self.secretfs.1), || run(&self.hello.1))
    }

    /// Compares libfuse's example in secretfs's mode with the same as it is.
    fn mode(&self, uncached: &Path, rounds: usize, operations: usize) -> Compared {
        let run = |file| self.run("orc", file, 1, operations);
        Compared::in_turns(rounds, || run(uncached), || run(&self.hello.1))
    }

    /// Compares opening, reading and closing with a mount that a keeper keeps and one that nobody does. Neither has the
    /// sandbox, which a server that mounts by itself cannot enter: it has a price of its own.
    fn keeper(&self, directory: &Path, rounds: usize, operations: usize) -> Compared {
        let variables = [("SECRETFS_SANDBOX", "off"), ("SECRETFS_KEEPER", "off")];
        let start = |variables| {
            let home = tempfile::tempdir_in(directory).unwrap().keep();
            let mounted = support::secretfs_with(self.placement, &home, &[], variables);
            (fill(&mounted), mounted)
        };
        let ((kept, _keeper), (alone, _server)) = (start(&variables[..1]), start(&variables));
        let run = |file| self.run("orc", file, 1, operations);
        Compared::in_turns(rounds, || run(&kept), || run(&alone))
    }

    fn fresh(&self, rounds: usize, operations: usize) -> (f64, f64) {
        let cat = |file: &Path| {
            let start = Instant::now();
            for _ in 0..operations {
                let mut command = support::command(Placement::Free, Path::new("/bin/cat"));
                assert!(command.arg(file).stdout(Stdio::null()).status().unwrap().success());
            }
            start.elapsed().as_secs_f64() * 1e6 / operations as f64
        };
        let both: Vec<_> =
            (0..rounds.min(5)).map(|_| (cat(&self.secretfs.1), cat(&self.hello.1))).collect();
        (
            median(both.iter().map(|(ours, _)| *ours).collect()),
            median(both.iter().map(|(_, theirs)| *theirs).collect()),
        )
    }

    fn run(&self, work: &str, file: &Path, clients: usize, operations: usize) -> f64 {
        let myself = std::env::current_exe().unwrap();
        let children: Vec<_> = (0..clients)
            .map(|_| {
                let mut command = support::command(self.placement, &myself);
                command.args(["--client", work, file.to_str().unwrap(), &operations.to_string()]);
                command.stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
        median(
            outputs
                .map(|output| String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
                .collect(),
        )
    }
}

/// Puts the secret in that is read.
fn fill(mounted: &Mounted) -> PathBuf {
    let secret = mounted.mountpoint.join("prod-db-password");
    File::create(&secret).unwrap().write_all(&[b'x'; 100]).unwrap();
    secret
}

/// Does one kind of work again and again, and prints the median of its times.
fn client(arguments: &[String]) {
    let [work, file, operations] = arguments else { return };
    let operations: usize = operations.parse().unwrap();
    let mut buffer = [0; 4096];
    let open = File::open(file).unwrap();
    let mut times = Vec::with_capacity(operations);
    for warm in [true, false] {
        let count = if warm { operations / 10 + 1 } else { operations };
        for _ in 0..count {
            let start = Instant::now();
            match work.as_str() {
                "stat" => drop(black_box(fs::symlink_metadata(file).unwrap())),
                "open" => drop(black_box(File::open(file).unwrap())),
                "read" => drop(black_box(open.read_at(&mut buffer, 0).unwrap())),
                _ => {
                    let mut opened = File::open(file).unwrap();
                    assert!(opened.read(&mut buffer).unwrap() > 0);
                }
            }
            if !warm {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    println!("{}", median(times));
}

/// What makes of `hello_ll` a filesystem whose names, attributes and pages the kernel does not keep.
const UNCACHED: &[(&str, &str)] = &[
    ("e.attr_timeout = 1.0;", "e.attr_timeout = 0;"),
    ("e.entry_timeout = 1.0;", "e.entry_timeout = 0;"),
    ("fuse_reply_open(req, fi);", "fi->direct_io = 1, fuse_reply_open(req, fi);"),
];

fn hello_at(placement: Placement, directory: &Path, program: &Path) -> (Mounted, PathBuf) {
    let mountpoint = tempfile::tempdir_in(directory).unwrap().keep();
    let mut command = support::command(placement, program);
    command.args(["-f", "-s"]).arg(&mountpoint).stdout(Stdio::null());
    let mounted = support::start(command, mountpoint);
    let file = mounted.mountpoint.join("hello");
    (mounted, file)
}

fn build_hello(directory: &Path, edits: &[(&str, &str)]) -> PathBuf {
    let mut source = fs::read_to_string(EXAMPLE).unwrap();
    for (before, after) in edits {
        assert!(source.contains(before), "hello_ll has no `{before}`");
        source = source.replace(before, after);
    }
    let program = tempfile::tempdir_in(directory).unwrap().keep().join("hello_ll");
    let edited = program.with_extension("c");
    File::create(&edited).unwrap().write_all(source.as_bytes()).unwrap();
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "fuse3"]).output().unwrap();
    let flags = String::from_utf8(flags.stdout).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wno-all"]).arg(edited).arg("-o").arg(&program);
    assert!(
        compiler.args(flags.split_whitespace()).status().unwrap().success(),
        "hello_ll does not build"
    );
    program
}
