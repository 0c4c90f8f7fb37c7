//! The model: what the tree is after each operation, in the simplest terms that say so.
//!
//! An operation either succeeds, and then the real one must; or one or several things stand against
//! it, and then the real one must fail with the errno of one of them. A caller without the right is
//! told nothing but that: no other errno stands beside that one.

use std::collections::{BTreeMap, BTreeSet};

use libc::{EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM};

use super::op::{Op, Reply, Seen, Shown, UIDS, View, Which};

/// The reply, or the errnos of all that stands against it.
pub type Expected = Result<Reply, Vec<i32>>;

/// Who may do what, as `op::POLICY` has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
    pub delete: bool,
    pub admin: bool,
}

impl Rights {
    const ALL: Self = Self { read: true, write: true, delete: true, admin: true };
    const NONE: Self = Self { read: false, write: false, delete: false, admin: false };

    fn on(uid: u32, name: &str, shared: bool) -> Self {
        let locked = is_below(name, "app/locked");
        match uid {
            0 => Self::ALL,
            1000 if locked => Self::NONE,
            1000 if is_below(name, "app") => Self { admin: false, ..Self::ALL },
            1000 => Self { read: shared, ..Self::NONE },
            1001 if is_below(name, "pub") => Self { read: true, write: true, ..Self::NONE },
            1001 => Self { read: is_below(name, "app") && depth(name) == 2, ..Self::NONE },
            _ => Self::NONE,
        }
    }

    fn mode(self) -> u32 {
        u32::from(self.read) * 0o400 + u32::from(self.write) * 0o200
    }
}

/// Tells whether some name below a directory could be allowed, by names alone.
fn may_enter(uid: u32, dir: &str) -> bool {
    match uid {
        0 => true,
        1000 => may_write_below(1000, dir),
        1001 => dir == "app" || may_write_below(1001, dir),
        _ => false,
    }
}

fn may_write_below(uid: u32, dir: &str) -> bool {
    let at = |top: &str| dir == top || is_below(dir, top);
    match uid {
        0 => true,
        1000 => at("app") && !at("app/locked"),
        1001 => at("pub"),
        _ => false,
    }
}

fn is_below(name: &str, dir: &str) -> bool {
    name.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn depth(name: &str) -> usize {
    name.split('/').count()
}

/// The directories above a name, the outermost first.
fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

#[derive(Clone, Debug)]
struct Secret {
    versions: Vec<Vec<u8>>,
    shared: bool,
    description: Option<String>,
}

/// Whether requests come through the kernel, which looks up each name on the way first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Front {
    Broker,
    Mount,
}

#[derive(Clone, Debug)]
pub struct Tree {
    front: Front,
    secrets: BTreeMap<String, Secret>,
    made: BTreeSet<String>,
    /// Newest last, with the name that each had.
    trash: Vec<(String, Secret)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Directory,
    Secret,
}

impl Tree {
    pub fn new(front: Front) -> Self {
        Self { front, secrets: BTreeMap::new(), made: BTreeSet::new(), trash: Vec::new() }
    }

    /// Tells whether this operation is one that the model has an answer to. A name that a caller may
    /// not store beside one that it may becomes a scratch file, which is not modelled.
    pub fn covers(&self, uid: u32, op: &Op) -> bool {
        if self.front == Front::Broker {
            return true;
        }
        let (Op::Append { name, .. }
        | Op::Create { name, .. }
        | Op::Truncate { name, .. }
        | Op::TruncateAlone { name }
        | Op::Write { name, .. }
        | Op::WriteAt { name, .. }) = op
        else {
            return true;
        };
        let parent_takes = match name.rsplit_once('/') {
            None => true,
            Some((parent, _)) => may_write_below(uid, parent),
        };
        self.rights(uid, name).write || !parent_takes
    }

