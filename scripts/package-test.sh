#!/usr/bin/env bash
# Tries the Debian package as an administrator meets it: install, upgrade with the mount in use, remove,
# install again, purge. All of it happens in a copy of this machine's files that is gone afterwards.
#
#   scripts/package-test.sh [--release]     takes the debug build unless told otherwise
#
# No systemd runs there: what the unit does is tried elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} != --inside ]]; then
  build=(--debug)
  [[ ${1:-} != --release ]] || build=()
  if ((EUID != 0)) || [[ ! -e /dev/fuse ]] || ! command -v dpkg-deb >/dev/null; then
    echo "SKIP: the package is tried as root, with /dev/fuse, on Debian" >&2
    [[ ${CI:-} != true && ${SECRETFS_REQUIRE_ALL:-} != 1 ]] && exit 0 || exit 1
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  old=$(scripts/package.sh "${build[@]}" --out "$work" --version 0.0.1)
  new=$(scripts/package.sh "${build[@]}" --out "$work" --version 0.0.2)
  if command -v lintian >/dev/null; then
    # Who answers for a package is for its builder to say.
    lintian --allow-root --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$new"
    echo "ok: lintian has no complaint"
  fi
  # Everything that is started and mounted ends with the namespaces.
  unshare --mount --pid --fork --kill-child --propagation=private "$BASH" "$0" --inside "$work" "$old" "$new"
  exit
fi
work=$2 old=$3 new=$4

# A copy of the machine: its files below, what changes in memory above.
mkdir "$work/top" "$work/root"
mount -t tmpfs tmpfs "$work/top"
mkdir "$work/top/upper" "$work/top/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/top/upper,workdir=$work/top/work" "$work/root"
for directory in dev sys; do
  mount --rbind /$directory "$work/root/$directory"
done
mount -t proc proc "$work/root/proc"
mount -t tmpfs tmpfs "$work/root/run"
mount -t tmpfs tmpfs "$work/root/tmp"
cp "$old" "$work/root/tmp/old.deb"
cp "$new" "$work/root/tmp/new.deb"
cat >"$work/root/tmp/steps" <<'STEPS'
set -euo pipefail
cd /
unset "${!SECRETFS_@}" "${!XDG_@}"
export DEBIAN_FRONTEND=noninteractive HOME=/root SYSTEMD_LOG_LEVEL=warning
ok() { echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2 && { cat /tmp/said >&2 || true; } && exit 1; }
# Runs a command whose output counts.
run() { "$@" >/tmp/said 2>&1 || fail "$*"; }
# An unmount is done a moment before its daemon has ended.
mounted() { for _ in {1..100}; do secretfs mount --system >/tmp/said 2>&1 && return || sleep 0.1; done; fail "mount"; }
says() { grep -q -- "$1" /tmp/said || fail "nothing was said of: $1"; }
silent_on() { ! grep -q -- "$1" /tmp/said || fail "it was said: $1"; }
trap 'fail "line $LINENO"' ERR
served() { grep -q ' /secrets fuse.secretfs ' /proc/mounts; }
mode() { stat -c '%a %U' "$1"; }

dpkg --purge secretfs >/dev/null 2>&1 || true
# What other packages do at each change is not tried here.
echo man-db man-db/auto-update boolean false | debconf-set-selections

run dpkg -i /tmp/old.deb
says 'secretfs init --system'
silent_on 'rror'
[[ $(secretfs --version) == secretfs* ]] || fail "no program"
[[ $(mode /etc/secretfs) == '755 root' && $(mode /var/lib/secretfs) == '700 secretfs' && $(mode /secrets) == '0 root' ]] ||
  fail "modes of directories"
getent passwd secretfs >/dev/null || fail "no user"
[[ -L /etc/systemd/system/multi-user.target.wants/secretfs.service ]] || fail "the unit is not enabled"
[[ ! -e /etc/secretfs/secretfs.toml && -z $(ls -A /var/lib/secretfs) ]] || fail "something was made unasked"
! served || fail "something was mounted unasked"
ok "installed: program, user, directories, unit; nothing was made or started unasked"

systemd-analyze --man=no verify /usr/lib/systemd/system/secretfs.service >/tmp/said 2>&1 || fail "the unit"
silent_on 'secretfs.service'
for page in secretfs secretfs-put secretfs-container-args; do
  zcat /usr/share/man/man1/$page.1.gz | groff -man -Tascii -ww -z >/tmp/said 2>&1 || fail "$page"
  [[ ! -s /tmp/said ]] || fail "$page"
