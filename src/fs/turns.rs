//! Whose job is next: users take turns, so that one who asks for much does not hold up another.
//!
//! Pure bookkeeping, without threads or time.

use std::collections::{HashMap, VecDeque};

/// Jobs of all users that may wait.
const MAX_WAITING: usize = 1024;
/// Jobs of one user that may wait.
const MAX_WAITING_OF_ONE: usize = 256;

/// Jobs that wait, and how many of each user's are being done.
#[derive(Debug)]
pub(super) struct Turns<J> {
    users: HashMap<u32, User<J>>,
    /// The users with a job that may begin, in the order of their turns; each once.
    order: VecDeque<u32>,
    waiting: usize,
    /// How many jobs of one user are done at one time.
    at_once: usize,
}

#[derive(Debug)]
struct User<J> {
    jobs: VecDeque<J>,
    running: usize,
    is_in_order: bool,
}

impl<J> Turns<J> {
    /// Returns turns in which no user has more than `at_once` jobs being done.
    pub(super) fn new(at_once: usize) -> Self {
        Self { users: HashMap::new(), order: VecDeque::new(), waiting: 0, at_once }
    }

    /// Queues a job of a user. Returns whether there was room for it.
    #[must_use]
    pub(super) fn push(&mut self, uid: u32, job: J) -> bool {
        let user = self.users.entry(uid).or_insert_with(|| User {
            jobs: VecDeque::new(),
            running: 0,
            is_in_order: false,
        });
        if self.waiting >= MAX_WAITING || user.jobs.len() >= MAX_WAITING_OF_ONE {
            self.tidy(uid);
            return false;
        }
        user.jobs.push_back(job);
        self.waiting += 1;
        self.enlist(uid);
        true
    }

    /// Takes the next job, whose end is to be told by [`done`](Self::done).
    pub(super) fn next(&mut self) -> Option<(u32, J)> {
        let uid = self.order.pop_front()?;
        let user = self.users.get_mut(&uid)?;
        user.is_in_order = false;
        let job = user.jobs.pop_front()?;
        user.running += 1;
        self.waiting -= 1;
        self.enlist(uid);
        Some((uid, job))
    }

    /// Notes that a job of a user has ended.
    pub(super) fn done(&mut self, uid: u32) {
        if let Some(user) = self.users.get_mut(&uid) {
            user.running = user.running.saturating_sub(1);
        }
        self.enlist(uid);
        self.tidy(uid);
    }

    /// Returns how many jobs may begin now, counting no more than one a user.
    pub(super) fn ready(&self) -> usize {
        self.order.len()
    }

    /// Returns how many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a user at the end of the order, if it has a job that may begin and is not in it.
    fn enlist(&mut self, uid: u32) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        if !user.is_in_order && !user.jobs.is_empty() && user.running < self.at_once {
            user.is_in_order = true;
            self.order.push_back(uid);
        }
    }

    /// Forgets a user of whom nothing is left.
    fn tidy(&mut self, uid: u32) {
        if self.users.get(&uid).is_some_and(|user| user.jobs.is_empty() && user.running == 0) {
            self.users.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_however_much_one_of_them_asks_for() {
        let mut turns = Turns::new(64);
        for job in 0..100 {
            assert!(turns.push(1, job));
        }
        assert!(turns.push(2, 200) && turns.push(3, 300));
        let first: Vec<_> = std::iter::from_fn(|| turns.next()).take(5).collect();
        assert_eq!(first, [(1, 0), (2, 200), (3, 300), (1, 1), (1, 2)]);
    }

    #[test]
    fn one_user_never_has_all_threads() {
        let mut turns = Turns::new(2);
        for job in 0..4 {
            assert!(turns.push(1, job));
        }
        assert_eq!((turns.next(), turns.next(), turns.next()), (Some((1, 0)), Some((1, 1)), None));
        assert!(turns.push(2, 9));
        assert_eq!(turns.next(), Some((2, 9)));
        turns.done(1);
        assert_eq!(turns.next(), Some((1, 2)));
        assert_eq!(turns.waiting(), 1);
    }

    #[test]
    fn a_user_whose_queue_is_full_leaves_room_for_others() {
        let mut turns = Turns::new(1);
        let taken = (0..MAX_WAITING).filter(|&job| turns.push(1, job)).count();
        assert_eq!(taken, MAX_WAITING_OF_ONE);
        assert!(turns.push(2, 0));
        let mut all = taken + 1;
        for uid in 3..100 {
            all += (0..MAX_WAITING).filter(|&job| turns.push(uid, job)).count();
        }
        assert_eq!(all, MAX_WAITING);
    }

    #[test]
    fn of_a_user_that_is_gone_nothing_is_kept() {
        let mut turns = Turns::new(1);
        for uid in 0..1000 {
            assert!(turns.push(uid, ()));
            assert_eq!(turns.next(), Some((uid, ())));
            turns.done(uid);
        }
        assert!(turns.users.is_empty() && turns.order.is_empty());
    }
}
