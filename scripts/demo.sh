#!/usr/bin/env bash
# The main job from nothing: builds secretfs, makes a store, mounts it, writes a secret, reads it back, and
# shows who read it. Everything it makes is in a new directory, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --release
secretfs=$PWD/target/release/secretfs
home=$(mktemp -d)
export XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/data
secrets=$home/secrets
cleanup() {
  "$secretfs" --mount "$secrets" umount >/dev/null 2>&1 || true
  chmod 700 "$secrets" 2>/dev/null || true
  chattr -i "$secrets" 2>/dev/null || true
  rm -rf "$home"
}
trap cleanup EXIT

show() { printf '$ %s\n' "$*"; }
show secretfs up "$secrets"
"$secretfs" up "$secrets"
show "printf %s sk-live-123 > $secrets/openai-api-key"
printf %s sk-live-123 >"$secrets/openai-api-key"
show cat "$secrets/openai-api-key"
value=$(cat "$secrets/openai-api-key")
echo "$value"
show secretfs log openai-api-key
"$secretfs" --mount "$secrets" log openai-api-key
[[ $value == sk-live-123 ]]
