//! Taking over from a server that died: its handles, and what it had in hand.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::Tree;
use crate::broker::{BrokerError, Put};
use crate::fs::Identify;
use crate::fs::directory::Cursor;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::{Content, Gone, Handle, Pinned};
use crate::fs::journal::{Fate, Kept, KeptKind};
use crate::fs::node::{Node, View, ViewKind};
use crate::fs::writer::Writer;
use crate::model::{Caller, FindProcess, Gid, Process, SecretName, Uid};

/// How a server ended, which tells how much that speaks against the requests that it had in hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum Death {
    /// It ended by a fault of its own, or did not answer any more.
    Crashed,
    /// Somebody killed it.
    Killed,
    /// It made room for its successor.
    Retired,
}

impl Death {
    /// Two crashes are as much as a request may cost; being there when somebody kills is mostly
    /// chance.
    fn weight(self) -> u64 {
        match self {
            Self::Crashed => 4,
            Self::Killed => 1,
            Self::Retired => 0,
        }
    }
}

/// What a server has to see to once it serves.
#[derive(Debug, Default)]
pub(in crate::fs) struct Adopted {
    /// The requests that the dead server had in hand.
    pub(in crate::fs) requests: Vec<u64>,
    /// By which numbers those are woken who poll: they are to ask again.
    pub(in crate::fs) polls: Vec<u64>,
}

/// A request against which so much speaks is answered EIO.
const TOO_MUCH: u64 = 8;

impl Tree {
    /// Takes over what an earlier server has left. To be called before the first request.
    pub(in crate::fs) fn adopt(&self, death: Death, identify: &dyn Identify) -> Adopted {
        let interrupted = self.work.take_over(death.weight());
        let after = interrupted.iter().map(|one| one.after).min();
        if let Some(after) = after {
            let requests = interrupted.iter().map(|one| one.request).collect();
            match self.broker.adopt(after, &requests) {
                Ok(()) => {}
                // Nothing is answered but that, so nothing is done twice.
                Err(BrokerError::Sealed) => {}
                Err(error) => tracing::error!(%error, "what was in hand may be recorded twice"),
            }
        }
        let left = self.handles.left();
        let handles = left.len();
        let polls = left.iter().map(|(_, kept)| kept.poll).filter(|poll| *poll != 0).collect();
        for (number, kept) in left {
            self.adopt_handle(number, &kept, identify);
        }
        tracing::info!(?death, handles, requests = interrupted.len(), "took over");
        Adopted { requests: interrupted.into_iter().map(|one| one.request).collect(), polls }
    }

    /// Tells whether a request has cost too many servers.
    pub(in crate::fs) fn is_poison(&self, request: u64) -> bool {
        self.work.suspicion(request) >= TOO_MUCH
    }

    fn adopt_handle(&self, number: u64, kept: &Kept, identify: &dyn Identify) {
        let opener = opener(kept, identify);
        let content = match self.adopted_content(kept, &opener) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(%error, inode = kept.inode, "a handle cannot go on");
                Content::Gone(gone(kept))
            }
        };
        let writes = matches!(content, Content::Writer(_));
        let ticket = Mutex::new(self.quotas.adopt(kept.uid, kept.plaintext));
        self.inodes.opened(kept.inode, writes.then_some(number));
        if kept.kind == KeptKind::Secret {
            // Whether the kernel has pages of it is not known.
            self.inodes.paged(kept.inode);
        }
        self.handles.adopt(Handle { number, inode: kept.inode, opener, content, ticket });
    }

    fn adopted_content(&self, kept: &Kept, opener: &Caller) -> Result<Content> {
        Ok(match kept.kind {
            KeptKind::AuditLog => Content::AuditLog(self.broker.audit_log_again()?),
            KeptKind::Directory => {
                Content::Directory(Mutex::new(Cursor::new(self.inodes.node(kept.inode)?)))
            }
            KeptKind::Events => Content::Events(self.events.adopt(opener)?),
            KeptKind::Health => Content::Health(self.health.open()),
            KeptKind::Passing | KeptKind::Scratch => Content::Gone(gone(kept)),
            KeptKind::Secret => {
                let (name, _) = self.adopted_name(kept)?;
                Content::Secret(Pinned::again(name, kept, self.broker.clone()))
            }
            KeptKind::Writer => match kept.fate {
                Fate::Published | Fate::Unpublished => Content::Gone(gone(kept)),
                Fate::Emptied | Fate::Fresh => {
                    Content::Writer(self.adopted_writer(kept, opener)?.into())
                }
            },
        })
    }

    /// Goes on with a handle to which nothing has been written.
    fn adopted_writer(&self, kept: &Kept, opener: &Caller) -> Result<Writer> {
        let (name, mut put) = self.adopted_name(kept)?;
        put.create_new = kept.traits.create_new;
        let max_bytes = self.broker.limits().max_value_bytes;
        let mut writer = Writer::new(name.clone(), put, max_bytes).opened_by(opener.tid);
        if kept.traits.draft {
            writer = writer.drafting(self.drafts.open(kept.uid, &name, self.clock.now())?);
        }
        if kept.traits.reads {
            writer = writer.reading(Pinned::again(name, kept, self.broker.clone()));
        }
        if kept.fate == Fate::Emptied {
            writer.truncate(0, || Ok(None))?;
        }
        Ok(writer)
    }

    /// Returns the secret that a handle is on, and how it is written through that name.
    fn adopted_name(&self, kept: &Kept) -> Result<(SecretName, Put)> {
        match &*self.inodes.node(kept.inode)? {
            Node::Secret(name) => Ok((name.clone(), Put::default())),
            Node::View(View { of: Some(name), kind }) => {
                let put = match kind {
                    ViewKind::Expect(version) => Put { expect: Some(*version), ..Put::default() },
                    ViewKind::Pending => Put { stage: true, ..Put::default() },
                    ViewKind::Env
                    | ViewKind::Frozen(_)
                    | ViewKind::Json
                    | ViewKind::Meta
                    | ViewKind::Numbered(_)
                    | ViewKind::Previous
                    | ViewKind::Snap
                    | ViewKind::Why => Put::default(),
                };
                Ok((name.clone(), put))
            }
            Node::By(_)
            | Node::Control(_)
            | Node::Directory(_)
            | Node::Rendered(_)
            | Node::Root
            | Node::Scratch(_)
            | Node::Trashed(_)
            | Node::View(_) => Err(FsError::Stale),
        }
    }
}

