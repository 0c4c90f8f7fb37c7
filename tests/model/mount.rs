//! The real tree behind a real mount: one daemon, and one process a uid that does what it is sent.
//!
//! The process is this test program again, running the one test `serves_operations_when_asked`. It
//! takes operations as lines of JSON and answers with lines of JSON, so that no fork is paid for one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::common::{World, close, list, number, read};
use super::op::{Op, POLICY, Reply, Seen, Shown, UIDS, View, Which};
use super::tree::Real;

/// Names the uid and the mount that a worker serves.
const WORKER: &str = "SECRETFS_TEST_WORKER";

pub struct Mounted {
    world: World,
    workers: Vec<Worker>,
}

#[derive(Deserialize, Serialize)]
enum Order {
    Act(Op),
    View,
}

#[derive(Deserialize, Serialize)]
enum Answer {
    Reply(Reply),
    View(View),
}

struct Worker {
    uid: u32,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Mounted {
    pub fn start() -> Option<Self> {
        let world = World::with(POLICY, "")?;
        let workers = UIDS.iter().map(|uid| Worker::start(*uid, world.mountpoint())).collect();
        Some(Self { world, workers })
    }

    /// Leaves nothing in the tree and nothing in the trash.
    pub fn clear(&mut self) {
        fn clear(dir: &Path) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    clear(&entry.path());
                    // Gone with its last secret, unless it was made.
                    let _ = fs::remove_dir(entry.path());
                } else {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        clear(&self.world.path(""));
        for entry in fs::read_dir(self.world.path(".control/trash")).unwrap() {
            // Each removal may give another entry its name.
            let _ = fs::remove_file(entry.unwrap().path());
        }
        while let Some(entry) = self.world.list(".control/trash").first() {
            fs::remove_file(self.world.path(&format!(".control/trash/{entry}"))).unwrap();
        }
        assert_eq!(self.view(0), View::default());
    }

    fn ask(&mut self, uid: u32, order: &Order) -> Answer {
        let worker = self.workers.iter_mut().find(|worker| worker.uid == uid).unwrap();
        worker.ask(order)
    }
}

impl Real for Mounted {
    fn act(&mut self, uid: u32, op: &Op) -> Reply {
        match self.ask(uid, &Order::Act(op.clone())) {
            Answer::Reply(reply) => reply,
            Answer::View(_) => unreachable!(),
        }
    }

    fn view(&mut self, uid: u32) -> View {
        match self.ask(uid, &Order::View) {
            Answer::View(view) => view,
            Answer::Reply(reply) => panic!("{reply:?}"),
        }
    }

