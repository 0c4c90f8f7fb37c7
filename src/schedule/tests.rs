//! Timetables over time: random ones by property, and the days on which clocks are changed.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[test]
fn without_a_timetable_the_age_and_the_expiry_decide() {
    let table = Timetable::default();
    let day = |n: u32| later(at("2027-01-01T00:00:00Z"), DAY * n);
    let due = |rotation_days, expires| {
        let facts = Facts { rotation_days, expires, ..facts("2027-01-01T00:00:00Z") };
        table.due(&facts, day(0)).map(|due| (due.at, due.reason))
    };
    assert_eq!(due(None, None), Some((day(90), Reason::Age)));
    assert_eq!(due(Some(30), None), Some((day(30), Reason::Age)));
    assert_eq!(due(Some(0), None), None);
    assert_eq!(due(None, Some(day(60))), Some((day(53), Reason::Expiry)));
    assert_eq!(due(Some(0), Some(day(60))), Some((day(53), Reason::Expiry)));
    // Of a short life two thirds, and nothing for one that is over.
    assert_eq!(due(None, Some(day(6))), Some((day(4), Reason::Expiry)));
    assert_eq!(due(Some(0), Some(day(0))), None);
    assert_eq!(due(Some(0), Some(later(day(0), HOUR / 2))), None);
}

#[test]
fn a_timetable_that_says_when_replaces_the_attribute_of_the_secret() {
    let facts = Facts { rotation_days: Some(1), ..facts("2027-01-01T00:00:00Z") };
    for (text, expected) in [
        ("every = '30d'", "2027-01-31T00:00:00Z"),
        ("cron = '0 3 15 * *'\ntimezone = 'UTC'", "2027-01-15T03:00:00Z"),
        ("cron = '0 3 15 * *'\nevery = '2d'\ntimezone = 'UTC'", "2027-01-03T00:00:00Z"),
        ("before_expiry = '1d'", "2027-01-02T00:00:00Z"),
    ] {
        assert_eq!(table(text).due(&facts, facts.since).unwrap().at, at(expected), "{text}");
    }
}

#[test]
fn what_was_missed_is_due_once() {
    let table = table("cron = '0 * * * *'\ntimezone = 'UTC'");
    let mut facts = facts("2027-01-01T00:30:00Z");
    let after_downtime = at("2027-01-11T12:10:00Z");
    let due = table.due(&facts, after_downtime).unwrap();
    assert_eq!((due.at, due.is_now(after_downtime)), (at("2027-01-01T01:00:00Z"), true));
    facts.since = after_downtime;
    let next = table.due(&facts, after_downtime).unwrap();
    assert_eq!((next.at, next.is_now(after_downtime)), (at("2027-01-11T13:00:00Z"), false));
}

#[test]
fn what_was_missed_waits_for_the_end_of_a_quiet_window() {
    let table = table("every = '1d'\nquiet = ['08:00-18:00']\ntimezone = 'UTC'");
    let facts = facts("2027-01-01T07:00:00Z");
    let due = |now| table.due(&facts, at(now)).unwrap().at;
    assert_eq!(due("2027-01-01T07:00:00Z"), at("2027-01-02T07:00:00Z"));
    assert_eq!(due("2027-01-05T12:00:00Z"), at("2027-01-05T18:00:00Z"));
    assert_eq!(due("2027-01-05T19:00:00Z"), at("2027-01-02T07:00:00Z"));
}

#[test]
fn a_clock_that_is_set_back_neither_rotates_again_nor_forgets() {
    let table = table("every = '30d'");
    let rotated = facts("2037-01-01T00:00:00Z");
    let now = at("2027-01-01T00:00:00Z");
    assert!(!table.due(&rotated, now).unwrap().is_now(now));
    let corrected = rotated.corrected(now);
    assert_eq!(corrected, Facts { since: at("2027-01-02T00:00:00Z"), ..rotated });
    assert_eq!(corrected.corrected(later(now, HOUR)), corrected);
    assert_eq!(table.due(&corrected, now).unwrap().at, at("2027-02-01T00:00:00Z"));
    // A failure from the future holds nothing back.
    let failure = Some(Failure { count: 9, at: rotated.since });
    let failed = Facts { failure, since: at("2026-01-01T00:00:00Z"), ..rotated };
    assert!(table.due(&failed, now).unwrap().is_now(now));
}

