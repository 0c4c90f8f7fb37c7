#!/usr/bin/env bash
# Runs each benchmark for a moment, to see that it still works. The figures mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
# Optimised as a whole, as figures ask for, each of them takes minutes to build.
export CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16

for bench in audit_index broker flood read_path rotation routes scale scan takeover write_path; do
  echo "== $bench"
  cargo bench --locked --bench "$bench" -- --smoke
done