    /// Does an operation.
    pub fn act(&mut self, uid: u32, op: &Op) -> Expected {
        match op {
            Op::Append { name, value } => self.write(uid, name, |old| [old, value].concat()),
            Op::Create { name, value } => self.create(uid, name, value),
            Op::Destroy { nth } => self.destroy(uid, *nth),
            Op::Mkdir { name } => self.mkdir(uid, name),
            Op::Read { name, which } => self.read(uid, name, *which),
            Op::Readdir { name } => self.readdir(uid, name),
            Op::Rename { from, to, replace } => self.rename(uid, from, to, *replace),
            Op::Restart => Ok(Reply::Done),
            Op::Restore { nth, to } => self.restore(uid, *nth, to),
            Op::Rmdir { name } => self.rmdir(uid, name),
            Op::SetDescription { name, text } => self.set(
                uid,
                name,
                |rights| rights.write,
                |secret| secret.description = Some(text.clone()),
            ),
            Op::SetShared { name, shared } => {
                self.set(uid, name, |rights| rights.admin, |secret| secret.shared = *shared)
            }
            Op::Stat { name } => self.stat(uid, name),
            Op::Truncate { name, len, value } => self.write(uid, name, |old| {
                let mut new = old.to_vec();
                new.resize(*len, 0);
                [new.as_slice(), value].concat()
            }),
            Op::TruncateAlone { name } => self.truncate_alone(uid, name),
            Op::Unlink { name } => self.unlink(uid, name),
            Op::Write { name, value } => self.write(uid, name, |_| value.clone()),
            Op::WriteAt { name, offset, value } => self.write(uid, name, |old| {
                let mut new = old.to_vec();
                new.resize(old.len().max(offset + value.len()), 0);
                new[*offset..offset + value.len()].copy_from_slice(value);
                new
            }),
            Op::WriteExpecting { name, version, value } => {
                self.write_expecting(uid, name, *version, value)
            }
        }
    }

    /// Returns all that a caller can find.
    pub fn view(&self, uid: u32) -> View {
        let mut view = View { trash: self.trash_of(uid), ..View::default() };
        view.directories
            .extend(self.directories().into_iter().filter(|dir| self.reaches(uid, dir)));
        for (name, secret) in &self.secrets {
            let rights = self.rights(uid, name);
            if rights == Rights::NONE || !above(name).all(|dir| self.knows(uid, dir)) {
                continue;
            }
            view.secrets.push(Seen {
                name: name.clone(),
                shown: shown(secret, rights),
                version: secret.versions.len() as u64,
                description: secret.description.clone(),
                tags: secret.shared.then(|| "shared".to_owned()),
                value: if rights.read { Ok(current(secret)) } else { Err(EACCES) },
            });
        }
        view
    }

    fn rights(&self, uid: u32, name: &str) -> Rights {
        Rights::on(uid, name, self.secrets.get(name).is_some_and(|secret| secret.shared))
    }

    fn directories(&self) -> BTreeSet<String> {
        let names = self.secrets.keys().chain(&self.made).flat_map(|name| above(name));
        names.map(str::to_owned).chain(self.made.iter().cloned()).collect()
    }

    fn kind(&self, path: &str) -> Option<Kind> {
        if self.secrets.contains_key(path) {
            return Some(Kind::Secret);
        }
        self.directories().contains(path).then_some(Kind::Directory)
    }

    /// Tells whether a caller may know that a directory is there.
    fn knows(&self, uid: u32, dir: &str) -> bool {
        let visible = |name: &String| is_below(name, dir) && self.rights(uid, name) != Rights::NONE;
        may_enter(uid, dir) || (uid == 1000 && self.secrets.keys().any(visible))
    }

    fn reaches(&self, uid: u32, dir: &str) -> bool {
        self.knows(uid, dir) && above(dir).all(|dir| self.knows(uid, dir))
    }

