//! The real tree behind the broker itself, over a store in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use libc::{EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY};
use secretfs::audit::Options;
use secretfs::broker::{
    Broker, BrokerError, Found, Kind, Limits, LogSettings, Parts, Put, Replace, Which as Version_,
    read_header,
};
use secretfs::crypto::{RootKey, Slot, SlotKind};
use secretfs::model::{Caller, Gid, Level, ManualClock, SecretName, StoreId, Uid, Version};
use secretfs::policy::{NumericIds, Policy};
use secretfs::store::MemoryStore;
use secretfs::system::SecretBytes;

use super::op::{Op, POLICY, Reply, Seen, Shown, View, Which};
use super::tree::Real;

pub struct Memory {
    broker: Option<Broker>,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    directory: tempfile::TempDir,
}

type Tried = Result<Reply, BrokerError>;

impl Memory {
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::at(1_800_000_000));
        Broker::create(&*store, &*clock, &mut seal).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut world = Self { broker: None, store, clock, directory };
        world.open();
        world
    }

    fn open(&mut self) {
        let parts = Parts {
            store: self.store.clone(),
            policy: Policy::parse(POLICY, &NumericIds).unwrap(),
            clock: self.clock.clone(),
            limits: Limits::default(),
            log: LogSettings {
                directory: self.directory.path().join("audit"),
                options: Options::default(),
                names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
            },
            accept_rollback: false,
        };
        let header = read_header(&*self.store).unwrap();
        let root = header.slots[0].open(header.store, &key()).unwrap();
        let broker = Broker::open(parts, root).unwrap();
        broker.wait_verified(Duration::from_secs(60)).unwrap();
        assert_eq!(broker.statistics().integrity, "verified");
        self.broker = Some(broker);
    }

    fn close(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.close();
        }
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    fn tried(&self, uid: u32, op: &Op) -> Tried {
        let (broker, caller) = (self.broker(), caller(uid));
        let done = Ok(Reply::Done);
        match op {
            Op::Append { name, value } => self.change(uid, name, |old| [old, value].concat()),
            Op::Create { name, value } => {
                let put = Put { create_new: true, ..Put::default() };
                broker.write(&caller, &parse(name), bytes(value), &put)?;
                done
            }
            Op::Destroy { nth } => {
                let trash = broker.trash(&caller)?;
                let trashed =
                    trash.get(*nth).ok_or_else(|| BrokerError::NotFound(parse("trash")))?;
                broker.destroy(&caller, trashed.id)?;
                done
            }
            Op::Mkdir { name } => {
                broker.make_directory(&caller, &parse(name)).map(|()| Reply::Done)
            }
            Op::Read { name, which } => {
                let which = match which {
                    Which::Current => Version_::Current,
                    Which::Number(version) => Version_::Number(Version(*version)),
                    Which::Previous => Version_::Previous,
                };
                let opened = broker.read(&caller, &parse(name), which)?;
                Ok(Reply::Bytes(opened.value.expose().to_vec()))
            }
            Op::Readdir { name } => {
                if matches!(broker.look(&caller, &parse(name))?, Found::Secret(_)) {
                    return Err(BrokerError::NotDirectory(parse(name)));
                }
                let listed = broker.list(&caller, Some(&parse(name)), None, 100)?;
                Ok(Reply::Names(listed.into_iter().map(|entry| entry.segment.into()).collect()))
            }
            Op::Rename { from, to, replace } => {
                let replace = if *replace { Replace::Allowed } else { Replace::Refused };
                broker.rename(&caller, &parse(from), &parse(to), replace)?;
                done
            }
            Op::Restart => unreachable!(),
            Op::Restore { nth, to } => {
                let trash = broker.trash(&caller)?;
                let trashed =
                    trash.get(*nth).ok_or_else(|| BrokerError::NotFound(parse("trash")))?;
                broker.restore(&caller, trashed.id, Some(&parse(to)))?;
                done
            }
            Op::Rmdir { name } => {
                broker.remove_directory(&caller, &parse(name)).map(|()| Reply::Done)
            }
            Op::SetDescription { name, text } => {
                broker.set_attribute(&caller, &parse(name), "description", Some(text))?;
                done
            }
            Op::SetShared { name, shared } => {
                let tags = shared.then_some("shared");
                broker.set_attribute(&caller, &parse(name), "tags", tags)?;
                done
            }
            Op::Stat { name } => Ok(Reply::Stat(shown(&broker.look(&caller, &parse(name))?))),
            Op::Truncate { name, len, value } => self.change(uid, name, |old| {
                let mut new = old.to_vec();
                new.resize(*len, 0);
                [new.as_slice(), value].concat()
            }),
            // Opening changes nothing, and is asked for in this way.
            Op::TruncateAlone { name } => {
                broker.check(&caller, Level::Write, &parse(name))?;
                done
            }
            Op::Unlink { name } => broker.remove(&caller, &parse(name)).map(|()| Reply::Done),
            Op::Write { name, value } => self.change(uid, name, |_| value.clone()),
            Op::WriteAt { name, offset, value } => self.change(uid, name, |old| {
                let mut new = old.to_vec();
                new.resize(old.len().max(offset + value.len()), 0);
                new[*offset..offset + value.len()].copy_from_slice(value);
                new
            }),
            Op::WriteExpecting { name, version, value } => {
                let put = Put { expect: Some(Version(*version)), ..Put::default() };
                broker.write(&caller, &parse(name), bytes(value), &put)?;
                done
            }
        }
    }

    fn change(&self, uid: u32, name: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Tried {
        let (caller, name) = (caller(uid), parse(name));
        let base = self.broker().base(&caller, &name)?;
        let value = change(base.as_ref().map_or(&[], |opened| opened.value.expose()));
        self.broker().write(&caller, &name, bytes(&value), &Put::default())?;
        Ok(Reply::Done)
    }

    fn walk(&self, caller: &Caller, directory: Option<&SecretName>, view: &mut View) {
        for entry in self.broker().list(caller, directory, None, 100).unwrap() {
            let name = SecretName::join(directory, &entry.segment).unwrap();
            let found = self.broker().look(caller, &name).unwrap();
            match entry.kind {
                Kind::Directory => {
                    view.directories.push(name.to_string());
                    self.walk(caller, Some(&name), view);
                }
                Kind::Secret => view.secrets.push(self.seen(caller, &name, &found)),
            }
        }
    }

    fn seen(&self, caller: &Caller, name: &SecretName, found: &Found) -> Seen {
        let described = self.broker().describe(caller, name).unwrap();
        let read = self.broker().read(caller, name, Version_::Current);
        let tags = described.metadata.attributes.tags.join(",");
        Seen {
            name: name.to_string(),
            shown: shown(found),
            version: described.secret.version.0,
            description: described.metadata.description.map(String::from),
            tags: Some(tags).filter(|tags| !tags.is_empty()),
            value: read.map(|opened| opened.value.expose().to_vec()).map_err(|err| errno(&err)),
        }
    }
}

