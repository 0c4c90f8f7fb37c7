#!/usr/bin/env python3
"""Counts a raw log anew and compares what a report says of it, as JSON and on its page.

    scripts/report-count.py LOG REPORT.json PAGE.html

LOG has the lines of `secretfs log --json` or of STATE/audit; the others are what `secretfs report --replay LOG` made of
it. Knows nothing of the program: it reads the lines with `json`, and the page with `html.parser`. Exit code 1 if a
number differs.
"""
import collections
import html.parser
import json
import sys
from datetime import datetime, timedelta, timezone

ACCESSES = {"append", "check", "delete", "destroy", "promote", "read", "rename", "restore", "rotate", "set_attribute",
            "stage", "write"}
OUTCOMES = ("allowed", "denied", "failed")
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
TOP = 20

wrong = 0


def same(what, counted, reported):
    global wrong
    if counted != reported:
        wrong += 1
        print(f"{what}: counted {counted!r}, reported {reported!r}")


def moment(text):
    seconds, _, rest = text.rstrip("Z").partition(".")
    at = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc)
    return at + timedelta(microseconds=int((rest + "000000")[:6]))


class Tables(html.parser.HTMLParser):
    """The rows of every table of a page, by the id of the table or of what is around it."""

    def __init__(self):
        super().__init__()
        self.rows, self.id, self.cell = collections.defaultdict(list), None, None

    def handle_starttag(self, tag, attributes):
        self.id = dict(attributes).get("id", self.id)
        if tag == "tr":
            self.rows[self.id].append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[self.id][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def main():
    log, report, page = sys.argv[1:]
    report = json.load(open(report))
    since, until = moment(report["since"]), moment(report["made"])
    count = lambda: collections.Counter()
    total, days, callers, secrets = count(), collections.defaultdict(count), collections.defaultdict(count), collections.defaultdict(count)
    reads, reads_of, hours, users, written = count(), count(), [[0] * 24 for _ in WEEKDAYS], {}, {}
    lines = 0
    for line in open(log):
        event = json.loads(line)
        at = moment(event["time"])
        if event["action"] in ("write", "promote") and event["outcome"] == "allowed":
            written[event["secret"]] = at
        if not since <= at <= until:
            continue
        lines += 1
        if event["user"]:
            users[event["uid"]] = event["user"]
        if event["secret"] is None or event["action"] not in ACCESSES:
            continue
        outcome, caller = event["outcome"], (event["uid"], event["exe"])
        total[outcome] += 1
        days[event["time"][:10]][outcome] += 1
        hours[at.weekday()][at.hour] += 1
        callers[caller][outcome] += 1
        secrets[event["secret"]][outcome] += 1
        if outcome == "allowed" and event["action"] in ("read", "append"):
            reads[caller] += 1
            reads_of[event["secret"]] += 1
    of = lambda counter: {outcome: counter[outcome] for outcome in OUTCOMES}
    counts = report["counts"]
    same("lines", lines, counts["lines"])
    same("accesses", of(total), counts["accesses"])
    same("days", {day: of(counter) for day, counter in days.items()}, counts["days"])
    same("hours", hours, counts["hours"])
    same("callers", {key: of(counter) for key, counter in callers.items()},
         {(caller["uid"], caller["exe"]): numbers for caller, numbers in counts["callers"]})
    reported = {name: numbers for name, numbers in counts["secrets"].items() if any(numbers.values())}
    same("secrets", {name: {**of(counter), "reads": reads_of[name]} for name, counter in secrets.items()}, reported)

    tables = Tables()
    tables.feed(open(page).read())
    first = min(days)
    span = (until.date() - datetime.fromisoformat(first).date()).days
    dates = [(datetime.fromisoformat(first) + timedelta(days=n)).strftime("%Y-%m-%d") for n in range(span + 1)]
    row = lambda day: [day, *map(str, [sum(days[day].values()), *(days[day][outcome] for outcome in OUTCOMES)])]
    same("page: days", [row(day) for day in dates], tables.rows["numbers-days"][1:])
    same("page: hours", [[day, *map(str, numbers)] for day, numbers in zip(WEEKDAYS, hours)], tables.rows["numbers-hours"][1:])
    named = lambda uid: f"{users[uid]} ({uid})" if uid in users else str(uid)
    ranked = sorted(reads.items(), key=lambda item: (-item[1], item[0][0], item[0][1] or ""))[:TOP]
    same("page: readers", [[named(uid), exe, "", str(number)] for (uid, exe), number in ranked], tables.rows["numbers-readers"][1:])
    ages = sorted(((until - at).days, name) for name, at in written.items())
    same("page: oldest", [str(days) for days, _ in reversed(ages)][:TOP], [row[-1] for row in tables.rows["numbers-oldest"][1:]])
    print(f"{lines} lines, {sum(total.values())} accesses, {len(callers)} callers, {len(secrets)} secrets: "
          f"{'every number is the same' if not wrong else f'{wrong} differ'}")
    sys.exit(1 if wrong or not total else 0)


main()