    /// Looks a path up whose parents were.
    fn look(&self, uid: u32, path: &str) -> Result<Kind, Vec<i32>> {
        let hidden = Rights::on(uid, path, false) == Rights::NONE && !may_enter(uid, path);
        let none = Err(vec![if hidden { EACCES } else { ENOENT }]);
        match self.kind(path) {
            Some(Kind::Secret) if self.rights(uid, path) != Rights::NONE => Ok(Kind::Secret),
            Some(Kind::Directory) if self.knows(uid, path) => Ok(Kind::Directory),
            _ => none,
        }
    }

    /// What the kernel does before it asks for anything: it looks up the parents.
    fn walk(&self, uid: u32, path: &str) -> Result<(), Vec<i32>> {
        if self.front == Front::Broker {
            return Ok(());
        }
        for dir in above(path) {
            if self.look(uid, dir)? == Kind::Secret {
                return Err(vec![ENOTDIR]);
            }
        }
        Ok(())
    }

    /// The kernel's look at the last name as well.
    fn find(&self, uid: u32, path: &str) -> Result<Option<Kind>, Vec<i32>> {
        self.walk(uid, path)?;
        match self.look(uid, path) {
            Ok(kind) => Ok(Some(kind)),
            Err(errnos) if errnos == [ENOENT] => Ok(None),
            Err(errnos) => Err(errnos),
        }
    }

    fn is_mount(&self) -> bool {
        self.front == Front::Mount
    }

    fn check_place(&self, name: &str) -> Vec<i32> {
        let mut against = Vec::new();
        if self.kind(name) == Some(Kind::Directory) {
            against.push(EISDIR);
        }
        if above(name).any(|path| self.secrets.contains_key(path)) {
            against.push(ENOTDIR);
        }
        against
    }

    /// The kernel's part of an open for writing.
    fn open_for_writing(&self, uid: u32, name: &str) -> Result<(), Vec<i32>> {
        if self.is_mount() && self.find(uid, name)? == Some(Kind::Directory) {
            return Err(vec![EISDIR]);
        }
        if self.rights(uid, name).write { Ok(()) } else { Err(vec![EACCES]) }
    }