fn gone(kept: &Kept) -> Gone {
    match kept.kind {
        KeptKind::Scratch => Gone::Writer { unpublished: AtomicBool::new(true) },
        KeptKind::Writer => {
            let unpublished = AtomicBool::new(kept.fate == Fate::Unpublished);
            Gone::Writer { unpublished }
        }
        KeptKind::AuditLog
        | KeptKind::Directory
        | KeptKind::Events
        | KeptKind::Health
        | KeptKind::Passing
        | KeptKind::Secret => Gone::Passing,
    }
}

/// Returns who opened a handle. Its thread does not wait for an answer now, so the number may be
/// another's: then nothing but the ids counts, and no rule that binds more.
fn opener(kept: &Kept, identify: &dyn Identify) -> Caller {
    let ids = Caller::with_ids(Uid(kept.uid), Gid(kept.gid));
    if kept.tid == 0 {
        return ids;
    }
    let found = identify.glimpse(kept.uid, kept.gid, kept.tid);
    let same = SameProcess { finder: found.finder.clone(), started: kept.started };
    match &found.process {
        Some(process) if same.is(process) => found,
        Some(_) => Caller { tid: found.tid, ..ids },
        None => Caller { tid: found.tid, finder: Some(Arc::new(same)), ..ids },
    }
}

/// Finds the process that has opened a handle, when it is asked for, unless another one has its thread's number by then.
#[derive(Debug)]
struct SameProcess {
    finder: Option<Arc<dyn FindProcess>>,
    started: i64,
}

impl SameProcess {
    fn is(&self, process: &Process) -> bool {
        process.started.as_microsecond() == self.started
    }
}

impl FindProcess for SameProcess {
    fn find(&self, uid: Uid, tid: u32) -> Option<Arc<Process>> {
        self.finder.as_ref()?.find(uid, tid).filter(|process| self.is(process))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Traits;
    use crate::model::{SecretId, Timestamp, Version};

    /// Knows one process, and says who it is at once or when it is asked for.
    #[derive(Clone, Debug)]
    struct Known {
        process: Arc<Process>,
        at_once: bool,
    }

    impl FindProcess for Known {
        fn find(&self, _: Uid, _: u32) -> Option<Arc<Process>> {
            Some(Arc::clone(&self.process))
        }
    }

    impl Identify for Known {
        fn identify(&self, uid: u32, gid: u32, tid: u32) -> Caller {
            self.glimpse(uid, gid, tid).complete()
        }

        fn glimpse(&self, uid: u32, gid: u32, tid: u32) -> Caller {
            let process = self.at_once.then(|| Arc::clone(&self.process));
            let finder = (!self.at_once).then(|| Arc::new(self.clone()) as _);
            let ids = Caller::with_ids(Uid(uid), Gid(gid));
            Caller { tid: Some(tid), process, finder, ..ids }
        }
    }

    #[test]
    fn an_opener_is_the_process_that_has_opened_and_no_later_one_with_its_number() {
        let started = Timestamp::from_second(1_799_999_000).unwrap();
        let (comm, exe, unit) = (b"cat".to_vec(), None, None);
        let process = Arc::new(Process { pid: 7, started, comm, exe, unit, container: None });
        let kept = Kept {
            inode: 2,
            kind: KeptKind::Secret,
            uid: 1000,
            gid: 100,
            tid: 7,
            started: started.as_microsecond(),
            secret: SecretId([1; 16]),
            version: Version(1),
            plaintext: 0,
            poll: 0,
            fate: Fate::Fresh,
            traits: Traits::default(),
        };
        for at_once in [true, false] {
            let known = Known { process: Arc::clone(&process), at_once };
            let same = opener(&kept, &known);
            assert_eq!(same.process.is_some(), at_once, "nobody is asked before it is needed");
            assert_eq!(same.complete().process.unwrap().pid, 7);
            for started in [kept.started - 1, 0] {
                let other = opener(&Kept { started, ..kept }, &known).complete();
                assert_eq!((other.uid, other.tid, other.process), (Uid(1000), Some(7), None));
            }
        }
        let known = Known { process, at_once: true };
        assert_eq!(opener(&Kept { tid: 0, ..kept }, &known).complete().tid, None);
    }
}
