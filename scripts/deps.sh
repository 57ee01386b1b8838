#!/bin/sh
# Installs the Debian packages behind the commands that tests and demo use, where one is missing.
set -eu

# command:package
wanted="
    qemu-system-x86_64:qemu-system-x86
    qemu-system-aarch64:qemu-system-arm
    nft:nftables
    iptables:iptables
    conntrack:conntrack
    ip:iproute2
    ping:iputils-ping
    dnsmasq:dnsmasq-base
    dhclient:isc-dhcp-client
    nc:netcat-openbsd
    busybox:busybox-static
    python3:python3
    gcc:gcc
    strip:binutils
    lz4:lz4
    zstd:zstd
    xz:xz-utils
    cpio:cpio
    file:file
    mmdebstrap:mmdebstrap
    gpg:gpg
    mke2fs:e2fsprogs
    fsck.vfat:dosfstools
    depmod:kmod
    jq:jq
    pkill:procps
    tmux:tmux
    prometheus:prometheus
    strace:strace
    zsh:zsh
    fish:fish
    man:man-db
    groff:groff-base
    shellcheck:shellcheck
    lintian:lintian
    containerd:containerd
    runc:runc
    podman:podman
    conmon:conmon
    systemd-analyze:systemd
"

missing=''
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
# venv is a module, not a command; its ensurepip is what Debian packs separately.
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
# virtiofsd is built (scripts/helpers.sh) and has no command for these.
[ -e /usr/include/cap-ng.h ] || missing="$missing libcap-ng-dev"
[ -e /usr/include/seccomp.h ] || missing="$missing libseccomp-dev"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing:$missing: install them, or run make deps as root" >&2
    exit 1
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # a list of words
apt-get -qq install --no-install-recommends -y $missing >/dev/null