#[test]
fn clocks_that_are_changed_leave_out_no_day_and_double_none() {
    let berlin = |cron: &str| table(&format!("cron = '{cron}'\ntimezone = 'Europe/Berlin'"));
    let next = |table: &Timetable, since: &str| {
        let facts = facts(since);
        table.due(&facts, facts.since).unwrap().at.to_string()
    };
    let nightly = berlin("30 2 * * *");
    // On 28 March 2027 there is no half past two, on 31 October there are two.
    assert_eq!(next(&nightly, "2027-03-27T12:00:00Z"), "2027-03-28T01:30:00Z");
    assert_eq!(next(&nightly, "2027-03-28T01:30:00Z"), "2027-03-29T00:30:00Z");
    assert_eq!(next(&nightly, "2027-10-30T12:00:00Z"), "2027-10-31T00:30:00Z");
    assert_eq!(next(&nightly, "2027-10-31T00:30:00Z"), "2027-11-01T01:30:00Z");
    assert_eq!(next(&nightly, "2027-10-31T01:10:00Z"), "2027-11-01T01:30:00Z");
    let weekly = berlin("30 2 * * sun");
    assert_eq!(next(&weekly, "2027-03-22T12:00:00Z"), "2027-03-28T01:30:00Z");
    let leap = berlin("0 0 29 2 *");
    assert_eq!(next(&leap, "2096-03-01T00:00:00Z"), "2104-02-28T23:00:00Z");
}

#[test]
fn quiet_windows_end_when_the_local_clock_says_so() {
    let quiet = |hours: &str| table(&format!("quiet = ['{hours}']\ntimezone = 'Europe/Berlin'"));
    let end = |hours: &str, from: &str| quiet(hours).quiet().end(at(from)).to_string();
    // Its end is left out in spring: over as soon as the clocks say three.
    assert_eq!(end("01:00-02:30", "2027-03-28T00:15:00Z"), "2027-03-28T01:00:00Z");
    // In autumn it is two o'clock twice.
    assert_eq!(end("22:00-02:30", "2027-10-30T22:00:00Z"), "2027-10-31T00:30:00Z");
    assert_eq!(end("22:00-02:30", "2027-10-31T01:10:00Z"), "2027-10-31T01:30:00Z");
    assert_eq!(end("22:00-24:00", "2027-06-01T21:00:00Z"), "2027-06-01T22:00:00Z");
    assert_eq!(end("22:00-06:00", "2027-06-01T12:00:00Z"), "2027-06-01T12:00:00Z");
}

#[test]
fn failures_are_retried_ever_more_rarely_and_for_ever() {
    let table = table("every = '1d'");
    let facts = facts("2027-01-01T00:00:00Z");
    let mut failure: Option<Failure> = None;
    let mut now = at("2027-01-02T00:00:00Z");
    let end = later(now, DAY * 7);
    let mut attempts = 0;
    while now < end {
        attempts += 1;
        let count = failure.map_or(0, |failure| failure.count) + 1;
        failure = Some(Failure { count, at: now });
        let due = table.due(&Facts { failure, ..facts }, now).unwrap();
        let wait = Duration::try_from(due.at.duration_since(now)).unwrap();
        assert_eq!(due.reason, Reason::Retry);
        assert!(wait >= FIRST_RETRY && wait <= LONGEST_RETRY * 5 / 4, "{wait:?}");
        now = due.at;
    }
    assert!((25..45).contains(&attempts), "{attempts}");
    assert!(back_off(u32::MAX, SecretId([0xff; 16])) <= LONGEST_RETRY * 5 / 4);
}

