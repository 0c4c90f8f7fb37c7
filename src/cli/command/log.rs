//! `log`: who did what, out of the audit log.
//!
//! The log is one file that grows, so it is read as one and filtered here; the daemon records that
//! it was opened. It shows whatever callers chose (names, programs), escaped by the printer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use self::stats::{Sole, Stats};
use super::Done;
use crate::audit::export::{Format, export};
use crate::audit::{Action, Entry, Outcome};
use crate::cli::Context;
use crate::cli::args::{Log, LogFormat};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::{Out, text_of};
use crate::cli::table::short_time;
use crate::cli::when::{self, Direction};
use crate::daemon::compose;
use crate::model::{Clock, SecretName, Timestamp};

mod stats;

const COLUMNS: [&str; 8] =
    ["time", "user", "action", "outcome", "secret", "version", "program", "rule"];

pub(super) fn run(context: &Context, args: &Log) -> Done {
    let filter = Filter::new(args, compose::clock().as_ref())?;
    let client = context.client()?;
    let (mut kept, mut stats) = (VecDeque::new(), Stats::default());
    let about_one = filter.sole().is_some_and(|sole| sole != Sole::Nothing);
    let totals = args.stats || filter.name.is_some() || about_one;
    let mut keep = |event: Value| {
        if totals {
            stats.count(&event);
        }
        kept.push_back(event);
        if args.limit > 0 && kept.len() > args.limit {
            kept.pop_front();
        }
    };
    // What is asked for is found by the daemon, which need not read all; a log that is followed is read here.
    let mut lines = None;
    if args.follow || filter.sole() == Some(Sole::Nothing) {
        let lines = lines.insert(Lines::open(&client)?);
        while let Some(line) = lines.next()? {
            filter.admit(&line).into_iter().for_each(&mut keep);
        }
    } else {
        search(&client, &filter, &mut keep)?;
    }
    if totals {
        stats.add_removed(&client, &filter)?;
    }
    if args.stats {
        return stats.show(&context.out, compose::clock().now());
    }
    let printer = Printer::new(&context.out, args.format);
    printer.show(kept.make_contiguous())?;
    if totals && args.format.is_none() && !context.out.is_json() {
        context.out.note(stats.line());
    }
    let Some(lines) = lines.as_mut().filter(|_| args.follow) else { return Ok(()) };
    loop {
        match lines.next()? {
            Some(line) => printer.show(filter.admit(&line).as_slice())?,
            // The file tells of no growth by itself; a fifth of a second is at once for a person.
            None => thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Has the daemon find what is asked for, page by page.
fn search(client: &Client, filter: &Filter, keep: &mut dyn FnMut(Value)) -> Done {
    let mut question = filter.question();
    loop {
        let found =
            client.control("audit/find", Value::Object(question.clone()).to_string().as_bytes());
        let mut found =
            found.map_err(|failure| failure.hint("the log is for admins; others have `events`"))?;
        let entries = found.get_mut("entries").map(Value::take);
        let Some(Value::Array(entries)) = entries else {
            return Err(Failure::new(
                Kind::BackendConnection,
                "the audit log",
                "a malformed answer",
            ));
        };
        entries.into_iter().filter(|event| filter.fits(event)).for_each(&mut *keep);
        match found.get("next").filter(|next| next.is_u64()) {
            Some(next) => question.insert("after".to_owned(), next.clone()),
            None => return Ok(()),
        };
    }
}

/// The lines of a file that may grow: a last line without its end waits for the rest.
struct Lines<R>(BufReader<R>);

impl Lines<File> {
    fn open(client: &Client) -> Result<Self, Failure> {
        let file = File::open(client.path(".control/audit/log")).map_err(|err| {
            let failure = Failure::from_errno("the audit log", &err);
            failure.hint("it is for admins; others have `events`")
        })?;
        Ok(Self(BufReader::new(file)))
    }
}

impl<R: io::Read> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        loop {
            let read = self.0.read_until(b'\n', &mut line);
            let read = read.map_err(|err| Failure::from_errno("the audit log", &err))?;
            match (read, line.ends_with(b"\n")) {
                (0, _) if line.is_empty() => return Ok(None),
                (_, true) => return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned())),
                // The daemon writes whole lines, so the rest is there the moment we look again.
                (_, false) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// What is asked for.
#[derive(Debug, Default)]
struct Filter {
    name: Option<SecretName>,
    uid: Option<u32>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Members that must have exactly this text.
    exact: Vec<(&'static str, String)>,
    unit: Option<String>,
}

impl Filter {
    fn new(args: &Log, clock: &dyn Clock) -> Result<Self, Failure> {
        let time = |option: &'static str, text: &Option<String>| {
            let parsed = text.as_ref().map(|text| when::parse(text, clock.now(), Direction::Ago));
            parsed.transpose().map_err(|why| Failure::new(Kind::Config, option, why))
        };
        let exact = [
            ("exe", args.exe.clone()),
            ("outcome", args.outcome.clone()),
            ("action", args.action.clone()),
        ];
        Ok(Self {
            name: args.name.clone(),
            uid: args.uid,
            since: time("--since", &args.since)?,
            until: time("--until", &args.until)?,
            exact: exact.into_iter().filter_map(|(key, text)| Some((key, text?))).collect(),
            unit: args.unit.clone(),
        })
    }

    /// Returns the one thing that is asked for, if it is not more than one.
    fn sole(&self) -> Option<Sole<'_>> {
        let exact: Vec<_> = self.exact.iter().map(|(key, text)| (*key, text.as_str())).collect();
        match (&self.name, self.uid, &self.unit, exact.as_slice(), self.since, self.until) {
            (None, None, None, [], None, None) => Some(Sole::Nothing),
            (Some(name), None, None, [], None, None) => Some(Sole::Name(name)),
            (None, Some(uid), None, [], None, None) => Some(Sole::Uid(uid)),
            (None, None, Some(unit), [], None, None) => Some(Sole::Unit(unit)),
            (None, None, None, [("exe", exe)], None, None) => Some(Sole::Exe(exe)),
            _ => None,
        }
    }

    /// Returns what the daemon is asked: what fits is among that, and is looked at again.
    fn question(&self) -> Map<String, Value> {
        let mut question = Map::new();
        let mut ask = |key: &str, value: Option<Value>| {
            question.extend(value.map(|value| (key.to_owned(), value)));
        };
        ask("name", self.name.as_ref().map(|name| name.as_str().into()));
        ask("uid", self.uid.map(Value::from));
        ask("unit", self.unit.as_deref().map(Value::from));
        ask("since", self.since.map(|since| since.to_string().into()));
        // The daemon leaves the moment itself out.
        let until = self.until.and_then(|until| until.checked_add(Duration::from_micros(1)).ok());
        ask("until", until.map(|until| until.to_string().into()));
        for (key, text) in &self.exact {
            // A word that is none in the log is in no line.
            let is_known = match *key {
                "action" => text.parse::<Action>().is_ok(),
                "outcome" => text.parse::<Outcome>().is_ok(),
                _ => true,
            };
            ask(key, is_known.then(|| text.as_str().into()));
        }
        question
    }

    /// Returns the event of a line, if it is one and is asked for.
    fn admit(&self, line: &str) -> Option<Value> {
        let event: Value = serde_json::from_str(line).ok()?;
        self.fits(&event).then_some(event)
    }

    fn fits(&self, event: &Value) -> bool {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let uid = event.get("uid").and_then(Value::as_u64);
        let time = text("time").and_then(|time| time.parse::<Timestamp>().ok());
        let secret = text("secret").and_then(|name| name.parse::<SecretName>().ok());
        // What an event does not say, no filter on it lets through.
        let fits = |wanted: Option<bool>| wanted.unwrap_or(true);
        let within = |edge: Option<Timestamp>, holds: fn(Timestamp, Timestamp) -> bool| {
            edge.map(|edge| time.is_some_and(|time| holds(time, edge)))
        };
        fits(self.name.as_ref().map(|wanted| {
            secret.is_some_and(|secret| secret == *wanted || secret.is_below(wanted))
        })) && fits(self.uid.map(|wanted| uid == Some(wanted.into())))
            && fits(within(self.since, |time, since| time >= since))
            && fits(within(self.until, |time, until| time <= until))
            && self.exact.iter().all(|(key, wanted)| text(key) == Some(wanted))
            && fits(self.unit.as_ref().map(|wanted| {
                text("unit").is_some_and(|unit| {
                    unit == wanted || unit.rsplit('/').next() == Some(wanted.as_str())
                })
            }))
    }
}

/// Prints events as they are wanted.
struct Printer<'a> {
    out: &'a Out,
    format: Option<Format>,
    host: String,
}

impl<'a> Printer<'a> {
    fn new(out: &'a Out, format: Option<LogFormat>) -> Self {
        let format = format.map(|format| match format {
            LogFormat::Cef => Format::Cef,
            LogFormat::Json => Format::Json,
            LogFormat::Ocsf => Format::Ocsf,
        });
        let host =
            nix::sys::utsname::uname().map(|host| host.nodename().to_string_lossy().into_owned());
        Self { out, format, host: host.unwrap_or_else(|_| "localhost".into()) }
    }

    fn show(&self, events: &[Value]) -> Done {
        let Some(format) = self.format else {
            events.iter().try_for_each(|event| self.out.json(event))?;
            let rows: Vec<Vec<String>> = events.iter().map(row).collect();
            return self.out.table(&COLUMNS, &rows);
        };
        let failed = |err: serde_json::Error| {
            Failure::new(Kind::BackendConnection, "a line of the audit log", err.to_string())
        };
        for event in events {
            let entry = Entry::deserialize(event).map_err(failed)?;
            let line = export(&entry, format, &self.host).map_err(failed)?;
            // Not by the printer of texts: it is escaped by the rules of its format.
            self.out.bytes(format!("{line}\n").as_bytes())?;
        }
        Ok(())
    }
}

fn row(event: &Value) -> Vec<String> {
    let text = |key: &str| event.get(key).map(text_of).unwrap_or_default();
    let first = |keys: [&str; 2]| {
        keys.into_iter().map(text).find(|text| !text.is_empty()).unwrap_or_default()
    };
    vec![
        short_time(&text("time")),
        first(["user", "uid"]),
        text("action"),
        text("outcome"),
        text("secret"),
        text("version"),
        first(["exe", "comm"]),
        first(["rule", "reason"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "seq": 1, "time": "2026-11-24T12:00:00.5Z", "action": "read", "outcome": "allowed",
            "secret": "prod/db/password", "version": 3, "uid": 1000, "exe": "/usr/bin/cat",
            "unit": "system.slice/nginx.service", "rule": null,
        })
    }

    #[test]
    fn each_filter_lets_its_own_through_and_nothing_else() {
        let cases: [(Filter, bool); 10] = [
            (Filter::default(), true),
            (Filter { name: "prod/db".parse().ok(), ..Filter::default() }, true),
            (Filter { name: "prod/d".parse().ok(), ..Filter::default() }, false),
            (Filter { uid: Some(1000), ..Filter::default() }, true),
            (Filter { uid: Some(0), ..Filter::default() }, false),
            (Filter { since: "2026-11-24T12:00:01Z".parse().ok(), ..Filter::default() }, false),
            (Filter { until: "2026-11-24T12:00:01Z".parse().ok(), ..Filter::default() }, true),
            (Filter { exact: vec![("outcome", "denied".into())], ..Filter::default() }, false),
            (Filter { unit: Some("nginx.service".into()), ..Filter::default() }, true),
            (Filter { unit: Some("inx.service".into()), ..Filter::default() }, false),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.fits(&event()), expected, "{filter:?}");
        }
    }

    #[test]
    fn an_event_that_does_not_say_is_not_let_through_by_a_filter_on_it() {
        let bare = json!({ "seq": 1 });
        assert!(Filter::default().fits(&bare));
        assert!(!Filter { uid: Some(0), ..Filter::default() }.fits(&bare));
        assert!(!Filter { since: Some(Timestamp::MIN), ..Filter::default() }.fits(&bare));
    }

    #[test]
    fn lines_are_whole_and_what_is_no_event_is_left_out() {
        let text = format!("not json\n{}\n", event());
        let mut lines = Lines(BufReader::new(text.as_bytes()));
        let mut admitted = 0;
        while let Some(line) = lines.next().unwrap() {
            admitted += usize::from(Filter::default().admit(&line).is_some());
        }
        assert_eq!(admitted, 1);
    }

    #[test]
    fn a_row_prefers_names_to_numbers() {
        assert_eq!(row(&event())[..3], ["2026-11-24T12:00:00Z", "1000", "read"]);
    }
}
