#!/usr/bin/env bash
# Installs what the tests need besides the Rust toolchain (Debian and its kin). Does nothing for what is there.
set -euo pipefail

packages=(
  acl attr                # setfacl, getfattr, setfattr
  bubblewrap podman crun runc uidmap  # containers that are given secrets
  busybox-static          # all that is in those containers
  build-essential         # a linker, and the C reference of the read benchmark
  curl                    # asks nginx for a page
  git python3 python3-venv  # histories to scan; archives, and a validator of reports
  fuse3 libfuse3-dev      # mounts of ordinary users; libfuse's hello_ll
  e2fsprogs               # mkfs.ext4 for a small disk, chattr for what a mountpoint leaves
  inotify-tools           # inotifywait, a watcher
  groff-base              # reads the manual pages
  mariadb-server redis-server  # where rotations change passwords, as in PostgreSQL
  oathtool                # makes one-time codes, as an app does
  nginx-light             # real consumers of files on the mount
  openssh-client openssh-server
  openssl
  pkg-config
  postgresql
  procps psmisc
  python3-venv            # target/python, of scripts/setup-python.sh
  prometheus              # promtool, which checks metrics and rules
  rsync
  rsyslog                 # receives alerts and the log
  stress-ng               # a hostile user of a filesystem
  systemd-container       # systemd-nspawn: a systemd to be a service of
  vim
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
as_root=()
if ((EUID != 0)); then
  as_root=(sudo)
fi
# Ordinary users mount too. udev gives the device this mode; a container or a small machine has no udev.
if [[ -e /dev/fuse && $(stat -c %a /dev/fuse) != 666 ]]; then
  "${as_root[@]}" chmod 0666 /dev/fuse
fi
# What says that a mount outlives its unmounting; systemd mounts it.
if [[ -d /sys/fs/fuse/connections ]] && ! mountpoint -q /sys/fs/fuse/connections; then
  "${as_root[@]}" mount -t fusectl fusectl /sys/fs/fuse/connections
fi
if ((${#missing[@]} == 0)); then
  exit 0
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
