//! A service that keeps secrets in memory, and fails as a test likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use secretfs::backend::{
    Abilities, Backend, BackendError, Deadline, Description, Expect, Fetched, Page, PageToken,
    Probe, Put, Result, Version, VersionId, Which,
};
use secretfs::model::Timestamp;
use secretfs::system::SecretBytes;

/// How it fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    Denied,
    Down,
    Failed,
    Invalid,
    /// It answers as it should, but only when its time is over.
    Late,
    NotFound,
    Slow,
    Throttled,
    Unauthenticated,
}

/// How one put fails, or is not alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PutFault {
    /// Somebody else's version comes right before.
    AfterTheirs,
    Denied,
    /// It is done, and the answer is lost.
    Done,
    /// No answer comes, and it is done right before so many calls later, if it still can be.
    DoneBefore(usize),
    /// It is not done, and the answer is lost.
    Lost,
}

/// What somebody else makes.
pub const THEIRS: &[u8] = b"theirs";

/// The service.
pub struct Service {
    state: Mutex<State>,
    watch: Mutex<Option<Watch>>,
    let_go: Condvar,
    after_put: OnceLock<AfterPut>,
    pub abilities: Abilities,
    /// Lists say when secrets were changed, and may be so far behind.
    pub tells_changes: Option<Duration>,
}

#[derive(Clone, Default)]
struct State {
    secrets: BTreeMap<String, Vec<Vec<u8>>>,
    deleted: BTreeSet<String>,
    failure: Option<Failure>,
    held: bool,
    lists_denied: bool,
    /// Each list has another page, under the same name or under new ones.
    endless: Option<Endless>,
    /// When each secret was changed, by a count of changes.
    changed: BTreeMap<String, i64>,
    changes: i64,
    /// Nobody says what it can do.
    dumb: bool,
    put_faults: VecDeque<PutFault>,
    /// After the next put nobody is there.
    goes_down: bool,
    /// Puts that are done when so many calls have come.
    late: Vec<Late>,
    calls: BTreeMap<&'static str, u64>,
}

/// A put that is done late.
#[derive(Clone)]
struct Late {
    calls: usize,
    name: String,
    value: Vec<u8>,
    expect: Option<Expect>,
}

/// How a list has no end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endless {
    NewPages,
    SamePage,
}

/// What is called when a value was put, before that is answered.
type AfterPut = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What is called before and after each get and put.
type Watch = Box<dyn FnMut() + Send>;

/// Names in one page.
const PAGE: usize = 3;

impl Service {
    pub fn new() -> Self {
        let abilities = Abilities {
            versions: true,
            compare_and_set: true,
            restore: true,
            ..Abilities::default()
        };
        let (let_go, after_put) = (Condvar::new(), OnceLock::new());
        let (state, watch) = (Mutex::default(), Mutex::default());
        Self { state, watch, let_go, after_put, abilities, tells_changes: None }
    }

    /// Returns one that has the same, and nothing of what was to fail.
    pub fn copy(&self) -> Self {
        let mut state = self.state.lock().clone();
        (state.held, state.goes_down) = (false, false);
        state.put_faults.clear();
        let Self { abilities, tells_changes, .. } = *self;
        Self { state: Mutex::new(state), abilities, tells_changes, ..Self::new() }
    }

    /// Has the next puts fail, each in its way.
    pub fn fail_puts(&self, faults: &[PutFault]) {
        self.state.lock().put_faults = faults.iter().copied().collect();
    }

    /// Has nobody be there after the next put.
    pub fn go_down_after_put(&self) {
        self.state.lock().goes_down = true;
    }

    /// Calls something before and after each get and put.
    pub fn watch(&self, watch: Option<Watch>) {
        *self.watch.lock() = watch;
    }

    fn look(&self) {
        if let Some(watch) = &mut *self.watch.lock() {
            watch();
        }
    }

    /// Stores a version as somebody else does.
    pub fn set(&self, name: &str, value: &[u8]) {
        let mut state = self.state.lock();
        state.secrets.entry(name.to_owned()).or_default().push(value.to_vec());
        state.note_change(name);
    }

    /// Stores a version in the same second as the one before.
    pub fn set_at_once(&self, name: &str, value: &[u8]) {
        self.state.lock().secrets.get_mut(name).unwrap().push(value.to_vec());
    }

    /// Removes a secret as somebody else does.
    pub fn unset(&self, name: &str) {
        self.state.lock().secrets.remove(name);
    }

    pub fn value(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        if state.deleted.contains(name) {
            return None;
        }
        state.secrets.get(name)?.last().cloned()
    }