#[test]
fn the_example_in_the_manual_is_a_timetable() {
    let manual = include_str!("../../docs/ROTATION.md");
    let section = manual.split("\n## ").find(|part| part.starts_with("Schedule")).unwrap();
    let example = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let example = table(example);
    // Friday noon and thirty days: a Sunday, and so not before Monday; the jitter of this id is nothing.
    let facts = facts("2027-01-01T12:00:00Z");
    assert_eq!(example.due(&facts, facts.since).unwrap().at, at("2027-01-31T23:00:00Z"));
}

#[test]
fn what_is_wrong_with_a_timetable_is_said_with_its_place() {
    let cases = [
        ("every = '90x'", "\"90x\" is no span: write it as \"90d\""),
        ("every = 90", "invalid type: integer `90`, expected a string"),
        ("every = '0d'", "`every` must not be nothing"),
        ("often = '1d'", "unknown field `often`"),
        ("cron = '0 3 * *'", "it has five fields: minute, hour, day, month and weekday"),
        ("cron = '61 * * * *'", "\"61 * * * *\" is no cron expression"),
        ("cron = '0 0 30 2 *'", "no day is like that"),
        ("cron = '0 0 * * * UTC'", "it has five fields"),
        ("timezone = 'Mars/Base'", "\"Mars/Base\" is no time zone known here"),
        ("quiet = ['8-18']", "\"8-18\" is no window of hours"),
        ("quiet = [{ days = ['funday'] }]", "\"funday\" is no day"),
        ("quiet = [{ days = 7 }]", "expected a string or a list of strings"),
        ("quiet = [{ hour = '08:00-18:00' }]", "unknown field `hour`"),
        ("quiet = [{}]", "a quiet window needs `hours` or `days`"),
        ("quiet = [7]", "expected hours such as \"08:00-18:00\", or a table"),
        ("quiet = ['00:00-12:00', '12:00-24:00']", "the quiet windows leave no time at all"),
    ];
    for (text, expected) in cases {
        let document = format!("[schedule]\n{text}");
        let error = toml::from_str::<BTreeMap<String, Timetable>>(&document).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(error.span().is_some(), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn nothing_is_due_inside_a_quiet_window_and_all_is_due_some_time(
        table in timetables(),
        facts in some_facts(),
        now in moments(),
    ) {
        let due = table.due(&facts, now).unwrap();
        prop_assert!(!table.quiet().holds(due.at));
        prop_assert!(!(due.is_now(now) && table.quiet().holds(now)));
        // The clock goes on to then, and meanwhile somebody has corrected what was written down.
        let then = due.at.max(now);
        prop_assert!(table.due(&facts.corrected(now), then).unwrap().is_now(then));
    }

    #[test]
    fn a_later_start_is_never_due_earlier(
        table in timetables(),
        facts in some_facts(),
        by in 0_u64..10_000_000,
    ) {
        let now = at("2032-01-01T00:00:00Z");
        let earlier = Facts { failure: None, ..facts };
        let moved = Facts { since: later(facts.since, Duration::from_secs(by)), ..earlier };
        let (first, second) = (table.due(&earlier, now).unwrap(), table.due(&moved, now).unwrap());
        // An expiry that is nearly reached by then is not counted any more.
        if first.reason != Reason::Expiry {
            prop_assert!(first.at <= second.at);
        }
    }

    #[test]
    fn jitter_only_delays_by_less_than_its_span_and_is_not_drawn_again(
        facts in some_facts(),
        jitter in 1_u32..48,
        cron in any::<bool>(),
    ) {
        let when = if cron { "cron = '17 */5 * * *'" } else { "every = '3d'" };
        let base = format!("{when}\ntimezone = 'UTC'\n");
        let now = facts.since;
        let facts = Facts { failure: None, expires: None, ..facts };
        let plain = table(&base).due(&facts, now).unwrap().at;
        let jittered = table(&format!("{base}jitter = '{jitter}h'"));
        let due = jittered.due(&facts, now).unwrap();
        prop_assert!(due.at >= plain && due.at < later(plain, HOUR * jitter));
        prop_assert_eq!(jittered.clone().due(&facts, now), Some(due));
    }

    #[test]
    fn a_clock_that_jumps_about_neither_rotates_too_often_nor_starves_a_secret(
        table in timetables(),
        start in moments(),
        id in any::<[u8; 16]>(),
        jumps in prop::collection::vec(-4_000_000_i64..4_000_000, 1..60),
    ) {
        let mut facts = Facts { id: SecretId(id), ..facts_at(start) };
        let mut now = start;
        let honest = facts;
        let next_after = |since| table.due(&Facts { since, ..honest }, since).unwrap().at;
        let mut gone_forward = jiff::SignedDuration::ZERO;
        let mut needed = next_after(start).duration_since(start);
        for jump in jumps.into_iter().map(jiff::SignedDuration::from_secs) {
            now += jump;
            gone_forward += jump.max(jiff::SignedDuration::ZERO);
            facts = facts.corrected(now);
            let due = table.due(&facts, now).unwrap();
            prop_assert!(due.at <= next_after(later(now, DAY)));
            if due.is_now(now) {
                prop_assert!(gone_forward >= needed.min(DAY.try_into().unwrap()));
                gone_forward = jiff::SignedDuration::ZERO;
                needed = next_after(now).duration_since(now);
                facts.since = now;
            }
        }
    }
}

#[test]
fn jitter_spreads_many_secrets_evenly() {
    let table = table("every = '1d'\njitter = '10h'");
    let mut per_hour = [0; 10];
    for number in 0..10_000_u32 {
        let mut id = [0; 16];
        // As random as ids are.
        id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_769).to_be_bytes());
        let facts = Facts { id: SecretId(id), ..facts("2027-01-01T00:00:00Z") };
        let due = table.due(&facts, facts.since).unwrap().at;
        let hour = due.duration_since(later(facts.since, DAY)).as_hours();
        per_hour[usize::try_from(hour).unwrap()] += 1;
    }
    assert!(per_hour.iter().all(|count| (950..=1050).contains(count)), "{per_hour:?}");
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn table(text: &str) -> Timetable {
    toml::from_str(text).unwrap()
}

fn facts(since: &str) -> Facts {
    facts_at(at(since))
}

fn facts_at(since: Timestamp) -> Facts {
    Facts { id: SecretId([0; 16]), since, expires: None, rotation_days: None, failure: None }
}

fn moments() -> impl Strategy<Value = Timestamp> {
    // 2027 to 2032.
    (1_798_761_600_i64..1_956_528_000).prop_map(|second| Timestamp::from_second(second).unwrap())
}

prop_compose! {
    fn some_facts()(
        id in any::<[u8; 16]>(),
        since in moments(),
        expires in prop::option::of(moments()),
        failure in prop::option::of((1_u32..40, moments())),
    ) -> Facts {
        let failure = failure.map(|(count, at)| Failure { count, at });
        Facts { id: SecretId(id), since, expires, rotation_days: None, failure }
    }
}

fn timetables() -> impl Strategy<Value = Timetable> {
    let when = prop::sample::select(vec![
        "every = '1d'",
        "every = '5h'",
        "every = '45d'",
        "cron = '30 2 * * *'",
        "cron = '*/7 1-3 * * mon,sun'",
        "cron = '0 0 31 * *'",
        "cron = '0 12 * * *'\nevery = '100d'",
        "before_expiry = '3d'",
    ]);
    let quiet = prop::sample::select(vec![
        "",
        "quiet = ['08:00-18:00']",
        "quiet = ['22:00-02:30', { days = ['sat', 'sun'] }]",
        "quiet = [{ hours = ['01:00-02:30', '23:59-24:00'], days = 'sun' }]",
        "quiet = ['00:00-02:10', '02:20-24:00']",
        "quiet = [{ days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat'] }, '03:00-23:00']",
    ]);
    let jitter = prop::sample::select(vec!["", "jitter = '90m'", "jitter = '3d'"]);
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns"]);
    (when, quiet, jitter, zone).prop_map(|(when, quiet, jitter, zone)| {
        assert!(TimeZone::get(zone).is_ok(), "this machine has no time zones");
        table(&format!("{when}\n{quiet}\n{jitter}\ntimezone = '{zone}'"))
    })
}
