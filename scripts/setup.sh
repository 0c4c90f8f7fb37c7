#!/usr/bin/env bash
# Installs what the tests need besides the Rust toolchain (Debian and its kin). Does nothing for what is there.
set -euo pipefail

packages=(
  acl attr                # setfacl, getfattr, setfattr
  build-essential         # a linker, and the C reference of the read benchmark
  fuse3 libfuse3-dev      # mounts of ordinary users; libfuse's hello_ll
  nginx-light             # real consumers of files on the mount
  openssh-client openssh-server
  openssl
  pkg-config
  postgresql
  procps psmisc
  rsync
  vim
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi
as_root=()
if ((EUID != 0)); then
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
