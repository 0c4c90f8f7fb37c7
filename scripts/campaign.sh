#!/usr/bin/env bash
# Runs every campaign of the tests with its full count: kills, flipped bits, crash states, key changes.
# Takes hours. Arguments go to the tests: `scripts/campaign.sh kill` runs those with `kill` in their names.
# `SECRETFS_CAMPAIGN=small scripts/campaign.sh` takes the counts of an ordinary run, to see that the script works.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
export SECRETFS_CAMPAIGN=${SECRETFS_CAMPAIGN:-full} SECRETFS_REQUIRE_ALL=1 RUST_BACKTRACE=1
log=${CAMPAIGN_LOG:-target/campaign-$(date -u +%Y%m%dT%H%M%SZ).log}
mkdir -p "$(dirname "$log")"
{
  echo "commit $(git rev-parse HEAD 2>/dev/null || echo unknown), $(uname -sr), $(nproc) cores, $(date -u +%FT%TZ)"
  # Seeds and counts are printed, so that a failure can be had again.
  cargo test --locked --no-fail-fast --lib --tests -- --nocapture --test-threads "${CAMPAIGN_THREADS:-2}" "$@"
} 2>&1 | tee "$log"
echo "campaign: all held; the log is $log"
