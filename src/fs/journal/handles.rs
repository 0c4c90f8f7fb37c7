//! Open handles, each in a slot of its own: a few stores as it is opened and one as it is closed.
//!
//! A handle's number says where its slot is, and which server gave it: no two servers of a mount
//! ever give the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::HANDLES;
use crate::model::{SecretId, Version};
use crate::system::SharedMap;

/// Handles that may be open at one time, of all uids.
const SLOTS: usize = 1 << 16;
const SLOT_BYTES: usize = 96;
// A slot's words.
const NUMBER: usize = 0;
const INODE: usize = 8;
const KIND: usize = 16;
const IDS: usize = 24;
const THREAD: usize = 32;
const SECRET: usize = 40;
const VERSION: usize = 56;
const FATE: usize = 64;
const STARTED: usize = 72;
const PLAINTEXT: usize = 80;
const POLL: usize = 88;

/// How many slots were ever used, in front of them.
const AT_USED: usize = HANDLES;
const AT_SLOTS: usize = HANDLES + 64;

/// Size of this part in bytes.
pub(super) const BYTES: usize = 64 + SLOTS * SLOT_BYTES;

/// The slots.
#[derive(Debug)]
pub(in crate::fs) struct HandleSlots {
    map: Arc<SharedMap>,
    generation: u64,
    next: AtomicU64,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Slots that were used before.
    returned: Vec<usize>,
    /// The first that was never used.
    untouched: usize,
}

/// What is kept of a handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) struct Kept {
    pub(in crate::fs) inode: u64,
    pub(in crate::fs) kind: KeptKind,
    pub(in crate::fs) uid: u32,
    pub(in crate::fs) gid: u32,
    /// 0: not known.
    pub(in crate::fs) tid: u32,
    /// When the opener's process was started, in microseconds since 1970; 0: not known.
    pub(in crate::fs) started: i64,
    /// Meaningful for a secret.
    pub(in crate::fs) secret: SecretId,
    /// Meaningful for a secret.
    pub(in crate::fs) version: Version,
    /// Plaintext that the handle holds, in bytes.
    pub(in crate::fs) plaintext: u64,
    /// The kernel's number for those who poll; 0: nobody does.
    pub(in crate::fs) poll: u64,
    pub(in crate::fs) fate: Fate,
    pub(in crate::fs) traits: Traits,
}

/// What else is to be known of a handle that writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::fs) struct Traits {
    /// The name was not there.
    pub(in crate::fs) draft: bool,
    /// The name must not be there.
    pub(in crate::fs) create_new: bool,
    /// It reads `secret` and `version`.
    pub(in crate::fs) reads: bool,
}

/// What a handle is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) enum KeptKind {
    AuditLog,
    Directory,
    Events,
    Health,
    /// What it showed was made when it was opened, and cannot be made again.
    Passing,
    /// Its bytes were in the server's memory alone.
    Scratch,
    Secret,
    Writer,
}

/// What has become of the bytes that were written to a handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) enum Fate {
    /// Nothing has been done with it.
    Fresh,
    /// It was truncated to nothing, and nothing was written.
    Emptied,
    /// Some are in the server's memory alone.
    Unpublished,
    /// All of them are published, and what comes next starts from them.
    Published,
}

impl HandleSlots {
    pub(super) fn new(map: Arc<SharedMap>, generation: u64) -> Self {
        let untouched = usize::try_from(map.load(AT_USED)).unwrap_or(SLOTS).min(SLOTS);
        let number = |slot: usize| map.load(AT_SLOTS + slot * SLOT_BYTES + NUMBER);
        let returned = (0..untouched).filter(|&slot| number(slot) == 0).collect();
        let free = Mutex::new(Free { returned, untouched });
        Self { map, generation, next: AtomicU64::new(1), free }
    }

    /// Puts a handle in. Returns its number, or `None` where no slot is free.
    pub(in crate::fs) fn insert(&self, kept: &Kept) -> Option<u64> {
        let slot = self.take()?;
        let serial = self.next.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff;
        let number = (self.generation & 0xffff) << 48 | serial << 16 | slot as u64;
        let place = AT_SLOTS + slot * SLOT_BYTES;
        let word = |at: usize, value: u64| self.map.store(place + at, value);
        word(INODE, kept.inode);
        word(KIND, kept.kind as u64 | kept.traits.bits() << 8);
        word(IDS, pair(kept.uid, kept.gid));
        word(THREAD, kept.tid.into());
        self.map.write(place + SECRET, &kept.secret.0);
        word(VERSION, kept.version.0);
        word(FATE, kept.fate as u64);
        word(STARTED, kept.started.cast_unsigned());
        word(PLAINTEXT, kept.plaintext);
        word(POLL, kept.poll);
        // Last: a slot with a number is whole.
        word(NUMBER, number);
        Some(number)
    }

    /// Notes what has become of what was written to a handle.
    pub(in crate::fs) fn set_fate(&self, number: u64, fate: Fate) {
        if let Some(place) = self.place(number) {
            self.map.store(place + FATE, fate as u64);
        }
    }

    /// Notes by which number those who poll a handle are woken.
    pub(in crate::fs) fn set_poll(&self, number: u64, poll: u64) {
        if let Some(place) = self.place(number) {
            self.map.store(place + POLL, poll);
        }
    }

    /// Takes a handle out.
    pub(in crate::fs) fn remove(&self, number: u64) {
        if let Some(place) = self.place(number) {
            self.map.store(place + NUMBER, 0);
            self.free.lock().returned.push((place - AT_SLOTS) / SLOT_BYTES);
        }
    }

