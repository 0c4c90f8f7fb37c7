#!/usr/bin/env bash
# Passes every test: installs what they need, then runs them. With CI=true a test that cannot run fails.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
scripts/setup-python.sh
profile=default
if [[ ${CI:-} == true ]]; then
  export SECRETFS_REQUIRE_ALL=1
  profile=ci
fi
cargo build --locked --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --no-fail-fast --profile "$profile" "$@"
else
  cargo test --locked --no-fail-fast "$@"
fi
