#!/usr/bin/env python3
"""Compares what `secretfs anomalies --replay` finds in synthetic months with what was planted in them.

    scripts/anomaly-truth.py [--binary target/release/secretfs] [--days 30] [--incidents 40] SEED...

An incident is found if a finding has one of its lines. A finding without any planted line is a false alert. Exit
code 1 if a seed misses the goal: nine of ten incidents found, and at most one false alert a simulated day.
"""
import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile

# As what an incident should be found.
KINDS = {"stranger": {"first_use"}, "other_program": {"first_use"}, "swapped": {"exe_changed"}, "at_night": {"unusual_time"},
         "burst": {"burst"}, "silence": {"long_silence"}, "refusals": {"refusals"}, "walk": {"walk"},
         "long_lived": {"long_lived"}, "old_version": {"old_version"}, "passed_on": {"passed_on"}, "crawler": {"crawler"}}

HERE = os.path.dirname(os.path.abspath(__file__))


def month(args, seed, directory):
    log, labels = os.path.join(directory, "log.jsonl"), os.path.join(directory, "labels.jsonl")
    size = ["--days", str(args.days), "--incidents", str(args.incidents), "--scale", str(args.scale)]
    subprocess.run([sys.executable, os.path.join(HERE, "anomaly-month.py"), "--seed", str(seed), *size, log, labels], check=True)
    # A tuning of its own, so that the machine's has no say. No HOME: no configuration is looked for.
    tuning = os.path.join(directory, "anomalies.toml")
    open(tuning, "w").close()
    command = [args.binary, "--json", "anomalies", "--limit", "0", "--tuning", tuning, "--replay", log]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = sum(1 for _ in open(log))
    read = lambda text: [json.loads(line) for line in text]
    return lines, read(open(labels)), read(found.splitlines())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "secretfs"))
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--incidents", type=int, default=40)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("seeds", type=int, nargs="+")
    args = parser.parse_args()
    missed_goal = False
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as directory:
            lines, labels, found = month(args, seed, directory)
        planted = {seq for label in labels for seq in label["seqs"]}
        seen = {seq for finding in found for seq in finding["seqs"]}
        found_as = lambda label: {finding["kind"] for finding in found if set(finding["seqs"]) & set(label["seqs"])}
        right = sum(bool(found_as(label) & KINDS[label["kind"]]) for label in labels)
        missed = [label for label in labels if not seen & set(label["seqs"])]
        false = [finding for finding in found if not planted & set(finding["seqs"])]
        good = len(missed) <= args.incidents / 10 and len(false) <= args.days
        missed_goal |= not good
        by_kind = collections.Counter(finding["kind"] for finding in false)
        print(f"seed {seed}: {lines} lines, {len(labels) - len(missed)} of {len(labels)} found ({right} as what they are), {len(false)} false in "
              f"{args.days} days {dict(sorted(by_kind.items()))}, missed {[label['kind'] for label in missed]}"
              f"{'' if good else ' - GOAL MISSED'}")
        if args.verbose:
            for finding in false:
                print("   ", finding["time"], finding["score"], finding["explanation"])
    sys.exit(1 if missed_goal else 0)


main()