    /// Every version's value, oldest first.
    pub fn history(&self, name: &str) -> Vec<Vec<u8>> {
        self.state.lock().secrets.get(name).cloned().unwrap_or_default()
    }

    pub fn fail(&self, failure: Option<Failure>) {
        self.state.lock().failure = failure;
    }

    /// Lets nobody list from now on.
    pub fn deny_lists(&self) {
        self.state.lock().lists_denied = true;
    }

    pub fn list_without_end(&self, endless: Option<Endless>) {
        self.state.lock().endless = endless;
    }

    /// Has nobody know, or somebody again, what it can do.
    pub fn keep_abilities_secret(&self, dumb: bool) {
        self.state.lock().dumb = dumb;
    }

    /// Calls something once a value was put, before that is answered.
    pub fn after_put(&self, call: impl Fn(&[u8]) + Send + Sync + 'static) {
        assert!(self.after_put.set(Box::new(call)).is_ok());
    }

    /// Has each call wait until it is let go.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    pub fn let_go(&self) {
        self.state.lock().held = false;
        self.let_go.notify_all();
    }

    /// How often something was asked for.
    pub fn calls(&self, what: &str) -> u64 {
        self.state.lock().calls.get(what).copied().unwrap_or(0)
    }

    /// How often anything was.
    pub fn all_calls(&self) -> u64 {
        self.state.lock().calls.values().sum()
    }

    fn enter(
        &self,
        what: &'static str,
        deadline: Deadline,
    ) -> Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        *state.calls.entry(what).or_default() += 1;
        while state.held {
            self.let_go.wait(&mut state);
        }
        state.do_late();
        let said = |text: &str| text.to_owned();
        match state.failure {
            None => Ok(state),
            Some(Failure::Denied) => Err(BackendError::Denied(said("no such right"))),
            Some(Failure::Down) => Err(BackendError::Unreachable(said("connection refused"))),
            Some(Failure::Failed) => Err(BackendError::Failed(said("500"))),
            Some(Failure::Invalid) => Err(BackendError::Invalid(said("no such name"))),
            Some(failure @ (Failure::Late | Failure::Slow)) => {
                drop(state);
                while let Ok(left) = deadline.left() {
                    std::thread::sleep(left);
                }
                if failure == Failure::Slow {
                    return Err(BackendError::TimedOut);
                }
                Ok(self.state.lock())
            }
            Some(Failure::NotFound) => Err(BackendError::NotFound),
            Some(Failure::Throttled) => {
                Err(BackendError::Throttled { retry_after: Some(Duration::from_secs(20)) })
            }
            Some(Failure::Unauthenticated) => Err(BackendError::Unauthenticated(said("expired"))),
        }
    }
}

impl State {
    fn note_change(&mut self, name: &str) {
        self.changes += 1;
        self.changed.insert(name.to_owned(), self.changes);
    }

    /// Does what is late, where nothing has come before it.
    fn do_late(&mut self) {
        let mut due = Vec::new();
        for late in &mut self.late {
            late.calls -= 1;
        }
        self.late.retain(|late| {
            if late.calls == 0 {
                due.push(late.clone());
            }
            late.calls > 0
        });
        for Late { name, value, expect, .. } in due {
            drop(self.add(&name, &value, expect.as_ref()));
        }
    }

    /// Makes a version, if the current one is what is expected. Returns how many there are by then.
    fn add(&mut self, name: &str, value: &[u8], expect: Option<&Expect>) -> Result<usize> {
        // What is deleted still counts, as it does for Vault.
        let current = self.secrets.get(name).map(Vec::len);
        let expected = match expect {
            None => true,
            Some(Expect::Absent) => current.is_none(),
            Some(Expect::Version(id)) => current.map(version).as_ref() == Some(id),
        };
        if !expected {
            return Err(BackendError::Conflict);
        }
        self.deleted.remove(name);
        let versions = self.secrets.entry(name.to_owned()).or_default();
        versions.push(value.to_vec());
        let count = versions.len();
        self.note_change(name);
        Ok(count)
    }

    fn versions(&self, name: &str) -> Result<&Vec<Vec<u8>>> {
        if self.deleted.contains(name) {
            return Err(BackendError::NotFound);
        }
        self.secrets.get(name).ok_or(BackendError::NotFound)
    }
}

fn version(number: usize) -> VersionId {
    VersionId(number.to_string())
}

fn described(number: usize) -> Version {
    Version { id: version(number), created: None, stages: Vec::new(), readable: true }
}

