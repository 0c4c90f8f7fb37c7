#!/usr/bin/env bash
# Makes a Debian package of secretfs and prints its path.
#
#   scripts/package.sh [--debug] [--version VERSION] [--out DIRECTORY]
#
# --debug takes the debug build, for tests of the package. MAINTAINER names who answers for it.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release
compression=xz
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
out=target/debian
while (($#)); do
  case $1 in
    --debug) profile=debug compression=gzip ;;
    --version) version=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) echo "usage: scripts/package.sh [--debug] [--version VERSION] [--out DIRECTORY]" >&2 && exit 2 ;;
  esac
  shift
done
# The same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
maintainer=${MAINTAINER:-secretfs authors <secretfs@localhost.localdomain>}

if [[ $profile == release ]]; then
  cargo build --locked --release --bin secretfs
else
  cargo build --locked --bin secretfs
fi
secretfs=$PWD/target/$profile/secretfs

umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Where dpkg-shlibdeps expects it, beside a debian/control.
root=$work/debian/secretfs
mkdir -p "$root/DEBIAN"
printf 'Source: secretfs\n\nPackage: secretfs\nArchitecture: any\n' >"$work/debian/control"

put() { install -D -m "$1" "$2" "$root/$3"; }
put 0755 "$secretfs" usr/bin/secretfs
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/secretfs"
put 0644 systemd/secretfs.service usr/lib/systemd/system/secretfs.service
put 0644 systemd/secretfs-effector.socket usr/lib/systemd/system/secretfs-effector.socket
put 0644 systemd/secretfs-effector@.service usr/lib/systemd/system/secretfs-effector@.service
put 0644 systemd/secretfs-observer.socket usr/lib/systemd/system/secretfs-observer.socket
put 0644 systemd/secretfs-observer@.service usr/lib/systemd/system/secretfs-observer@.service
put 0644 systemd/secretfs.sysusers.conf usr/lib/sysusers.d/secretfs.conf
put 0644 systemd/secretfs.tmpfiles.conf usr/lib/tmpfiles.d/secretfs.conf

mkdir -p "$root/usr/share/man/man1"
"$secretfs" man "$root/usr/share/man/man1" >/dev/null
gzip -9n "$root"/usr/share/man/man1/*
completion() { mkdir -p "$(dirname "$root/$2")" && "$secretfs" completions "$1" >"$root/$2"; }
completion bash usr/share/bash-completion/completions/secretfs
completion zsh usr/share/zsh/vendor-completions/_secretfs
completion fish usr/share/fish/vendor_completions.d/secretfs.fish

doc=usr/share/doc/secretfs
put 0644 scripts/packaging/debian/copyright $doc/copyright
put 0644 systemd/secretfs.toml $doc/examples/secretfs.toml
put 0644 scripts/packaging/policy.toml $doc/examples/policy.toml
for page in OPERATIONS SEMANTICS POLICY AUDIT ALERTS METRICS THREATS FORMAT; do
  put 0644 docs/$page.md $doc/$page.md
done
{
  printf 'secretfs (%s) unstable; urgency=medium\n\n' "$version"
  printf '  * What has changed: /usr/share/doc/secretfs/CHANGELOG.md.gz\n\n'
  printf ' -- %s  %s\n' "$maintainer" "$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$root/$doc/changelog.gz"
gzip -9nc docs/CHANGELOG.md >"$root/$doc/CHANGELOG.md.gz"

libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/secretfs" | sed -n 's/^shlibs:Depends=//p')
architecture=$(dpkg --print-architecture)
size=$(du -k -s --apparent-size "$root/usr" | cut -f1)

(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@MAINTAINER@/$maintainer/" \
  -e "s/@SIZE@/$size/" -e "s/@LIBRARIES@/$libraries/" scripts/packaging/debian/control >"$root/DEBIAN/control"
for script in postinst prerm postrm; do
  install -m 0755 scripts/packaging/debian/$script "$root/DEBIAN/$script"
done

mkdir -p "$out"
package=$out/secretfs_${version}_$architecture.deb
dpkg-deb --root-owner-group "-Z$compression" --build "$root" "$package" >/dev/null
echo "$package"