    fn restart(&mut self) {
        self.world.kill_and_restart();
    }
}

impl Worker {
    fn start(uid: u32, mount: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "serves_operations_when_asked", "--nocapture"])
            .env(WORKER, format!("{uid} {mount}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { uid, child, orders, answers }
    }

    fn ask(&mut self, order: &Order) -> Answer {
        let mut line = serde_json::to_string(order).unwrap();
        line.push('\n');
        self.orders.write_all(line.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "a worker has ended");
            // The test runner says a line of its own first.
            if let Some(start) = line.find('{') {
                return serde_json::from_str(&line[start..]).unwrap();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves operations on standard input, if this process was started for that.
pub fn serve() {
    let Ok(order) = std::env::var(WORKER) else { return };
    let (uid, mount) = order.split_once(' ').unwrap();
    let (uid, mount) = (uid.parse().unwrap(), PathBuf::from(mount));
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).unwrap();
    setresgid(group, group, group).unwrap();
    setresuid(user, user, user).unwrap();
    let mut answers = io::stdout();
    for order in io::stdin().lines() {
        let answer = match serde_json::from_str(&order.unwrap()).unwrap() {
            Order::Act(op) => {
                let tried = act(&mount, &op);
                Answer::Reply(tried.unwrap_or_else(|err| Reply::Errno(number(&err))))
            }
            Order::View => Answer::View(view(&mount)),
        };
        let mut line = serde_json::to_string(&answer).unwrap();
        line.push('\n');
        answers.write_all(line.as_bytes()).unwrap();
        answers.flush().unwrap();
    }
}

fn act(mount: &Path, op: &Op) -> io::Result<Reply> {
    let path = |name: &str| mount.join(name);
    let done = Ok(Reply::Done);
    match op {
        Op::Append { name, value } => {
            written(path(name), OpenOptions::new().append(true).create(true), |file| {
                (&*file).write_all(value)
            })
        }
        Op::Create { name, value } => {
            written(path(name), OpenOptions::new().write(true).create_new(true), |file| {
                (&*file).write_all(value)
            })
        }
        Op::Destroy { nth } => fs::remove_file(trash_entry(mount, *nth)?).and(done),
        Op::Mkdir { name } => fs::create_dir(path(name)).and(done),
        Op::Read { name, which } => {
            let name = match which {
                Which::Current => name.clone(),
                Which::Number(version) => format!("{name}@{version}"),
                Which::Previous => format!("{name}@previous"),
            };
            fs::read(path(&name)).map(Reply::Bytes)
        }
        Op::Readdir { name } => {
            list(&path(name)).map(Reply::Names).map_err(io::Error::from_raw_os_error)
        }
        Op::Rename { from, to, replace } => {
            let flags = if *replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
            renameat2(AT_FDCWD, &path(from), AT_FDCWD, &path(to), flags)?;
            done
        }
        Op::Restart => unreachable!(),
        Op::Restore { nth, to } => fs::rename(trash_entry(mount, *nth)?, path(to)).and(done),
        Op::Rmdir { name } => fs::remove_dir(path(name)).and(done),
        Op::SetDescription { name, text } => {
            xattr::set(path(name), "user.secretfs.description", text.as_bytes()).and(done)
        }
        Op::SetShared { name, shared } => {
            let tags = if *shared { "shared" } else { "" };
            xattr::set(path(name), "user.secretfs.tags", tags.as_bytes()).and(done)
        }
        Op::Stat { name } => fs::metadata(path(name)).map(|found| Reply::Stat(shown(&found))),
        Op::Truncate { name, len, value } => written(
            path(name),
            OpenOptions::new().write(true).create(true).truncate(false),
            |file| {
                file.set_len(*len as u64)?;
                file.write_all_at(value, *len as u64)
            },
        ),
        Op::TruncateAlone { name } => {
            written(path(name), OpenOptions::new().write(true).create(true).truncate(true), |_| {
                Ok(())
            })
        }
        Op::Unlink { name } => fs::remove_file(path(name)).and(done),
        Op::Write { name, value } => written(
            path(name),
            OpenOptions::new().write(true).create(true).truncate(true),
            |file| (&*file).write_all(value),
        ),
        Op::WriteAt { name, offset, value } => written(
            path(name),
            OpenOptions::new().write(true).create(true).truncate(false),
            |file| file.write_all_at(value, *offset as u64),
        ),
        Op::WriteExpecting { name, version, value } => {
            let path = path(&format!("{name}@expect={version}"));
            written(path, OpenOptions::new().write(true).custom_flags(libc::O_TRUNC), |file| {
                (&*file).write_all(value)
            })
        }
    }
}

fn written(
    path: PathBuf,
    options: &OpenOptions,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<Reply> {
    let file = options.open(path)?;
    write(&file)?;
    close(file).map_err(io::Error::from_raw_os_error)?;
    Ok(Reply::Done)
}

/// Returns the nth entry of the caller's trash, in the order in which it is listed.
fn trash_entry(mount: &Path, nth: usize) -> io::Result<PathBuf> {
    let entries: Vec<_> = trash(mount)?;
    let entry = entries.get(nth).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    Ok(mount.join(".control/trash").join(entry))
}

fn trash(mount: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(mount.join(".control/trash"))?;
    entries.map(|entry| Ok(entry?.file_name().into_string().unwrap())).collect()
}

fn shown(found: &fs::Metadata) -> Shown {
    if found.is_dir() {
        return Shown { directory: true, size: 0, mode: 0 };
    }
    assert_eq!(found.uid(), nix::unistd::geteuid().as_raw());
    Shown { directory: false, size: found.size(), mode: found.mode() & 0o7777 }
}

fn view(mount: &Path) -> View {
    let mut view = View::default();
    walk(mount, mount, &mut view);
    view.directories.sort();
    view.secrets.sort_by(|a, b| a.name.cmp(&b.name));
    let plain = |entry: String| entry.split('~').next().unwrap().replace(':', "/");
    view.trash = trash(mount).unwrap().into_iter().map(plain).collect();
    view
}

fn walk(mount: &Path, dir: &Path, view: &mut View) {
    for leaf in list(dir).unwrap() {
        if leaf.starts_with('.') {
            continue;
        }
        let path = dir.join(leaf);
        let name = path.strip_prefix(mount).unwrap().to_str().unwrap().to_owned();
        let found = fs::metadata(&path).unwrap();
        if found.is_dir() {
            view.directories.push(name);
            walk(mount, &path, view);
            continue;
        }
        let attribute = |attribute: &str| {
            let value = xattr::get(&path, format!("user.secretfs.{attribute}")).unwrap()?;
            Some(String::from_utf8(value).unwrap())
        };
        view.secrets.push(Seen {
            name,
            shown: shown(&found),
            version: attribute("version").unwrap().parse().unwrap(),
            description: attribute("description"),
            tags: attribute("tags"),
            value: read(&path),
        });
    }
}
