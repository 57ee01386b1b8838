#!/bin/sh
# make deb: a package for Debian and its relatives, dist/volnet_VERSION_ARCH.deb; with ARCH=arm64
# or ARCH=amd64 for another architecture than this machine's.
#
# dpkg-deb packs a tree: there is one static binary, which needs none of what debhelper finds out.
# What the package does on a host is in packaging/debian.
set -eu
cd "$(dirname "$0")/.."
here=$(dpkg --print-architecture)
arch=${ARCH:-$here}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Who answers for what is in it. The same sources make the same package.
maintainer=$(git log -1 --format='%an <%ae>')
[ -z "${DEBEMAIL:-}" ] || maintainer="${DEBFULLNAME:-volnet} <$DEBEMAIL>"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")

ARCH=$arch scripts/dist.sh
binary=dist/volnet
[ "$arch" = "$here" ] || binary=dist/volnet-$arch
case $arch in
amd64) qemu='qemu-system-x86' ;;
*) qemu='qemu-system-arm' ;;
esac

tree=build/deb-$arch
rm -rf "$tree"
put() { install -D -m "$1" "$2" "$tree/$3"; }
put 755 "$binary" usr/bin/volnet
for unit in volnet volnet-guests volnet-vms; do
    put 644 "packaging/$unit.service" "usr/lib/systemd/system/$unit.service"
    sed -i 's|/usr/local/bin/volnet|/usr/bin/volnet|' "$tree/usr/lib/systemd/system/$unit.service"
done
put 644 packaging/volnet.sysusers usr/lib/sysusers.d/volnet.conf
put 644 packaging/10-volnet.network usr/lib/systemd/network/10-volnet.network
put 644 packaging/90-volnet.conf usr/lib/NetworkManager/conf.d/90-volnet.conf
put 644 packaging/volnet.8 usr/share/man/man8/volnet.8
put 644 packaging/volnet.bash usr/share/bash-completion/completions/volnet
put 644 packaging/volnet.zsh usr/share/zsh/vendor-completions/_volnet
put 644 packaging/volnet.fish usr/share/fish/vendor_completions.d/volnet.fish
put 644 packaging/config.example.json usr/share/doc/volnet/examples/config.json
put 644 README.md usr/share/doc/volnet/README.md
for page in docs/*.md; do put 644 "$page" "usr/share/doc/volnet/$page"; done
put 644 packaging/debian/lintian-overrides usr/share/lintian/overrides/volnet
printf '%s (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- %s  %s\n' \
    volnet "$version" "$maintainer" "$date" >"$tree/usr/share/doc/volnet/changelog"
# The text of the license, as a field of this file: indented, a dot for an empty line.
sed 's/^/ /; s/^ $/ ./' LICENSE-MIT |
    sed -e '/@LICENSE@/{r /dev/stdin' -e 'd}' packaging/debian/copyright \
        >"$tree/usr/share/doc/volnet/copyright"
gzip -9n "$tree/usr/share/doc/volnet/changelog" "$tree/usr/share/man/man8/volnet.8"

mkdir "$tree/DEBIAN"
(cd "$tree" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$tree/DEBIAN/md5sums"
for script in postinst prerm postrm; do put 755 "packaging/debian/$script" "DEBIAN/$script"; done
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@QEMU@/$qemu/" \
    -e "s/@MAINTAINER@/$maintainer/" -e "s/@SIZE@/$(du -sk "$tree/usr" | cut -f1)/" \
    packaging/debian/control >"$tree/DEBIAN/control"
find "$tree" -type d -exec chmod 755 {} +

deb=dist/volnet_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$tree" "$deb" >/dev/null
echo "$deb: $(stat -c %s "$deb") bytes"
