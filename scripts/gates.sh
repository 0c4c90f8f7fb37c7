#!/usr/bin/env bash
# Gates that no compiler holds: sources are ASCII, nothing looks like a live secret, units are well-formed.
set -euo pipefail
cd "$(dirname "$0")/.."

fail=0
if git ls-files 'src/*' 'tests/*' 'benches/*' 'scripts/*' 'systemd/*' '*.md' '*.toml' | xargs grep -nP '[^\x00-\x7F]'; then
  echo "gates: the lines above are not ASCII" >&2
  fail=1
fi
# Shapes of live credentials; `fixtures/` may hold examples.
shapes='AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}|xox[bp]-[0-9]{10,}|sk_live_[A-Za-z0-9]{24}|-----BEGIN (RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/]{60}'
if git ls-files ':!fixtures' | xargs grep -nEI "$shapes"; then
  echo "gates: the lines above look like secrets" >&2
  fail=1
fi
if command -v systemd-analyze >/dev/null; then
  # The binary is not installed here: only what else the verifier says counts.
  said=$(systemd-analyze --man=no verify systemd/*.service 2>&1 | grep -v 'is not executable' | grep -F 'secretfs' || true)
  if [[ -n $said ]]; then
    echo "$said" >&2
    fail=1
  fi
  if ! systemd-analyze security --offline=true --threshold=21 systemd/secretfs.service >/dev/null; then
    echo "gates: the unit is exposed more than 2.1: systemd-analyze security --offline=true systemd/secretfs.service" >&2
    fail=1
  fi
fi
exit $fail