done
bash -c 'source /usr/share/bash-completion/completions/secretfs
  COMP_WORDS=(secretfs umo) COMP_CWORD=1 COMP_TYPE=9
  _clap_complete_secretfs secretfs umo secretfs && [[ ${COMPREPLY[*]} == umount* ]]' || fail "bash completes nothing"
run secretfs policy test /usr/share/doc/secretfs/examples/policy.toml
ok "unit, manual pages, completion and examples are good"

run secretfs init --system
mounted
served || fail "not mounted"
printf first >/secrets/name
mkdir /secrets/app && printf example-value >/secrets/app/key
# In use: an open file, and a reader that never rests.
exec 9</secrets/name
(while [[ ! -e /tmp/enough ]]; do
  [[ $(cat /secrets/app/key) == example-value ]] && echo >>/tmp/reads || echo >>/tmp/errors
done) &
reader=$!
run dpkg -i /tmp/new.deb
says 'served by the version before'
silent_on 'rror'
touch /tmp/enough && wait $reader
[[ ! -e /tmp/errors && $(wc -l </tmp/reads) -gt 10 ]] || fail "reads failed during the upgrade"
[[ $(cat <&9) == first ]] || fail "the open file was lost"
exec 9<&-
printf second >/secrets/name
[[ $(secretfs get name) == second ]] || fail "the new program does not talk to the running daemon"
dpkg -s secretfs | grep -q '^Version: 0.0.2' || fail "version"
systemd-tmpfiles --create secretfs.conf >/tmp/said 2>&1 || fail "tmpfiles touches the mount"
ok "upgraded with the mount in use: $(wc -l </tmp/reads) reads meanwhile, none failed, the open file went on"

run secretfs umount /secrets
mounted
[[ $(cat /secrets/name) == second ]] || fail "the new version does not read what the old one wrote"
run /var/lib/dpkg/info/secretfs.postinst configure 0.0.2
silent_on 'served by the version before'
ok "mounted anew by the new version"

run dpkg -r secretfs
says '/secrets is still mounted'
[[ $(cat /secrets/name) == second ]] || fail "the removal took a mount in use"
run umount /secrets
[[ -s /var/lib/secretfs/store.redb && -s /etc/secretfs/root.key && -s /etc/secretfs/secretfs.toml ]] ||
  fail "the removal took data"
! (echo example-value >/secrets/name) 2>/dev/null || fail "plaintext could be written into the mountpoint"
ok "removed: the mount served on until it was unmounted, and all data are there"

run dpkg -i /tmp/new.deb
silent_on 'secretfs init'
mounted
[[ $(cat /secrets/name) == second ]] || fail "the secrets are not there"
run secretfs umount /secrets
ok "installed again: the secrets are there"

run dpkg -P secretfs
says 'kept /etc/secretfs/root.key'
says 'kept /var/lib/secretfs/store.redb'
says 'rm -r'
[[ ! -e /etc/secretfs/secretfs.toml && ! -e /etc/secretfs/policy.toml && ! -e /secrets ]] || fail "configuration is left"
ok "purged: configuration and policy are gone; store, log and key are kept, and it was said how to destroy them"

run dpkg -i /tmp/new.deb
says 'without configuration and policy'
install -m 0644 /usr/share/doc/secretfs/examples/*.toml /etc/secretfs/
mounted
[[ $(cat /secrets/name) == second ]] || fail "the kept secrets are not readable any more"
run secretfs umount /secrets
ok "installed after the purge: with a policy the kept secrets are readable"

# An ordinary user, with a store of his own.
install -d -m 0700 -o nobody /tmp/home
as_nobody() { run setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/tmp/home "$@"; }
as_nobody secretfs up /tmp/home/secrets
as_nobody sh -c 'printf mine > ~/secrets/name && secretfs get name'
says mine
as_nobody secretfs umount
ok "an ordinary user mounts a store of his own"

run dpkg -P secretfs
rm -r /etc/secretfs /var/lib/secretfs
run dpkg -i /tmp/old.deb
run dpkg -P secretfs
silent_on kept
getent passwd secretfs >/dev/null || fail "the user is gone, and its files would be another's"
STEPS
chroot "$work/root" /bin/bash /tmp/steps
# What is above and not below was left behind.
left=$(cd "$work/top/upper" && find . \( -type f -o -type l \) \
  -not -path './var/lib/dpkg/*' -not -path './var/cache/*' -not -path './var/log/*' |
  while read -r path; do [[ -e /$path || -L /$path ]] || echo "$path"; done)
[[ -z $left ]] || { printf 'FAILED: left behind by the purge:\n%s\n' "$left" >&2 && exit 1; }
echo "ok: purged without a store: nothing is left but the user"
