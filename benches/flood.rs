//! What a hostile user's flood does to an honest reader, beside the same flood on a tmpfs.
//!
//! `cargo bench --bench flood [-- --smoke]`, as root. stress-ng's filesystem stressors and loops of
//! opens run as one uid, in turns on the mount and on a tmpfs; meanwhile another uid opens, reads and
//! closes a secret of its own. Printed are its latencies, their ratio, and the daemon's memory.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures, and stops when something is wrong"
)]

mod support;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Mounted, Placement};

const HOSTILE: u32 = 61_501;
const HONEST: u32 = 61_502;

const POLICY: &str = r#"
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]
[[binding]]
role = "admin"
uid = [0]
[[role]]
name = "flood"
allow = [{ names = ["flood/**"], levels = ["read", "write", "delete"] }]
[[binding]]
role = "flood"
uid = [61501]
[[role]]
name = "honest"
allow = [{ names = ["honest"], levels = ["read"] }]
[[binding]]
role = "honest"
uid = [61502]
"#;

/// Stressors of stress-ng that work on files and directories below a path, two processes each.
const STRESSORS: [&str; 9] =
    ["access", "chmod", "dentry", "dir", "getdent", "open", "rename", "utime", "xattr"];

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("reader") => read_and_print(Path::new(&arguments.next().unwrap())),
        Some("flood") => flood(Path::new(&arguments.next().unwrap())),
        Some("--bench") | None => measure(10, Duration::from_secs(12)),
        Some("--smoke") => measure(1, Duration::from_secs(1)),
        Some(other) => panic!("unknown argument {other}"),
    }
}

fn measure(rounds: usize, length: Duration) {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), PermissionsExt::from_mode(0o711)).unwrap();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home.path().join("config/secretfs"))
        .unwrap();
    fs::File::create(home.path().join("config/secretfs/policy.toml"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, POLICY.as_bytes()))
        .unwrap();
    let mounted = support::secretfs(Placement::Free, home.path(), &[]);
    let secret = mounted.mountpoint.join("honest");
    store(&secret, b"the honest one's value");
    fs::create_dir(mounted.mountpoint.join("flood")).unwrap();
    store(&mounted.mountpoint.join("flood/own"), b"the hostile one's value");
    let tmpfs = Tmpfs::mount(&home.path().join("tmpfs"));

    let quiet = latencies(&secret, length / 4);
    let idle_kib = memory_kib(&mounted);
    let (mut beside, mut under) = (Vec::new(), Vec::new());
    let mut peak_kib = idle_kib;
    for _ in 0..rounds {
        let other = Flood::start(&tmpfs.0.join("flood"), length);
        beside.extend(latencies(&secret, length));
        drop(other);
        let ours = Flood::start(&mounted.mountpoint.join("flood"), length);
        under.extend(latencies(&secret, length));
        peak_kib = peak_kib.max(memory_kib(&mounted));
        drop(ours);
    }
    println!("| honest reader, us | p50 | p99 | longest |\n|---|---|---|---|");
    print_row("alone", quiet);
    let beside = print_row("flood on a tmpfs", beside);
    let under = print_row("flood on the mount", under);
    println!("\np99 under the flood / beside the same flood on a tmpfs: {:.2}", under / beside);
    println!("the daemon's memory: {} KiB before, {} KiB at most", idle_kib, peak_kib);
    let stuck = stuck_threads(&mounted);
    assert!(stuck.is_empty(), "threads in uninterruptible sleep: {stuck:?}");
}

/// Prints percentiles and returns the 99th.
fn print_row(name: &str, mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let at = |share: f64| figures[((figures.len() - 1) as f64 * share) as usize];
    println!("| {name} | {:.0} | {:.0} | {:.0} |", at(0.5), at(0.99), at(1.0));
    at(0.99)
}

/// Has the honest reader read for a while, and returns its latencies in microseconds.
fn latencies(secret: &Path, length: Duration) -> Vec<f64> {
    let mut reader = as_user(HONEST, "reader", secret);
    reader.env("FLOOD_MILLISECONDS", length.as_millis().to_string());
    let output = reader.output().unwrap();
    assert!(output.status.success(), "the honest reader failed: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn read_and_print(secret: &Path) {
    let milliseconds = std::env::var("FLOOD_MILLISECONDS").unwrap().parse().unwrap();
    let (start, length) = (Instant::now(), Duration::from_millis(milliseconds));
    let mut taken = Vec::new();
    while start.elapsed() < length {
        let before = Instant::now();
        let value = fs::read(secret).unwrap();
        taken.push(before.elapsed());
        assert_eq!(value, b"the honest one's value");
    }
    taken.iter().for_each(|taken| println!("{:.1}", taken.as_secs_f64() * 1e6));
}

/// Opens and reads, creates, writes and removes, and asks for what is refused, for ever.
fn flood(directory: &Path) {
    let (own, other) = (directory.join("own"), directory.join("../honest"));
    let mine = directory.join(format!("made-{}", std::process::id()));
    loop {
        for _ in 0..64 {
            drop(fs::read(&own));
            drop(fs::read(&other));
        }
        drop(
            fs::File::create(&mine).and_then(|mut file| std::io::Write::write_all(&mut file, b"x")),
        );
        drop(fs::remove_file(&mine));
    }
}

/// The hostile user's processes; they are ended when this is dropped.
struct Flood(Vec<Child>);

impl Flood {
    fn start(directory: &Path, length: Duration) -> Self {
        let mut stress = Command::new("setpriv");
        stress.args(user(HOSTILE)).args(["stress-ng", "--quiet", "--temp-path"]).arg(directory);
        for stressor in STRESSORS {
            stress.arg(format!("--{stressor}")).arg("2");
        }
        stress.arg("--timeout").arg(format!("{}s", length.as_secs().max(1) + 1));
        let mut commands = vec![stress];
        commands.extend((0..8).map(|_| as_user(HOSTILE, "flood", directory)));
        let start = |mut command: Command| {
            command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        Self(commands.into_iter().map(start).collect())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let pids = self.0.iter().map(|child| child.id().to_string());
        // stress-ng ends its own processes on SIGTERM.
        drop(Command::new("kill").args(pids).stderr(Stdio::null()).status());
        self.0.iter_mut().for_each(|child| drop(child.wait()));
    }
}

fn as_user(uid: u32, task: &str, path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(user(uid)).arg(std::env::current_exe().unwrap()).arg(task).arg(path);
    command
}

fn user(uid: u32) -> [String; 3] {
    [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]
}

fn store(path: &Path, value: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    std::io::Write::write_all(&mut file, value).unwrap();
}

/// A tmpfs in which the hostile user has a directory.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "flood"]).arg(path).status().unwrap();
        assert!(status.success());
        let directory = path.join("flood");
        fs::create_dir(&directory).unwrap();
        store(&directory.join("own"), b"the hostile one's value");
        store(&path.join("honest"), b"the honest one's value");
        chown(&directory, Some(HOSTILE), Some(HOSTILE)).unwrap();
        Self(path.into())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Returns the pid of the process that serves: the one that was started is its keeper.
fn server(mounted: &Mounted) -> u32 {
    let status = fs::read_to_string(mounted.mountpoint.join(".control/status")).unwrap();
    let pid = status.lines().find_map(|line| line.strip_prefix("pid: "));
    pid.unwrap().parse().unwrap()
}

fn memory_kib(mounted: &Mounted) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server(mounted))).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn stuck_threads(mounted: &Mounted) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server(mounted))).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')))
        .collect()
}