    fn write(&mut self, uid: u32, name: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Expected {
        self.open_for_writing(uid, name)?;
        if let Some(secret) = self.secrets.get_mut(name) {
            let new = change(secret.versions.last().unwrap());
            secret.versions.push(new);
            return Ok(Reply::Done);
        }
        done_unless(self.check_place(name))?;
        let versions = vec![change(&[])];
        let secret = Secret { versions, shared: false, description: None };
        self.secrets.insert(name.to_owned(), secret);
        Ok(Reply::Done)
    }

    fn create(&mut self, uid: u32, name: &str, value: &[u8]) -> Expected {
        if self.is_mount() && self.find(uid, name)?.is_some() {
            return Err(vec![EEXIST]);
        }
        if !self.rights(uid, name).write {
            return Err(vec![EACCES]);
        }
        if self.secrets.contains_key(name) {
            return Err(vec![EEXIST]);
        }
        self.write(uid, name, |_| value.to_vec())
    }

    fn write_expecting(&mut self, uid: u32, name: &str, version: u64, value: &[u8]) -> Expected {
        if self.is_mount() {
            match self.find(uid, name)? {
                None => return Err(vec![ENOENT]),
                Some(Kind::Directory) => return Err(vec![EISDIR]),
                Some(Kind::Secret) => {}
            }
        }
        if !self.rights(uid, name).write {
            return Err(vec![EACCES]);
        }
        match self.secrets.get(name) {
            Some(secret) if secret.versions.len() as u64 == version => {
                self.write(uid, name, |_| value.to_vec())
            }
            _ => Err(vec![EBUSY]),
        }
    }

    fn truncate_alone(&self, uid: u32, name: &str) -> Expected {
        self.open_for_writing(uid, name).map(|()| Reply::Done)
    }

    fn set(
        &mut self,
        uid: u32,
        name: &str,
        may: impl FnOnce(Rights) -> bool,
        change: impl FnOnce(&mut Secret),
    ) -> Expected {
        if self.is_mount() {
            match self.find(uid, name)? {
                None => return Err(vec![ENOENT]),
                Some(Kind::Directory) => return Err(vec![EPERM]),
                Some(Kind::Secret) => {}
            }
        }
        if !may(self.rights(uid, name)) {
            return Err(vec![EACCES]);
        }
        change(self.secrets.get_mut(name).ok_or(vec![ENOENT])?);
        Ok(Reply::Done)
    }

    fn read(&self, uid: u32, name: &str, which: Which) -> Expected {
        if self.is_mount() {
            match self.find(uid, name)? {
                None => return Err(vec![ENOENT]),
                Some(Kind::Directory) => return Err(vec![EISDIR]),
                Some(Kind::Secret) => {}
            }
        }
        let versions = self.secrets.get(name).map(|secret| &secret.versions);
        let len = versions.map_or(0, Vec::len);
        let index = match which {
            Which::Current => len.checked_sub(1),
            Which::Number(version) => usize::try_from(version).unwrap().checked_sub(1),
            Which::Previous => len.checked_sub(2),
        };
        let value = index.and_then(|index| versions?.get(index));
        if !self.rights(uid, name).read {
            // The kernel looks a view up before it opens it: who knows of the secret knows its versions.
            let missing = self.is_mount() && value.is_none();
            return Err(vec![if missing { ENOENT } else { EACCES }]);
        }
        value.cloned().map(Reply::Bytes).ok_or(vec![ENOENT])
    }

    fn stat(&self, uid: u32, name: &str) -> Expected {
        self.walk(uid, name)?;
        Ok(Reply::Stat(match self.look(uid, name)? {
            Kind::Directory => Shown { directory: true, size: 0, mode: 0 },
            Kind::Secret => shown(&self.secrets[name], self.rights(uid, name)),
        }))
    }

    fn readdir(&self, uid: u32, dir: &str) -> Expected {
        self.walk(uid, dir)?;
        if self.look(uid, dir)? == Kind::Secret {
            return Err(vec![ENOTDIR]);
        }
        let leaf = |path: &String| {
            let rest = path.strip_prefix(dir)?.strip_prefix('/')?;
            (!rest.contains('/')).then(|| rest.to_owned())
        };
        let secrets = self.secrets.keys().filter(|name| self.rights(uid, name) != Rights::NONE);
        let directories = self.directories().into_iter().filter(|dir| self.knows(uid, dir));
        let mut names: Vec<_> =
            secrets.cloned().chain(directories).filter_map(|path| leaf(&path)).collect();
        names.sort();
        Ok(Reply::Names(names))
    }

    fn mkdir(&mut self, uid: u32, path: &str) -> Expected {
        if self.is_mount() && self.find(uid, path)?.is_some() {
            return Err(vec![EEXIST]);
        }
        if !may_write_below(uid, path) {
            return Err(vec![EACCES]);
        }
        let mut against = self.check_place(path);
        if self.kind(path).is_some() {
            against = vec![EEXIST];
        }
        done_unless(against)?;
        self.made.insert(path.to_owned());
        Ok(Reply::Done)
    }

    fn rmdir(&mut self, uid: u32, path: &str) -> Expected {
        if self.is_mount() {
            match self.find(uid, path)? {
                None => return Err(vec![ENOENT]),
                Some(Kind::Secret) => return Err(vec![ENOTDIR]),
                Some(Kind::Directory) => {}
            }
        }
        if !may_write_below(uid, path) {
            return Err(vec![EACCES]);
        }
        match self.kind(path) {
            None => Err(vec![ENOENT]),
            Some(Kind::Secret) => Err(vec![ENOTDIR]),
            Some(Kind::Directory) if !self.is_empty(path) => Err(vec![ENOTEMPTY]),
            Some(Kind::Directory) => {
                self.made.remove(path);
                Ok(Reply::Done)
            }
        }
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.secrets.keys().chain(&self.made).any(|path| is_below(path, dir))
    }

    fn unlink(&mut self, uid: u32, name: &str) -> Expected {
        if self.is_mount() {
            match self.find(uid, name)? {
                None => return Err(vec![ENOENT]),
                Some(Kind::Directory) => return Err(vec![EISDIR]),
                Some(Kind::Secret) => {}
            }
        }
        if !self.rights(uid, name).delete {
            return Err(vec![EACCES]);
        }
        let secret = self.secrets.remove(name).ok_or(vec![ENOENT])?;
        self.trash.push((name.to_owned(), secret));
        Ok(Reply::Done)
    }

    fn rename(&mut self, uid: u32, from: &str, to: &str, replace: bool) -> Expected {
        if self.is_mount() {
            self.walk(uid, from)?;
            self.walk(uid, to)?;
            let source = self.look(uid, from)?;
            let target = self.find(uid, to)?;
            if target.is_some() && !replace {
                return Err(vec![EEXIST]);
            }
            if from == to {
                return Ok(Reply::Done);
            }
            let against = match (source, target) {
                _ if is_below(to, from) => vec![EINVAL, EEXIST, ENOTDIR],
                _ if is_below(from, to) => vec![ENOTEMPTY, EISDIR],
                (Kind::Directory, Some(Kind::Secret)) => vec![ENOTDIR],
                (Kind::Secret, Some(Kind::Directory)) => vec![EISDIR],
                _ => vec![],
            };
            done_unless(against)?;
        }
        match self.kind(from) {
            Some(Kind::Directory) => self.rename_directory(uid, from, to, replace),
            _ => self.rename_secret(uid, from, to, replace),
        }
    }

    fn rename_secret(&mut self, uid: u32, from: &str, to: &str, replace: bool) -> Expected {
        if !self.rights(uid, from).delete {
            return Err(vec![EACCES]);
        }
        let secret = self.secrets.get(from).cloned().ok_or(vec![ENOENT])?;
        let shared = self.secrets.get(to).unwrap_or(&secret).shared;
        if !Rights::on(uid, to, shared).write {
            return Err(vec![EACCES]);
        }
        if from == to {
            return Ok(Reply::Done);
        }
        if self.secrets.contains_key(to) && !replace {
            return Err(vec![EEXIST]);
        }
        if let Some(target) = self.secrets.get_mut(to) {
            target.versions.push(current(&secret));
            self.trash.push((from.to_owned(), self.secrets.remove(from).unwrap()));
            return Ok(Reply::Done);
        }
        done_unless(self.check_place(to))?;
        self.secrets.remove(from);
        self.secrets.insert(to.to_owned(), secret);
        Ok(Reply::Done)
    }

    fn rename_directory(&mut self, uid: u32, from: &str, to: &str, replace: bool) -> Expected {
        if from == to {
            return Ok(Reply::Done);
        }
        let moved = |path: &str| format!("{to}{}", &path[from.len()..]);
        let secrets: Vec<String> =
            self.secrets.keys().filter(|name| is_below(name, from)).cloned().collect();
        let made: Vec<String> = self
            .made
            .iter()
            .filter(|path| *path == from || is_below(path, from))
            .cloned()
            .collect();
        let mut against = Vec::new();
        if is_below(to, from) {
            against.push(EINVAL);
        }
        match self.kind(to) {
            None => against.extend(self.check_place(to)),
            Some(Kind::Secret) => against.push(ENOTDIR),
            Some(Kind::Directory) if !replace => against.push(EEXIST),
            Some(Kind::Directory) if !self.is_empty(to) => against.push(ENOTEMPTY),
            Some(Kind::Directory) => {}
        }
        let may_move = |name: &String| {
            let target = Rights::on(uid, &moved(name), self.secrets[name].shared);
            self.rights(uid, name).delete && target.write
        };
        let may_make =
            |path: &String| may_write_below(uid, path) && may_write_below(uid, &moved(path));
        if !secrets.iter().all(may_move) || !made.iter().all(may_make) {
            against.push(EACCES);
        }
        done_unless(against)?;
        self.made.remove(to);
        for name in secrets {
            let secret = self.secrets.remove(&name).unwrap();
            self.secrets.insert(moved(&name), secret);
        }
        for path in made {
            self.made.remove(&path);
            self.made.insert(moved(&path));
        }
        Ok(Reply::Done)
    }

    /// Returns the positions of what a caller sees in the trash, newest first.
    fn trashed(&self, uid: u32) -> Vec<usize> {
        let mine = |at: &usize| {
            let (name, secret) = &self.trash[*at];
            Rights::on(uid, name, secret.shared).delete
        };
        (0..self.trash.len()).rev().filter(mine).collect()
    }

    fn trash_of(&self, uid: u32) -> Vec<String> {
        self.trashed(uid).into_iter().map(|at| self.trash[at].0.clone()).collect()
    }

    fn restore(&mut self, uid: u32, nth: usize, to: &str) -> Expected {
        let at = self.trashed(uid).get(nth).copied().ok_or(vec![ENOENT])?;
        if self.is_mount() && self.find(uid, to)? == Some(Kind::Directory) {
            return Err(vec![EISDIR]);
        }
        let (_, secret) = &self.trash[at];
        if !Rights::on(uid, to, secret.shared).write {
            return Err(vec![EACCES]);
        }
        if self.kind(to).is_some() {
            return Err(vec![EEXIST]);
        }
        done_unless(self.check_place(to))?;
        let (_, secret) = self.trash.remove(at);
        self.secrets.insert(to.to_owned(), secret);
        Ok(Reply::Done)
    }

    fn destroy(&mut self, uid: u32, nth: usize) -> Expected {
        let at = self.trashed(uid).get(nth).copied().ok_or(vec![ENOENT])?;
        self.trash.remove(at);
        Ok(Reply::Done)
    }
}

fn done_unless(against: Vec<i32>) -> Result<(), Vec<i32>> {
    if against.is_empty() { Ok(()) } else { Err(against) }
}

fn current(secret: &Secret) -> Vec<u8> {
    secret.versions.last().unwrap().clone()
}

fn shown(secret: &Secret, rights: Rights) -> Shown {
    Shown { directory: false, size: current(secret).len() as u64, mode: rights.mode() }
}

/// A real tree, behind whichever front.
pub trait Real {
    fn act(&mut self, uid: u32, op: &Op) -> Reply;
    fn view(&mut self, uid: u32) -> View;
    /// Ends it and starts it again over the same store.
    fn restart(&mut self);
}

/// How many operations were done, and how many of them succeeded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub operations: usize,
    pub succeeded: usize,
}

/// Runs a program on both and says where they part.
pub fn compare(
    model: &mut Tree,
    real: &mut dyn Real,
    program: &[(u32, Op)],
) -> Result<Done, String> {
    let mut done = Done::default();
    for (step, (uid, op)) in program.iter().enumerate() {
        if !model.covers(*uid, op) {
            continue;
        }
        let expected = model.act(*uid, op);
        done.operations += 1;
        done.succeeded += usize::from(expected.is_ok());
        let reply = match op {
            Op::Restart => {
                real.restart();
                Reply::Done
            }
            op => real.act(*uid, op),
        };
        let fits = match (&expected, &reply) {
            (Err(against), Reply::Errno(errno)) => against.contains(errno),
            (Err(_), _) => false,
            (Ok(expected), reply) => expected == reply,
        };
        if !fits {
            return Err(format!(
                "step {step}, uid {uid}, {op:?}: expected {expected:?}, got {reply:?}"
            ));
        }
        for uid in UIDS {
            let (expected, got) = (model.view(uid), real.view(uid));
            if expected != got {
                return Err(format!(
                    "after step {step}, {op:?}: uid {uid} should see\n{expected:#?}\nand sees\n{got:#?}"
                ));
            }
        }
    }
    Ok(done)
}