impl Real for Memory {
    fn act(&mut self, uid: u32, op: &Op) -> Reply {
        // Each change has its own time, as it has in life: the trash is ordered by it.
        self.clock.advance(Duration::from_secs(1));
        self.tried(uid, op).unwrap_or_else(|err| Reply::Errno(errno(&err)))
    }

    fn view(&mut self, uid: u32) -> View {
        let (mut view, caller) = (View::default(), caller(uid));
        self.walk(&caller, None, &mut view);
        view.directories.sort();
        view.secrets.sort_by(|a, b| a.name.cmp(&b.name));
        let trash = self.broker().trash(&caller).unwrap();
        view.trash = trash.into_iter().map(|trashed| trashed.name.to_string()).collect();
        view
    }

    fn restart(&mut self) {
        assert!(
            self.broker()
                .verify(&caller(0), &secretfs::broker::Progress::default())
                .unwrap()
                .faults
                .is_empty()
        );
        self.close();
        self.open();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.close();
    }
}

fn shown(found: &Found) -> Shown {
    match found {
        Found::Directory(_) => Shown { directory: true, size: 0, mode: 0 },
        Found::Secret(secret) => {
            let bit = |level, bit| if secret.levels.allow(level) { bit } else { 0 };
            let mode = bit(Level::Read, 0o400) | bit(Level::Write, 0o200);
            Shown { directory: false, size: secret.size, mode }
        }
    }
}

/// The errnos of the few errors that these operations meet, as `fs` gives them.
fn errno(err: &BrokerError) -> i32 {
    match err {
        BrokerError::Denied => EACCES,
        BrokerError::Exists(_) => EEXIST,
        BrokerError::ExpectationFailed { .. } => EBUSY,
        BrokerError::Invalid(_) => EINVAL,
        BrokerError::IsDirectory(_) => EISDIR,
        BrokerError::NotDirectory(_) => ENOTDIR,
        BrokerError::NotEmpty(_) => ENOTEMPTY,
        BrokerError::NotFound(_) => ENOENT,
        other => panic!("{other:?}"),
    }
}

fn caller(uid: u32) -> Caller {
    Caller::with_ids(Uid(uid), Gid(uid))
}

fn parse(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn bytes(value: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(value).unwrap()
}

fn key() -> SecretBytes {
    bytes(&[7; 32])
}

fn seal(store: StoreId, root: &RootKey) -> Result<Slot, String> {
    Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
}
