#!/usr/bin/env bash
# Opens the HTML report of `secretfs scan` in a real browser. See scripts/page-check.sh for what is checked.
#
#   scripts/html-check.sh [PROGRAM [DIRECTORY]]
#
# Takes Debian's `chromium` and python3. Ends with 3 where there is no browser.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:-target/release/secretfs}")
pictures=${2:-target/html-check}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A report with everything in it: the examples of rules of each severity, a file that is accepted, one in an archive,
# one far down, and what cannot be read.
python3 - "$work/tree" <<'PYTHON'
import base64, gzip, pathlib, sys, tomllib
tree = pathlib.Path(sys.argv[1])
deep = tree / "services/payment-gateway/deploy/environments/production/eu-central-1"
deep.mkdir(parents=True)
rules = tomllib.loads(pathlib.Path("fixtures/scan/rules.toml").read_text())["rule"]
taken = {}
for rule in rules:
    taken.setdefault(rule["severity"], []).append(rule["positive"][0])
lines = [example for examples in taken.values() for example in examples[:3]]
(deep / "settings.production.env").write_text("\n".join(lines) + "\n")
(tree / "accepted.env").write_text(f"{taken['critical'][0]}  # secretfs:allow\n")
(tree / "markup.env").write_text(f"<script>alert(1)</script> {taken['critical'][0]}\n")
(tree / "packed.gz").write_bytes(gzip.compress(taken["critical"][1].encode()))
(tree / "encoded.txt").write_text("data: " + base64.b64encode(lines[0].encode()).decode() + "\n")
(tree / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(60))
PYTHON
"$program" scan --format html --suppressed --min-confidence 0.1 --output "$work/report.html" "$work/tree" || test $? -le 2

scripts/page-check.sh "$pictures" "$work/report.html"
