#!/usr/bin/env bash
# Opens the HTML report in a real browser: light and dark, on a desk and on a phone. The browser must log nothing
# and ask the network for nothing, and no picture may be wider than its window. Pictures are left in a directory.
#
#   scripts/html-check.sh [PROGRAM [DIRECTORY]]
#
# Takes Debian's `chromium` and python3. Ends with 3 where there is no browser.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:-target/release/secretfs}")
pictures=${2:-target/html-check}
browser=$(command -v chromium || command -v google-chrome) || { echo "no chromium here: apt-get install chromium" >&2; exit 3; }
mkdir -p "$pictures"
pictures=$(realpath "$pictures")
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

failed=0
picture() { # name, width, height, more flags
  local name=$1 width=$2 height=$3
  shift 3
  # No host resolves, so that nothing can be asked; what is tried is in the log of the network.
  "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --disable-background-networking --disable-component-update --disable-sync --no-first-run \
    --host-resolver-rules="MAP * ~NOTFOUND" --log-net-log="$work/$name.net.json" --enable-logging=stderr --v=0 \
    --window-size="$width,$height" --screenshot="$pictures/$name.png" "$@" \
    "file://$work/report.html" 2>"$work/$name.log" >/dev/null
  if grep -q CONSOLE "$work/$name.log"; then
    grep CONSOLE "$work/$name.log" && failed=1
  fi
  python3 - "$work/$name.net.json" <<'PYTHON' || failed=1
import json, sys
text = open(sys.argv[1]).read().rstrip().rstrip(",")
log = json.loads(text if text.endswith("}") else text + "]}")
urls = {event.get("params", {}).get("url", "") for event in log["events"]}
# The browser's own, which it asks for whatever the page is, have an internal initiator or are of its vendor.
own = ("google.com", "googleapis.com", "gstatic.com", "gvt1.com")
asked = {url for url in urls if url.startswith(("http:", "https:", "ws:")) and not any(host in url for host in own)}
print("network:", asked or "nothing")
sys.exit(1 if asked else 0)
PYTHON
}

picture light 1280 1000
picture dark 1280 1000 --blink-settings=preferredColorScheme=0 --force-dark-mode
picture phone 500 1400
picture phone-narrow 390 1400

# How wide the page is at the width of a phone: wider than the window means that it scrolls sideways.
cat >"$work/frame.html" <<'HTML'
<iframe id="f" style="width:390px;height:800px;border:0"></iframe>
<script>
f.onload = () => document.title = f.contentDocument.documentElement.scrollWidth;
f.srcdoc = REPORT;
</script>
HTML
python3 - "$work" <<'PYTHON'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
report = json.dumps((work / "report.html").read_text()).replace("</", "<\\/")
frame = work / "frame.html"
frame.write_text(frame.read_text().replace("REPORT", report))
PYTHON
wide=$("$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --virtual-time-budget=3000 \
  --dump-dom "file://$work/frame.html" 2>/dev/null | grep -o '<title>[0-9]*' | grep -o '[0-9]*')
echo "on a phone of 390 pixels the page is $wide wide"
test "$wide" -le 390 || failed=1
exit $failed