    /// Returns the handles that there are, with their numbers.
    pub(in crate::fs) fn all(&self) -> Vec<(u64, Kept)> {
        let used = self.free.lock().untouched;
        let places = (0..used).map(|slot| AT_SLOTS + slot * SLOT_BYTES);
        places
            .filter_map(|place| Some((self.map.load(place + NUMBER), self.kept(place)?)))
            .collect()
    }

    fn kept(&self, place: usize) -> Option<Kept> {
        let word = |at: usize| self.map.load(place + at);
        if word(NUMBER) == 0 {
            return None;
        }
        let ((uid, gid), (tid, _)) = (halves(word(IDS)), halves(word(THREAD)));
        let mut secret = SecretId::default();
        self.map.read(place + SECRET, &mut secret.0);
        Some(Kept {
            inode: word(INODE),
            kind: kind(word(KIND) & 0xff),
            uid,
            gid,
            tid,
            started: word(STARTED).cast_signed(),
            secret,
            version: Version(word(VERSION)),
            plaintext: word(PLAINTEXT),
            poll: word(POLL),
            fate: fate(word(FATE)),
            traits: Traits::from_bits(word(KIND) >> 8),
        })
    }

    fn take(&self) -> Option<usize> {
        let mut free = self.free.lock();
        if let Some(slot) = free.returned.pop() {
            return Some(slot);
        }
        let slot = free.untouched;
        if slot == SLOTS {
            return None;
        }
        free.untouched += 1;
        self.map.store(AT_USED, free.untouched as u64);
        Some(slot)
    }

    fn place(&self, number: u64) -> Option<usize> {
        let slot = usize::try_from(number & 0xffff).ok()?;
        let place = AT_SLOTS + slot * SLOT_BYTES;
        (self.map.load(place + NUMBER) == number).then_some(place)
    }
}

impl Traits {
    fn bits(self) -> u64 {
        let Self { draft, create_new, reads } = self;
        u64::from(draft) | u64::from(create_new) << 1 | u64::from(reads) << 2
    }

    fn from_bits(bits: u64) -> Self {
        let is = |bit: u32| bits >> bit & 1 == 1;
        Self { draft: is(0), create_new: is(1), reads: is(2) }
    }
}

fn fate(word: u64) -> Fate {
    let all = [Fate::Fresh, Fate::Emptied, Fate::Published];
    all.into_iter().find(|fate| *fate as u64 == word).unwrap_or(Fate::Unpublished)
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

fn kind(word: u64) -> KeptKind {
    let all = [
        KeptKind::AuditLog,
        KeptKind::Directory,
        KeptKind::Events,
        KeptKind::Health,
        KeptKind::Scratch,
        KeptKind::Secret,
        KeptKind::Writer,
    ];
    all.into_iter().find(|kind| *kind as u64 == word).unwrap_or(KeptKind::Passing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Journal;

    fn kept(kind: KeptKind) -> Kept {
        Kept {
            inode: 9,
            kind,
            uid: 1000,
            gid: u32::MAX,
            tid: 5,
            started: -1,
            secret: SecretId([7; 16]),
            version: Version(3),
            plaintext: 11,
            poll: 12,
            fate: Fate::Emptied,
            traits: Traits { draft: true, create_new: false, reads: true },
        }
    }

    #[test]
    fn the_next_server_finds_what_is_open_and_never_gives_a_number_again() {
        let journal = Journal::new().unwrap();
        journal.begin_generation();
        let first = journal.handles();
        let kinds = [KeptKind::AuditLog, KeptKind::Passing, KeptKind::Secret, KeptKind::Writer];
        let numbers: Vec<_> = kinds.map(|kind| first.insert(&kept(kind)).unwrap()).into();
        first.remove(numbers[0]);
        first.set_fate(numbers[3], Fate::Unpublished);
        journal.begin_generation();
        let next = journal.handles();
        let expected = [
            (numbers[1], kept(KeptKind::Passing)),
            (numbers[2], kept(KeptKind::Secret)),
            (numbers[3], Kept { fate: Fate::Unpublished, ..kept(KeptKind::Writer) }),
        ];
        assert_eq!(next.all(), expected);
        for _ in 0..100 {
            let number = next.insert(&kept(KeptKind::Secret)).unwrap();
            assert!(!numbers.contains(&number));
        }
    }

    #[test]
    fn an_old_number_does_not_reach_who_has_its_slot_now() {
        let journal = Journal::new().unwrap();
        let slots = journal.handles();
        let old = slots.insert(&kept(KeptKind::Secret)).unwrap();
        slots.remove(old);
        let new = slots.insert(&kept(KeptKind::Writer)).unwrap();
        slots.set_fate(old, Fate::Unpublished);
        slots.remove(old);
        assert_eq!(slots.all(), [(new, kept(KeptKind::Writer))]);
    }

    #[test]
    fn a_full_table_takes_no_more_until_one_is_closed() {
        let journal = Journal::new().unwrap();
        let slots = journal.handles();
        let all: Vec<_> =
            (0..SLOTS).map(|_| slots.insert(&kept(KeptKind::Secret)).unwrap()).collect();
        assert_eq!(slots.insert(&kept(KeptKind::Secret)), None);
        slots.remove(all[7]);
        assert!(slots.insert(&kept(KeptKind::Secret)).is_some());
    }
}
