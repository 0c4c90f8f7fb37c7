//! A circuit breaker: a service that fails is left alone for a while, and then tried with one request.
//!
//! Pure: it is told the time. Without it each reader of a service that is down would wait for its own
//! timeout, and one that is busy would be kept so by us.

use std::time::Duration;

use crate::broker::UpstreamError;

/// So many failures in a row are no accident.
const FAILURES: u32 = 3;
/// How long it is left alone at first, and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// The longest rest that a service may ask for.
const MOST_ASKED: Duration = Duration::from_secs(3600);
/// How long the one request may take that tries it. One that says nothing by then never does.
const TRIAL: Duration = Duration::from_secs(60);

/// What a request taught.
#[derive(Clone, Debug)]
pub(super) enum Lesson {
    /// The service has answered, whatever it was.
    Answered,
    /// It may succeed later without anybody's doing.
    Failed(UpstreamError),
    /// Nothing: it was refused here, or for what was asked. Whether anybody is there is not known.
    Nothing,
    /// It asks to be left alone, for so long if it says so.
    Throttled(UpstreamError, Option<Duration>),
}

/// What became of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Down,
    None,
    Up,
}

/// The state. Times are those since the host's start.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    why: UpstreamError,
    /// From when on it is tried.
    until: Duration,
    rest: Duration,
    /// A request is being made that tries it.
    is_tried: bool,
}

impl Breaker {
    /// Returns why no request is made now. It changes nothing.
    pub(super) fn refusal(&self, now: Duration) -> Option<&UpstreamError> {
        let open = self.open.as_ref()?;
        (now < open.until).then_some(&open.why)
    }

    /// Admits a request, or says why there is none. Whoever is admitted tells [`learn`](Self::learn).
    pub(super) fn admit(&mut self, now: Duration) -> Result<(), UpstreamError> {
        if let Some(why) = self.refusal(now) {
            return Err(why.clone());
        }
        if let Some(open) = &mut self.open {
            // Until it is known what comes of it, nobody else tries.
            open.until = now + TRIAL;
            open.is_tried = true;
        }
        Ok(())
    }

    /// Returns from when on the service is tried again, if it is left alone.
    pub(super) fn rests_until(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.until)
    }

    /// Returns why the service is left alone, or was until it is tried.
    pub(super) fn down(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.why.why.as_str())
    }

    /// Takes note of what came of a request. `jitter` is from 0 to 1: not all who were sent away at one moment
    /// may come back at one.
    pub(super) fn learn(&mut self, lesson: Lesson, now: Duration, jitter: f64) -> Change {
        let (why, asked) = match lesson {
            Lesson::Answered => {
                self.failures = 0;
                return if self.open.take().is_some() { Change::Up } else { Change::None };
            }
            Lesson::Nothing => {
                // Then the next one tries it.
                if let Some(open) = self.open.as_mut().filter(|open| open.is_tried) {
                    (open.until, open.is_tried) = (now, false);
                }
                return Change::None;
            }
            Lesson::Failed(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.open.is_none() && self.failures < FAILURES {
                    return Change::None;
                }
                (why, None)
            }
            Lesson::Throttled(why, asked) => (why, Some(asked)),
        };
        let before = self.open.take();
        let rest = before.as_ref().map_or(FIRST_REST, |open| (open.rest * 2).min(LONGEST_REST));
        // What the service asks for is the least.
        let rest = asked.flatten().map_or(rest, |asked| asked.clamp(FIRST_REST, MOST_ASKED));
        let until = now + rest + rest.mul_f64(jitter.clamp(0.0, 1.0) / 4.0);
        let change = if before.is_some() { Change::None } else { Change::Down };
        let rest = rest.min(LONGEST_REST);
        self.open = Some(Open { why, until, rest, is_tried: false });
        change
    }
}

/// Returns a number from 0 to 1 that others do not have.
pub(super) fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness all come at one moment, which is the worst of it.
    getrandom::fill(&mut bytes).unwrap_or_default();
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Fault;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn down() -> UpstreamError {
        UpstreamError { backend: "x".into(), fault: Fault::Unreachable, why: "down".into() }
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.learn(Lesson::Failed(down()), s(0), 0.0), Change::None);
        assert_eq!(breaker.learn(Lesson::Failed(down()), s(0), 0.0), Change::None);
        assert_eq!(breaker.learn(Lesson::Failed(down()), s(0), 0.0), Change::Down);
        breaker
    }

    #[test]
    fn a_service_that_fails_again_and_again_is_left_alone_and_then_tried_by_one() {
        let mut breaker = opened();
        assert!(breaker.admit(Duration::from_millis(999)).is_err());
        breaker.admit(s(1)).unwrap();
        assert!(breaker.admit(s(1)).is_err(), "two try it");
        assert_eq!(breaker.learn(Lesson::Answered, s(1), 0.0), Change::Up);
        breaker.admit(s(1)).unwrap();
    }

    #[test]
    fn each_rest_is_longer_up_to_a_limit() {
        let mut breaker = opened();
        let mut now = s(0);
        let mut rests = Vec::new();
        for _ in 0..7 {
            let until = breaker.rests_until().unwrap();
            rests.push((until - now).as_secs());
            now = until;
            breaker.admit(now).unwrap();
            assert_eq!(breaker.learn(Lesson::Failed(down()), now, 0.0), Change::None);
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_busy_service_is_left_alone_at_once_for_no_less_than_it_asks_for() {
        for jitter in [0.0, 1.0] {
            let mut breaker = Breaker::default();
            let lesson = Lesson::Throttled(down(), Some(s(60)));
            assert_eq!(breaker.learn(lesson, s(5), jitter), Change::Down);
            assert!(breaker.refusal(s(64)).is_some());
            assert!(breaker.refusal(s(80)).is_none());
            assert_eq!(breaker.refusal(s(66)).is_some(), jitter > 0.0);
        }
    }

    #[test]
    fn an_answer_in_between_makes_single_failures_accidents() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.learn(Lesson::Failed(down()), s(0), 0.0);
            breaker.learn(Lesson::Failed(down()), s(0), 0.0);
            assert_eq!(breaker.learn(Lesson::Answered, s(0), 0.0), Change::None);
        }
        breaker.admit(s(0)).unwrap();
    }

    #[test]
    fn what_was_refused_here_teaches_nothing_and_leaves_the_trial_to_the_next() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.learn(Lesson::Failed(down()), s(0), 0.0);
        }
        assert_eq!(breaker.learn(Lesson::Nothing, s(0), 0.0), Change::None);
        assert_eq!(breaker.learn(Lesson::Failed(down()), s(0), 0.0), Change::Down);
        assert_eq!(breaker.learn(Lesson::Nothing, s(0), 0.0), Change::None);
        assert!(breaker.admit(s(0)).is_err(), "one that was under way makes no trial");
        breaker.admit(s(1)).unwrap();
        assert_eq!(breaker.learn(Lesson::Nothing, s(1), 0.0), Change::None);
        assert!(breaker.down().is_some());
        breaker.admit(s(1)).unwrap();
        assert!(breaker.admit(s(1)).is_err());
    }

    #[test]
    fn a_service_cannot_ask_to_be_left_alone_for_ever() {
        let mut breaker = Breaker::default();
        breaker.learn(Lesson::Throttled(down(), Some(Duration::from_secs(u64::MAX))), s(10), 1.0);
        assert!(breaker.admit(s(11)).is_err());
        assert!(breaker.admit(s(10) + MOST_ASKED * 2).is_ok());
    }
}
