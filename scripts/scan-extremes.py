#!/usr/bin/env python3
"""What a scan must bear: a million tiny files, one line of 2 GB, random bytes, and what cannot be read.

    scripts/scan-extremes.py [--program PROGRAM] [--files N] [--line-bytes N] [--random-bytes N] [--keep-below MB]

Scans a tenth of the files and then all of them, and the same of the line, and prints time and the most memory of
each. Ends with 1 if something was missed, or if the memory of the larger scan is more than 1.3 times that of the
smaller one and more than --keep-below (60 MB unless given): memory must not grow with what is scanned.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/secretfs")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--line-bytes", type=int, default=2_000_000_000)
    parser.add_argument("--random-bytes", type=int, default=50_000_000)
    parser.add_argument("--keep-below", type=float, default=60.0)
    return parser.parse_args()


# Put together here, so that this file has none.
TOKEN = "gh" + "p_XmAkaPeHIuUIjnpXk2cicQk1IrKc4p39smfc"


def scan(program, path):
    """Returns the report, seconds, the most megabytes, and how it ended. A process between counts this child alone."""
    code = (
        "import resource, subprocess, sys, time; start = time.monotonic();"
        "child = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "sys.stderr.write(f'{time.monotonic() - start} {used / 1e3} {child.returncode}');"
        "sys.stdout.buffer.write(child.stdout)"
    )
    command = [program, "scan", "--no-ignore", "--format", "json", path]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, check=True)
    seconds, megabytes, status = done.stderr.split()[-3:]
    return json.loads(done.stdout), float(seconds), float(megabytes), int(status)


def make_files(directory, first, count):
    for number in range(first, first + count):
        parent = f"{directory}/{number // 1000}"
        if number % 1000 == 0:
            os.makedirs(parent, exist_ok=True)
        # One in ten thousand has something to be found.
        text = f"key = {TOKEN}\n" if number % 10_000 == 7 else f"name = thing-{number}\n"
        with open(f"{parent}/{number}.txt", "w") as file:
            file.write(text)


def make_line(path, size):
    block = ("word and another;" * 64).encode()
    with open(path, "wb") as file:
        written = 0
        while written < size:
            file.write(block * 1024)
            written += len(block) * 1024
        file.write(b" " + TOKEN.encode() + b" ")


def told(what, found, expected, seconds, megabytes):
    right = "all found" if found == expected else f"FOUND {found} OF {expected}"
    print(f"{what:32} {seconds:8.2f} s  {megabytes:7.1f} MB  {right}", flush=True)
    return found == expected


def main():
    given = arguments()
    work = tempfile.mkdtemp(prefix="scan-extremes-")
    fine = True
    try:
        files = f"{work}/files"
        memory = []
        for first, count in [(0, given.files // 10), (given.files // 10, given.files - given.files // 10)]:
            make_files(files, first, count)
            total = first + count
            report, seconds, megabytes, _ = scan(given.program, files)
            memory.append(megabytes)
            expected = len(range(7, total, 10_000))
            fine &= told(f"{total} files", report["open"], expected, seconds, megabytes)
            fine &= report["complete"] and report["totals"]["files"] == total
        shutil.rmtree(files)
        line = f"{work}/line"
        for size in [given.line_bytes // 10, given.line_bytes]:
            make_line(line, size)
            report, seconds, megabytes, _ = scan(given.program, line)
            memory.append(megabytes)
            fine &= told(f"a line of {size} bytes", report["open"], 1, seconds, megabytes)
            fine &= report["complete"] and report["findings"][0]["column"] == os.path.getsize(line) - len(TOKEN)
        for small, large in [memory[0:2], memory[2:4]]:
            if large > max(1.3 * small, given.keep_below):
                print(f"memory has grown from {small} to {large} MB")
                fine = False
        with open(line, "wb") as file:
            # Without zero bytes, which would make it a binary file that is not looked into.
            file.write(random.Random(2026).randbytes(given.random_bytes).replace(b"\0", b"\1"))
        report, seconds, megabytes, _ = scan(given.program, line)
        fine &= told(f"{given.random_bytes} random bytes", report["open"], 0, seconds, megabytes)
        closed = f"{work}/closed"
        os.makedirs(closed)
        os.symlink("nowhere", f"{closed}/dangling")
        os.symlink(".", f"{closed}/loop")
        os.mkfifo(f"{closed}/fifo")
        report, seconds, megabytes, status = scan(given.program, closed)
        fine &= told("links, a loop and a pipe", report["open"], 0, seconds, megabytes) and status == 0
    finally:
        shutil.rmtree(work)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
