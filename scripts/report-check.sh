#!/usr/bin/env bash
# Opens the pages of `secretfs report` in a real browser: a month of a fleet with and without a policy, hostile names, and
# an empty log; light, dark, on a desk, on a phone and printed. See scripts/page-check.sh for what is checked of each.
#
#   scripts/report-check.sh [PROGRAM [DIRECTORY]]
#
# Takes Debian's `chromium` and python3. Ends with 3 where there is no browser.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:-target/release/secretfs}")
pictures=${2:-target/report-check}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 scripts/anomaly-month.py --seed 3 "$work/month.jsonl" "$work/labels"
python3 - "$work" <<'PYTHON'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
month = (work / "month.jsonl").read_text().splitlines()
# Nobody did anything: only the log's own lines.
idle = json.loads(month[0]) | {"action": "start", "secret": None, "uid": None, "user": None, "exe": None, "unit": None, "rule": None}
(work / "empty.jsonl").write_text(json.dumps(idle) + "\n")
hostile = "/tmp/</td><script>alert(1)</script><img src='http://example.invalid/x'>\"" + "x" * 300
lines = [json.loads(line) | {"exe": hostile, "user": hostile, "unit": hostile, "reason": hostile} for line in month[:400]]
(work / "hostile.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
PYTHON
export XDG_CONFIG_HOME=$work HOME=$work
"$program" policy suggest --replay "$work/month.jsonl" >"$work/policy.toml"
report() { # name, log, more arguments
  local name=$1 log=$2
  shift 2
  "$program" report "$@" --html "$work/$name.html" --replay "$work/$log.jsonl" >"$work/$name.txt" || test $? -eq 1
}
report month month soc2
report policy month pci --policy "$work/policy.toml"
report hostile hostile hipaa
report empty empty soc2
export PAGE_MARKS=svg
scripts/page-check.sh "$pictures" "$work/month.html" "$work/policy.html" "$work/hostile.html"
PAGE_MARKS='' scripts/page-check.sh "$pictures" "$work/empty.html"
