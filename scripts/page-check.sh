#!/usr/bin/env bash
# Opens pages in a real browser: light and dark, on a desk and on a phone, and printed. The browser must log nothing
# and ask the network for nothing, and no page may be wider than its window. With PAGE_MARKS=svg, each picture must have
# shapes that are there to be seen. Pictures and prints are left in a directory.
#
#   scripts/page-check.sh DIRECTORY PAGE...
#
# Takes Debian's `chromium` and python3. Ends with 3 where there is no browser.
set -euo pipefail

browser=$(command -v chromium || command -v google-chrome) || { echo "no chromium here: apt-get install chromium" >&2; exit 3; }
pictures=$1
shift
mkdir -p "$pictures"
pictures=$(realpath "$pictures")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

browse() { # name, more flags
  local name=$1
  shift
  # No host resolves, so that nothing can be asked; what is tried is in the log of the network.
  "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --disable-background-networking --disable-component-update --disable-sync --no-first-run \
    --host-resolver-rules="MAP * ~NOTFOUND" --log-net-log="$work/$name.net.json" --enable-logging=stderr --v=0 "$@" \
    2>"$work/$name.log" >/dev/null
  if grep CONSOLE "$work/$name.log"; then
    failed=1
  fi
  python3 - "$work/$name.net.json" <<'PYTHON' || failed=1
import json, sys
text = open(sys.argv[1]).read().rstrip().rstrip(",")
log = json.loads(text if text.endswith("}") else text + "]}")
urls = {event.get("params", {}).get("url", "") for event in log["events"]}
# The browser's own, which it asks for whatever the page is, have an internal initiator or are of its vendor.
own = ("google.com", "googleapis.com", "gstatic.com", "gvt1.com")
asked = {url for url in urls if url.startswith(("http:", "https:", "ws:")) and not any(host in url for host in own)}
if asked:
    print("network:", asked)
sys.exit(1 if asked else 0)
PYTHON
}

# How wide the page is at the width of a phone (wider than the window means that it scrolls sideways), and how many
# pictures it has without a shape that has a size. A page of ours forbids scripts; a frame around its text has its own.
frame() { # page
  python3 - "$1" "$work/frame.html" <<'PYTHON'
import json, pathlib, re, sys
page, frame = map(pathlib.Path, sys.argv[1:])
text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
text = json.dumps(text).replace("</", "<\\/").replace("<!--", "<\\!--")
frame.write_text("""<iframe id="f" style="width:390px;height:800px;border:0"></iframe>
<script>
f.onload = () => {
  const page = f.contentDocument;
  const seen = (shape) => { const box = shape.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const blank = [...page.querySelectorAll("svg")].filter((svg) => ![...svg.querySelectorAll("rect")].some(seen)).length;
  document.title = [page.documentElement.scrollWidth, page.querySelectorAll("svg").length, blank].join(" ");
};
f.srcdoc = %s;
</script>
""" % text)
PYTHON
  "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --virtual-time-budget=3000 \
    --dump-dom "file://$work/frame.html" 2>/dev/null | grep -o '<title>[0-9 ]*' | grep -o '[0-9 ]*$'
}

for page in "$@"; do
  name=$(basename "$page" .html)
  page=$(realpath "$page")
  # As high as the page is: a window has to be told.
  for view in light:1280:3600 dark:1280:3600 phone:500:6000; do
    IFS=: read -r look width height <<<"$view"
    flags=(--window-size="$width,$height" --screenshot="$pictures/$name-$look.png")
    if [[ $look == dark ]]; then
      flags+=(--blink-settings=preferredColorScheme=0 --force-dark-mode)
    fi
    browse "$name-$look" "${flags[@]}" "file://$page"
  done
  browse "$name-print" --no-pdf-header-footer --print-to-pdf="$pictures/$name.pdf" "file://$page"
  read -r wide svgs blank <<<"$(frame "$page")"
  echo "$name: on a phone of 390 pixels the page is $wide wide; $svgs pictures, $blank of them blank"
  test "$wide" -le 390 || failed=1
  test "$blank" -eq 0 || failed=1
  if [[ ${PAGE_MARKS:-} == svg ]]; then
    test "$svgs" -gt 3 || failed=1
  fi
done
exit $failed
