#!/usr/bin/env python3
"""Makes a month of a fleet's audit log, with incidents whose labels go to a file of their own.

    scripts/anomaly-month.py --seed N [--days 30] [--incidents 40] [--scale 1.0] LOG LABELS

LOG gets the lines of `secretfs log --json`; LABELS one JSON object an incident: kind, secret, lines. The
detectors are given LOG alone. The same arguments give the same bytes. Life goes on as it does: services read at
start, on demand and on a rotation, jobs come by the clock with jitter, people work on workdays and some at weekends,
programs are released and upgraded, secrets are rotated, new services arrive, a backup walks over everything; and
now and then somebody is called out of bed, a batch has a backlog, and the month is closed.
"""
import argparse
import hashlib
import json
import random
from datetime import datetime, timedelta, timezone

BEGIN = datetime(2026, 9, 28, tzinfo=timezone.utc)  # a Monday
HOUR, DAY = 3600, 86400

SERVICES = ["web", "api", "billing", "search", "mailer", "auth", "orders", "stock", "metrics", "chat", "push", "media"]
TEAMS = ["prod", "shared", "batch"]
# Digests are public texts' hashes: nothing here is a secret.
digest = lambda *words: hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


class Fleet:
    def __init__(self, seed, days, scale):
        self.random = random.Random(f"secretfs-month-{seed}")
        self.days, self.scale = days, scale
        self.lines, self.labels, self.rotated = [], [], []
        self.states, self.serial = {}, 0

    # One line of the log, at a second after the beginning.
    def line(self, at, who, secret, action="read", outcome="allowed", version=None, reason=None, age=None, label=None,
             **more):
        start = at - (age if age is not None else who.get("age", 2))
        if who.get("since") is not None and age is None:
            start = who["since"]
        time = lambda second: (BEGIN + timedelta(seconds=round(second, 6))).isoformat(timespec="microseconds")[:-6] + "Z"
        self.serial += 1
        event = {
            "time": time(at), "action": action, "outcome": outcome, "secret": secret,
            "version": version, "uid": who["uid"], "user": who.get("user"), "gid": who["uid"], "tid": who.get("pid", 1000),
            "pid": who.get("pid", 1000 + self.serial % 30000), "start_time": time(start), "exe": who["exe"],
            "comm": who["exe"].rsplit("/", 1)[-1][:15], "unit": who.get("unit"), "container": who.get("container"),
            "rule": "fleet: fleet allow 1" if outcome != "denied" else None, "reason": reason,
        }
        if who.get("sha"):
            event["exe_sha256"] = who["sha"]
        event.update(more)
        self.lines.append((at, self.serial, event, label))

    # What is current is only known once all is in order: versions are filled in at the end.
    def read(self, at, who, secret, **more):
        self.line(at, who, secret, **more)

    def service(self, name, container=False):
        uid = 900 + len(self.services)
        who = {"uid": uid, "user": name, "exe": f"/srv/{name}/bin/{name}", "sha": digest(name, 0), "since": -3 * DAY,
               "pid": 2000 + uid, "name": name, "release": 0}
        if container:
            who["container"] = "podman:" + digest(name, "c", 0)
        else:
            who["unit"] = f"system.slice/{name}.service"
        self.states[name] = [(-4 * DAY, dict(who))]
        return who

    def as_of(self, service, at):
        """A service as it ran at that time."""
        return [who for since, who in self.states[service["name"]] if since <= at][-1]

    def build(self):
        r = self.random
        self.services = []
        for index, name in enumerate(SERVICES):
            self.services.append(self.service(name, container=index % 4 == 3))
        self.secrets = {name: [f"prod/{name}/{part}" for part in ("db", "api-key", "tls-key")] for name in SERVICES}
        self.shared = [f"shared/{name}" for name in ("smtp", "queue", "sentry", "ldap", "proxy")]
        self.batch = [f"batch/{name}" for name in ("etl", "report", "invoice", "export")]
        self.old = [f"archive/{name}" for name in ("vpn", "dns", "legacy-db", "ca-key", "partner", "sftp")]
        root = lambda exe, unit: {"uid": 0, "user": "root", "exe": exe, "sha": digest(exe, 0), "unit": unit}
        self.backup = root("/usr/bin/restic", "system.slice/backup.service")
        self.updatedb = root("/usr/bin/updatedb", "system.slice/updatedb.service")
        self.jobs = [
            (root("/usr/bin/pg_dump", "system.slice/dump.service"), "prod/billing/db", [2]),
            (root("/usr/bin/logrotate", "system.slice/logrotate.service"), "shared/sentry", [0]),
            ({"uid": 70, "exe": "/opt/etl/etl", "sha": digest("etl"), "unit": "system.slice/etl.service"}, "batch/etl", [1, 5, 9, 13, 17, 21]),
            ({"uid": 71, "exe": "/opt/report/report", "sha": digest("report"), "unit": "system.slice/report.service"}, "batch/report", [6]),
            ({"uid": 72, "exe": "/opt/invoice/invoice", "sha": digest("invoice"), "unit": "system.slice/invoice.service"}, "batch/invoice", [22]),
            ({"uid": 73, "exe": "/opt/export/export", "sha": digest("export"), "unit": "system.slice/export.service"}, "batch/export", list(range(0, 24, 2))),
            ({"uid": 74, "exe": "/usr/bin/curl", "sha": digest("curl"), "unit": "system.slice/probe.service"}, "shared/proxy", list(range(24))),
        ]
        self.admins = []
        for index, (name, hours, weekend) in enumerate([("ada", (8, 17), 0.1), ("bob", (9, 18), 0.6), ("cyn", (7, 16), 0.5), ("dan", (10, 19), 0.05)]):
            self.admins.append({"uid": 1000 + index, "user": name, "exe": "/usr/bin/cat", "sha": digest("cat"), "hours": hours, "weekend": weekend,
                                "secrets": r.sample([s for all in self.secrets.values() for s in all], 6) + r.sample(self.shared, 2)})
        for secret in self.everything():
            self.line(1 + r.random() * 600, root("/usr/bin/secretfs", "user.slice/user-0.slice/session-1.scope"), secret, action="write")
        for secret in self.old:
            for _ in range(4):
                self.read(HOUR + r.random() * 3 * DAY, self.jobs[0][0], secret)

    def everything(self):
        return [s for all in self.secrets.values() for s in all] + self.shared + self.batch + self.old

    def lasting(self):
        """What is there from the first day on, and in use."""
        return [s for name in SERVICES for s in self.secrets[name]] + self.shared + self.batch

    def normal(self):
        r = self.random
        session = 10
        for day in range(self.days):
            at, weekday = day * DAY, day % 7
            for who in self.services:
                self.service_day(who, at, weekday)
            for who, secret, hours in self.jobs:
                for hour in hours:
                    if r.random() < 0.98:
                        begin = at + hour * HOUR + r.gauss(240, 90)
                        backlog = 15 if who["uid"] == 70 and r.random() < 0.02 else 1
                        for _ in range(r.randint(1, 3) * backlog):
                            self.read(begin + r.random() * 30, who | self.bytes_of(who, begin), secret, age=r.random() * 4)
            # The backup reads whatever there is, and updatedb knocks at every door.
            for index, secret in enumerate(self.everything()):
                self.read(at + 3 * HOUR + 300 + index * 0.05, self.backup | self.bytes_of(self.backup, at), secret, age=30 + index * 0.05)
                self.line(at + 4 * HOUR + 60 + index * 0.01, self.updatedb, secret, action="check", outcome="denied", reason="no rule")
            for admin in self.admins:
                if weekday < 5 and r.random() < 0.93 or weekday >= 5 and r.random() < admin["weekend"]:
                    session += 1
                    who = admin | {"unit": f"user.slice/user-{admin['uid']}.slice/session-{session}.scope"}
                    first, last = admin["hours"]
                    for _ in range(r.randint(2, 9)):
                        when = at + (first + r.random() * (last - first)) * HOUR
                        self.read(when, who, r.choice(admin["secrets"]), age=r.random() * 2)
                        if r.random() < 0.06:
                            self.line(when + 5, who, r.choice(self.everything()), action="check", outcome="denied", reason="no rule")
                if r.random() < 0.02:
                    session += 1
                    who = admin | {"unit": f"user.slice/user-{admin['uid']}.slice/session-{session}.scope"}
                    self.read(at + r.random() * 5 * HOUR, who, r.choice(admin["secrets"]), age=1)
            if day == 27:
                closing = {"uid": 75, "exe": "/opt/closing/closing", "sha": digest("closing"), "unit": "system.slice/closing.service"}
                for secret in self.batch:
                    self.read(at + 20 * HOUR + r.random() * 60, closing, secret)
            self.rotations(day)
            if day in (9, 16, 23):
                self.arrive(f"new{day}", at + 11 * HOUR + r.random() * 3 * HOUR, r)
    def service_day(self, who, at, weekday):
        r, name = self.random, who["name"]
        if at < who.get("arrives", 0):
            return
        before, change = dict(who), at
        if weekday < 4 and r.random() < 0.3:
            change = at + (9 + r.random() * 7) * HOUR
            self.deploy(who, change)
        elif r.random() < 0.08:  # a crash or a reboot
            change = at + r.random() * DAY
            self.restart(who, change)
        busy = 1.0 if weekday < 5 else 0.6
        for _ in range(max(1, int(r.gauss(14, 3) * busy * self.scale))):
            hour = min(max(r.gauss(13, 5), 0), 23.99) if r.random() < 0.8 else r.random() * 24
            when = at + hour * HOUR
            self.read(when, before if when < change else who, r.choice(self.secrets[name]))
        for secret in self.shared[: 2 + who["uid"] % 3]:
            when = at + r.random() * DAY
            self.read(when, before if when < change else who, secret)

    def restart(self, who, at):
        who["since"], who["pid"] = at, who["pid"] + 1
        if who.get("container"):
            who["container"] = "podman:" + digest(who["name"], "c", at)
        self.states[who["name"]].append((at, dict(who)))
        for secret in self.secrets[who["name"]]:
            self.read(at + 1 + self.random.random(), who, secret)

    def deploy(self, who, at):
        who["release"] += 1
        who["sha"] = digest(who["name"], who["release"])
        self.restart(who, at)

    def bytes_of(self, who, at):
        """The distribution's packages: what it has brought has other bytes from an upgrade on."""
        if not who["exe"].startswith("/usr/bin/"):
            return {}
        return {"sha": digest(who["exe"], sum(at >= upgrade * DAY + 13 * HOUR for upgrade in (11, 25)))}

    def arrive(self, name, at, r):
        who = self.service(name)
        who.update(arrives=at + DAY, since=at + 60)
        self.states[name] = [(-4 * DAY, dict(who))]
        self.secrets[name] = [f"prod/{name}/{part}" for part in ("db", "api-key", "tls-key")]
        admin = {"uid": 1001, "user": "bob", "exe": "/usr/bin/secretfs", "sha": digest("secretfs"), "unit": "user.slice/user-1001.slice/session-7.scope"}
        for index, secret in enumerate(self.secrets[name]):
            self.line(at + index * 20, admin, secret, action="write")
        self.services.append(who)
        for secret in self.secrets[name] + self.shared[:2]:
            self.read(at + 120 + r.random() * 5, who, secret)

    def rotations(self, day):
        r = self.random
        for name in list(self.secrets):
            if (day + hash_of(name)) % 10 == 0:
                secret = self.secrets[name][day % 2]
                at = day * DAY + 10 * HOUR + hash_of(name) % 7200
                self.rotated.append((at, secret))
                self.line(at, {"uid": 0, "exe": "/usr/bin/secretfs", "sha": digest("secretfs"), "unit": "system.slice/secretfs.service"}, secret,
                          action="write")
                if name in self.states:
                    self.read(at + 3 + r.random() * 5, self.as_of({"name": name}, at), secret)

    # The incidents, each of one kind.
    def incidents(self, count):
        r = self.random
        kinds = [self.stranger, self.other_program, self.swapped, self.at_night, self.burst, self.silence, self.refusals,
                 self.walk, self.long_lived, self.old_version, self.passed_on, self.crawler]
        first = 13
        for index in range(count):
            kind = kinds[index % len(kinds)]
            day = first + (index * (self.days - first)) // count
            label = {"kind": kind.__name__, "number": index}
            self.labels.append(label)
            kind(label, day * DAY, index // len(kinds))

    def victim(self):
        return self.random.choice([s for name in SERVICES for s in self.secrets[name]])

    def office(self, day):
        return day + (9 + self.random.random() * 8) * HOUR

    def stranger(self, label, day, round):
        """A user who never used the secret, with a tool."""
        who = {"uid": 33 + round, "exe": self.random.choice(["/usr/bin/head", "/usr/bin/python3", "/usr/bin/base64"]), "sha": digest("tool"),
               "unit": "system.slice/cups.service"}
        self.read(self.office(day), who, self.victim(), label=label)

    def other_program(self, label, day, round):
        """A service's own user and unit, with a shell in place of the service."""
        service = self.services[round * 2]
        who = service | {"exe": "/usr/bin/dash", "sha": digest("dash"), "since": None, "age": 1, "pid": 9000 + round}
        self.read(self.office(day), who, self.random.choice(self.secrets[service["name"]]), label=label)

    def swapped(self, label, day, round):
        """The program of a job has other bytes, and the old ones come back."""
        job = self.jobs[2 + round % 4]
        who, hours = job[0], job[2]
        self.read(day + self.random.choice(hours) * HOUR + 200, who | {"sha": digest("evil", round)}, job[1], label=label, age=1)

    def at_night(self, label, day, round):
        """A person's account in the middle of the night."""
        admin = self.admins[round % len(self.admins)]
        who = admin | {"unit": f"user.slice/user-{admin['uid']}.slice/session-{500 + round}.scope"}
        for _ in range(3):
            self.read(day + (1.5 + self.random.random() * 2) * HOUR, who, self.random.choice(admin["secrets"]), label=label, age=1)

    def burst(self, label, day, round):
        """A service reads its secrets again and again."""
        at = self.office(day)
        service = self.as_of(self.services[1 + round * 2], at)
        for index in range(self.random.randint(60, 120)):
            self.read(at + index * 1.5, service, self.secrets[service["name"]][index % 3], label=label)

    def silence(self, label, day, round):
        """A secret that has lain for weeks, by one who may."""
        self.read(self.office(day), self.jobs[0][0], self.old[round], label=label, age=2)

    def refusals(self, label, day, round):
        """Tries the same few doors until it is noticed."""
        who = {"uid": 40 + round, "exe": "/usr/bin/python3", "sha": digest("python3"), "unit": "system.slice/worker.service"}
        at = self.office(day)
        for index in range(self.random.randint(15, 40)):
            self.line(at + index * 4, who, self.random.choice(self.shared), action="check", outcome="denied", reason="no rule", label=label)

    def walk(self, label, day, round):
        """An account that reads everything it may."""
        admin = self.admins[(round + 1) % len(self.admins)]
        who = admin | {"exe": "/usr/bin/grep", "sha": digest("grep"), "unit": f"user.slice/user-{admin['uid']}.slice/session-{600 + round}.scope"}
        at = self.office(day)
        names = self.lasting()
        self.random.shuffle(names)
        for index, secret in enumerate(names[:30]):
            self.read(at + index * 0.4, who, secret, label=label, age=index * 0.4)

    def long_lived(self, label, day, round):
        """A job's process that should be over since hours reads again."""
        job = self.jobs[3 + round % 4]
        self.read(day + job[2][0] * HOUR + 700, job[0], job[1], label=label, age=5 * HOUR)

    def old_version(self, label, day, round):
        """The value before the rotation, by one who has it no more in use."""
        secret = self.random.choice([secret for at, secret in self.rotated if at < day and secret.split("/")[1] in SERVICES])
        service = next(who for who in self.services if who["name"] == secret.split("/")[1])
        at = self.office(day)
        self.read(at, self.as_of(service, at), secret, label=label, old=True)

    def passed_on(self, label, day, round):
        """An open file in the hands of another user."""
        service = self.services[(2 + round) % len(SERVICES)]
        other = self.services[(5 + round) % len(SERVICES)]
        at = self.office(day)
        self.read(at, self.as_of(other, at), self.secrets[service["name"]][1], label=label, reason="handle passed on")

    def crawler(self, label, day, round):
        """A second indexer that nobody has told of."""
        who = {"uid": 0, "exe": ["/usr/bin/rsync", "/usr/bin/mlocate", "/usr/bin/borg", "/usr/bin/plocate"][round], "sha": digest("crawler"),
               "unit": "system.slice/cron.service"}
        at = day + 5 * HOUR
        for index, secret in enumerate(self.lasting()):
            self.line(at + index * 0.02, who, secret, action="check", outcome="denied", reason="no rule", label=label)

    # In order, with numbers and versions.
    def finish(self):
        self.lines.sort(key=lambda line: (line[0], line[1]))
        current, out, seqs = {}, [], {}
        archived = set(self.old)
        seq = 0
        for at, _, event, label in self.lines:
            secret = event["secret"]
            # What lies in the archive is in no backup any more after three days.
            if secret in archived and event["exe"] == "/usr/bin/restic" and at > 3 * DAY:
                continue
            seq += 1
            if event["action"] == "write":
                current[secret] = current.get(secret, 0) + 1
            if event["outcome"] == "allowed":
                event["version"] = current.get(secret, 1)
            if event.pop("old", False):
                event["version"] = max(1, current[secret] - 1)
            event = {"seq": seq, **event, "prev": "0" * 64, "mac": "0" * 64}
            if label is not None:
                seqs.setdefault(label["number"], []).append(seq)
            out.append(event)
        for label in self.labels:
            label["seqs"] = seqs[label["number"]]
        return out


def hash_of(name):
    return int(digest(name)[:8], 16)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--incidents", type=int, default=40)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("log")
    parser.add_argument("labels")
    args = parser.parse_args()
    fleet = Fleet(args.seed, args.days, args.scale)
    fleet.build()
    fleet.normal()
    fleet.incidents(args.incidents)
    events = fleet.finish()
    with open(args.log, "w") as log:
        log.writelines(json.dumps(event) + "\n" for event in events)
    with open(args.labels, "w") as labels:
        labels.writelines(json.dumps(label) + "\n" for label in fleet.labels)


main()
