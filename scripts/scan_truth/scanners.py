"""Runs a scanner over a tree and reads what it found: for each file the first and last lines of its findings, and the rule."""

import json
import os
import pathlib
import subprocess
import tempfile
from collections import defaultdict


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)


def secretfs(program, tree):
    done = run([program, "scan", "--format", "json", "--no-ignore", tree])
    report = json.loads(done.stdout)
    return [(finding["file"], finding["line"], finding.get("end_line", finding["line"]), finding["rule"]) for finding in report["findings"]]


def gitleaks(program, tree):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        run([program, "dir", tree, "-f", "json", "-r", report.name, "--exit-code", "0", "--max-archive-depth", "3", "--max-decode-depth", "5"])
        found = json.loads(open(report.name).read() or "[]") or []
    return [(item["File"], item["StartLine"], item["EndLine"], item["RuleID"]) for item in found]


def betterleaks(program, tree):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        run([program, tree, "-o", report.name, "--silent", "--exit-code", "0"])
        found = json.loads(open(report.name).read())["findings"]
    places = [(item["location"], item["rule_id"]) for item in found]
    return [(place["path"], place["start_line"], place["end_line"], rule) for place, rule in places]


def kingfisher(program, tree):
    done = run([program, "scan", tree, "--no-validate", "--format", "json", "--confidence", "low", "--no-update-check", "--git-history", "none"])
    found = []
    for line in done.stdout.decode(errors="replace").splitlines():
        try:
            report = json.loads(line)
        except ValueError:
            continue
        # The last line is a summary, in which `findings` is their number.
        items = report.get("findings") if isinstance(report, dict) else None
        for item in items if isinstance(items, list) else []:
            finding = item["finding"]
            found.append((finding["path"], int(finding["line"]), int(finding["line"]), item["rule"]["id"]))
    return found


RUNNERS = {"secretfs": secretfs, "kingfisher": kingfisher, "betterleaks": betterleaks, "gitleaks": gitleaks}


def peers(environment):
    """Returns the programs inside of the wheels; the commands that they install get into each other's way."""
    found = {}
    for name in ("kingfisher", "betterleaks", "gitleaks"):
        for program in pathlib.Path(environment).glob(f"lib/python*/site-packages/*/bin/{name}"):
            found[name] = str(program)
    return found


def findings(name, program, tree):
    """Returns findings by file: a path relative to the tree, of the outermost file where it stands in an archive."""
    by_file = defaultdict(list)
    for path, first, last, rule in RUNNERS[name](program, tree):
        for mark in ("!", "!/", " -> "):
            path = path.split(mark)[0]
        by_file[os.path.relpath(path, tree) if os.path.isabs(path) else path].append((first, last, rule))
    return by_file