impl Backend for Service {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        match self.state.lock().dumb {
            true => Err(BackendError::Unreachable("nobody has begun".into())),
            false => Ok(self.abilities),
        }
    }

    fn get(&self, name: &str, _: &Which, deadline: Deadline) -> Result<Fetched> {
        self.look();
        let state = self.enter("get", deadline)?;
        let versions = state.versions(name)?;
        let last = versions.last().ok_or(BackendError::NotFound)?;
        Ok(Fetched {
            version: version(if self.abilities.versions { versions.len() } else { 0 }),
            value: SecretBytes::copy_from(last).unwrap(),
            created: None,
            expires: None,
        })
    }

    fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        put: &Put,
        deadline: Deadline,
    ) -> Result<Version> {
        self.look();
        let mut state = self.enter("put", deadline)?;
        let fault = state.put_faults.pop_front();
        let (value_there, expect) = (
            value.expose().to_vec(),
            put.expect.clone().filter(|_| self.abilities.compare_and_set),
        );
        if std::mem::take(&mut state.goes_down) {
            state.failure = Some(Failure::Down);
        }
        match fault {
            Some(PutFault::Denied) => return Err(BackendError::Denied("no such right".into())),
            Some(PutFault::Lost) => return Err(BackendError::TimedOut),
            Some(PutFault::DoneBefore(calls)) => {
                state.late.push(Late { calls, name: name.to_owned(), value: value_there, expect });
                return Err(BackendError::TimedOut);
            }
            Some(PutFault::AfterTheirs) => drop(state.add(name, THEIRS, None)),
            Some(PutFault::Done) | None => {}
        }
        let count = state.add(name, &value_there, expect.as_ref())?;
        let number = if self.abilities.versions { count } else { 0 };
        drop(state);
        if let Some(call) = self.after_put.get() {
            call(value.expose());
        }
        self.look();
        if fault == Some(PutFault::Done) {
            return Err(BackendError::TimedOut);
        }
        Ok(described(number))
    }

    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description> {
        let state = self.enter("describe", deadline)?;
        let current = state.secrets.get(name).ok_or(BackendError::NotFound)?.len();
        let deleted = state.deleted.contains(name);
        Ok(Description { current: Some(version(current)), deleted, ..Description::default() })
    }

    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>> {
        let state = self.enter("versions", deadline)?;
        Ok((1..=state.versions(name)?.len()).map(described).collect())
    }

    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page> {
        let state = self.enter("list", deadline)?;
        if state.lists_denied {
            return Err(BackendError::Denied("no list".into()));
        }
        if let Some(endless) = state.endless {
            let number = state.calls.get("list").filter(|_| endless == Endless::NewPages);
            let next = Some(PageToken(format!("{number:?}")));
            return Ok(Page { names: vec!["a".into()], next, ..Page::default() });
        }
        let after = page.map(|token| token.0.clone()).unwrap_or_default();
        let shown = state.secrets.keys().filter(|name| !state.deleted.contains(*name));
        let names: Vec<String> = shown.filter(|name| **name > after).take(PAGE).cloned().collect();
        let next = names.last().filter(|_| names.len() == PAGE).map(|last| PageToken(last.clone()));
        let mut page = Page { names, next, ..Page::default() };
        if let Some(behind) = self.tells_changes {
            page.behind = behind;
            for name in &page.names {
                let changed = Timestamp::from_second(state.changed[name]).unwrap();
                page.changed.insert(name.clone(), changed);
            }
        }
        Ok(page)
    }

    fn tag(&self, _: &str, _: &BTreeMap<String, String>, _: Deadline) -> Result<()> {
        Err(BackendError::Unsupported("no tags".into()))
    }

    fn stage(&self, _: &str, _: &str, _: &VersionId, _: Deadline) -> Result<()> {
        Err(BackendError::Unsupported("no stages".into()))
    }

    fn delete(&self, name: &str, deadline: Deadline) -> Result<()> {
        let mut state = self.enter("delete", deadline)?;
        state.versions(name)?;
        state.deleted.insert(name.to_owned());
        Ok(())
    }

    fn restore(&self, name: &str, deadline: Deadline) -> Result<()> {
        let mut state = self.enter("restore", deadline)?;
        if state.deleted.remove(name) { Ok(()) } else { Err(BackendError::NotFound) }
    }

    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.enter("destroy", deadline)?.secrets.remove(name);
        Ok(())
    }

    fn check(&self, _: Deadline) -> Vec<Probe> {
        Vec::new()
    }
}
