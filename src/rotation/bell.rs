//! Consumers are told once for all who want them told at the same time.
//!
//! Ten secrets of one service that change together are one reload: who comes while a notice is on its way
//! shares the next one with all who come until that begins. It is not the one on its way, for the
//! consumer may have read before this secret was switched.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Notices that are under way, by what they are.
#[derive(Debug)]
pub(super) struct Bell<N, T> {
    rings: Mutex<Vec<(N, Arc<Ring<T>>)>>,
}

/// One notice, and those who share it.
#[derive(Debug)]
struct Ring<T> {
    state: Mutex<RingState<T>>,
    changed: Condvar,
}

#[derive(Debug)]
enum RingState<T> {
    /// Others may still join.
    Waiting,
    /// It is being carried out.
    Ringing,
    Done(T),
    /// Whoever carried it out has panicked.
    Abandoned,
}

impl<N, T> Default for Bell<N, T> {
    fn default() -> Self {
        Self { rings: Mutex::default() }
    }
}

impl<N: Clone + PartialEq, T: Clone> Bell<N, T> {
    /// Has the notice given by one that begins after this call; `ring` gives it, if nobody else does.
    pub(super) fn ring(&self, notice: &N, ring: impl FnOnce() -> T) -> T {
        loop {
            let mut rings = self.rings.lock();
            let of_notice = rings.iter().filter(|(known, _)| known == notice);
            let before: Vec<Arc<Ring<T>>> = of_notice.map(|(_, ring)| Arc::clone(ring)).collect();
            if let Some(shared) = before.iter().find(|ring| ring.may_be_joined()) {
                drop(rings);
                match shared.wait() {
                    Some(told) => return told,
                    None => continue,
                }
            }
            let mine = Arc::new(Ring::new());
            rings.push((notice.clone(), Arc::clone(&mine)));
            drop(rings);
            let _leads = Leads { bell: self, ring: &mine };
            // One at a time: who waits for it here gathers others behind it.
            before.iter().for_each(|before| drop(before.wait()));
            mine.set(RingState::Ringing);
            let told = ring();
            mine.set(RingState::Done(told.clone()));
            return told;
        }
    }
}

/// The place of who carries a notice out, given up also by a panic.
struct Leads<'a, N, T> {
    bell: &'a Bell<N, T>,
    ring: &'a Arc<Ring<T>>,
}

impl<N, T> Drop for Leads<'_, N, T> {
    fn drop(&mut self) {
        self.bell.rings.lock().retain(|(_, ring)| !Arc::ptr_eq(ring, self.ring));
        let mut state = self.ring.state.lock();
        if !matches!(*state, RingState::Done(_)) {
            *state = RingState::Abandoned;
            self.ring.changed.notify_all();
        }
    }
}

impl<T> Ring<T> {
    fn new() -> Self {
        Self { state: Mutex::new(RingState::Waiting), changed: Condvar::new() }
    }

    fn may_be_joined(&self) -> bool {
        matches!(*self.state.lock(), RingState::Waiting)
    }

    fn set(&self, state: RingState<T>) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }
}

impl<T: Clone> Ring<T> {
    /// Returns what came of it; `None` if nothing did.
    fn wait(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            match &*state {
                RingState::Done(told) => return Some(told.clone()),
                RingState::Abandoned => return None,
                RingState::Ringing | RingState::Waiting => self.changed.wait(&mut state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn all_who_come_while_a_notice_is_on_its_way_share_the_next_one() {
        let bell = Bell::<&str, u32>::default();
        let count = AtomicU32::new(0);
        let (begun, has_begun) = channel();
        let (go, may_go) = channel();
        thread::scope(|scope| {
            let (bell, count) = (&bell, &count);
            let first = scope.spawn(move || {
                bell.ring(&"reload", || {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    count.fetch_add(1, Ordering::SeqCst)
                })
            });
            has_begun.recv().unwrap();
            let late: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        bell.ring(&"reload", || count.fetch_add(1, Ordering::SeqCst))
                    })
                })
                .collect();
            // Until one leads the next one, and the seven others know of it.
            let all_there = || {
                let rings = bell.rings.lock();
                rings.get(1).is_some_and(|(_, next)| Arc::strong_count(next) >= 9)
            };
            while !all_there() {
                thread::yield_now();
            }
            go.send(()).unwrap();
            first.join().unwrap();
            late.into_iter().for_each(|late| assert!(late.join().unwrap() > 0));
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(bell.rings.lock().is_empty());
    }

    #[test]
    fn who_panics_takes_nobody_with_it() {
        let bell = Bell::<u32, u32>::default();
        let panicked = std::panic::AssertUnwindSafe(|| bell.ring(&1, || panic!("on purpose")));
        assert!(std::panic::catch_unwind(panicked).is_err());
        assert_eq!(bell.ring(&1, || 7), 7);
    }

    #[test]
    fn other_notices_do_not_wait() {
        let bell = Bell::<u32, u32>::default();
        assert_eq!(bell.ring(&1, || bell.ring(&2, || 7)), 7);
    }
}
