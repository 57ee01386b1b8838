#!/bin/bash
# Makes a host of the table for run.py: build/hosts/NAME/disk, vmlinuz and initramfs.
#
#   tests/hosts/build.sh NAME
#
# User space is installed from Debian's packages into a folder, which becomes an ext4 image; the
# kernel is a package of Debian's, unpacked. Where this machine's apt has its packages from is where
# these come from. What the scripts of packages do is the same on each architecture: for another
# one than this machine's, they run here, and then its files replace those of this machine's.
#
# A host that is there already is kept until what it is made of changes; every result gets its
# name only when it is complete.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/build/hosts
name=$1

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# What volnet's users have, and what its tests read back with.
PACKAGES=systemd,systemd-sysv,udev,dbus,kmod,procps,iproute2,iputils-ping,nftables,iptables
PACKAGES=$PACKAGES,passwd,conntrack,ethtool,jq,netcat-openbsd,python3-minimal
# Needed to reach the disk, and the agent's port. What a kernel has built in is no module.
BOOT_MODULES="virtio_pci virtio_blk virtio_console ext4"
# No host has the devices that these are for.
UNNEEDED="sound drivers/gpu drivers/media drivers/infiniband drivers/scsi drivers/iio drivers/hwmon
    drivers/staging drivers/usb drivers/input drivers/mmc drivers/mtd drivers/isdn drivers/md
    drivers/net/ethernet drivers/net/wireless drivers/net/wan drivers/net/usb drivers/net/can
    drivers/ata drivers/bluetooth drivers/comedi drivers/firewire drivers/nvme drivers/edac
    drivers/platform drivers/power drivers/video drivers/thunderbolt drivers/target
    fs/xfs fs/btrfs fs/ocfs2 fs/ceph fs/nfs fs/nfsd fs/smb fs/cifs fs/f2fs fs/jfs fs/gfs2 fs/dlm
    fs/afs fs/udf fs/ubifs fs/reiserfs fs/nilfs2 fs/hfs fs/hfsplus fs/coda fs/bcachefs
    net/mac80211 net/wireless net/bluetooth net/ceph net/sctp net/tipc net/rxrpc net/sunrpc
    net/batman-adv net/nfc net/dccp net/can net/atm net/appletalk net/ax25 net/netrom net/rose
    net/openvswitch"
# What an image has free for the host to write, in MiB.
FREE_MIB=512

fail() { echo "hosts: $name: $*" >&2; exit 1; }

read -r _ suite kernel _ _ more < <(grep "^$name " "$here/table") || fail "is not in the table"
arch=${kernel##*-}
here_arch=$(dpkg --print-architecture)
out=$cache/$name
recipe=$({ echo "$suite $kernel $more"; cat "$0" "$here/agent" "$here/init"; } | sha256sum)
[ "$(cat "$out/recipe" 2>/dev/null)" != "$recipe" ] || exit 0

[ "$(id -u)" = 0 ] || fail "needs root (it makes a root file system)"
mkdir -p "$cache"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root

# Where this machine has Debian's packages from.
# shellcheck disable=SC2016 # apt fills it in
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
    head -n 1)
[ -n "$mirror" ] || fail "apt has no source of Debian's packages"

# apt-get for a release that this machine is not of.
apt_of() { # SUITE COMMAND...
    local apt=$work/apt-$1
    if [ ! -d "$apt" ]; then
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
        : >"$apt/status"
        echo "deb [signed-by=$KEYRING] $mirror $1 main" >"$apt/sources.list"
        cat >"$apt/apt.conf" <<EOT
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Architecture "$arch";
APT::Architectures "$arch";
APT::Sandbox::User "root";
EOT
        APT_CONFIG=$apt/apt.conf apt-get -qq update
    fi
    shift
    APT_CONFIG=$apt/apt.conf "$@"
}

make_root() {
    local -a now=() later=() hooks=()
    local package
    for package in $more; do
        case $package in
        +*) later+=("${package#+}") ;;
        *) now+=("$package") ;;
        esac
    done
    # With what they depend on, as the host will lack a network to fetch that by.
    if [ ${#later[@]} != 0 ]; then
        hooks=("--customize-hook=mkdir -p \$1/var/lib/later
            APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get -qq --download-only \
                --no-install-recommends -y install ${later[*]}
            mv \$1/var/cache/apt/archives/*.deb \$1/var/lib/later/")
    fi
    mmdebstrap --quiet --mode=root --variant=essential \
        --include="$PACKAGES$(printf ',%s' "${now[@]}")" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "${hooks[@]}" "$suite" "$root" "$mirror"
    [ "$arch" = "$here_arch" ] || replace_files
}

# Puts the files of the host's architecture in the place of this machine's.
replace_files() {
    mmdebstrap --quiet --mode=root --variant=extract --architectures="$arch" \
        --include="?essential" --include="$PACKAGES" \
        --aptopt='APT::Install-Recommends "false"' \
        "$suite" "$work/files" "$mirror"
    rm -rf "$root"/usr/lib/*-linux-gnu* "$root/etc/ld.so.cache"
    (cd "$work/files" && rm -rf etc var usr/share/{doc,man,locale,info})
    tar -C "$work/files" -c . | tar -C "$root" -x --keep-directory-symlink
    # For dpkg they are of that architecture, too.
    local info=$root/var/lib/dpkg/info file
    sed -i "s/^Architecture: $here_arch\$/Architecture: $arch/" "$root/var/lib/dpkg/status"
    for file in "$info"/*:"$here_arch".*; do
        mv "$file" "${file/:$here_arch./:$arch.}"
    done
}

unpack_kernel() {
    local from=${kernel%/*} package parts
    package=$(apt_of "$from" apt-cache depends "${kernel#*/}" |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$package" ] || fail "there is no ${kernel#*/} in $from"
    # Later kernels have what they consist of in packages of their own.
    parts=$(apt_of "$from" apt-cache depends "$package" |
        sed -n 's/.*Depends: \(linux-\(base\|binary\|modules\)-[0-9].*\)/\1/p')
    # shellcheck disable=SC2086 # a list of words
    (cd "$work" && apt_of "$from" apt-get -qq download "$package" $parts)
    for package in "$work"/linux-*.deb; do dpkg-deb -x "$package" "$work/kernel"; done
    cp "$(find "$work/kernel" -type f -name 'vmlinuz*')" "$work/vmlinuz"
    modules=$(find "$work/kernel" -path '*/lib/modules/*' -prune -type d)
    version=${modules##*/}
    # shellcheck disable=SC2086 # a list of words
    (cd "$modules/kernel" && rm -rf $UNNEEDED)
    mkdir -p "$root/lib/modules"
    mv "$modules" "$root/lib/modules/"
    depmod -b "$root" "$version"
}

# A root file system that loads what the disk needs, and goes on there.
make_initramfs() {
    local tree=$work/initramfs.d module file
    mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
    if [ "$arch" = "$here_arch" ]; then
        cp "$(command -v busybox)" "$tree/bin/busybox"
    else
        (cd "$work" && apt_of "$suite" apt-get -qq download busybox-static)
        dpkg-deb -x "$work"/busybox-static_*.deb "$work/busybox"
        cp "$(find "$work/busybox" -path '*/bin/busybox')" "$tree/bin/"
    fi
    # shellcheck disable=SC2086 # a list of words
    modprobe -d "$root" -S "$version" --show-depends --all $BOOT_MODULES |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/order"
    while read -r file; do
        module=${file##*/} module=${module%%.ko*}.ko
        case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dc "$file" ;;
        *) cat "$file" ;;
        esac >"$tree/modules/$module"
        echo "$module" >>"$tree/modules/order"
    done <"$work/order"
    install -m 755 "$here/init" "$tree/init"
    mknod "$tree/dev/console" c 5 1
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
}

settle_root() {
    echo "$name" >"$root/etc/hostname"
    echo "127.0.0.1 localhost $name" >"$root/etc/hosts"
    echo "$name" | md5sum | cut -c 1-32 >"$root/etc/machine-id"
    # /src has what is tried, in the places that it has in the repository. On a busy machine udev
    # may need longer than systemd would wait for it.
    mkdir -p "$root/src"
    printf '%s\n' '/dev/vda / ext4 defaults 0 0' \
        '/dev/vdb /src ext4 ro,x-systemd.device-timeout=600 0 0' >"$root/etc/fstab"
    install -m 755 "$here/agent" "$root/usr/local/sbin/agent"
    cat >"$root/etc/systemd/system/agent.service" <<'EOT'
[Unit]
Description=Runs what the tests ask for
[Service]
ExecStart=/usr/local/sbin/agent
[Install]
WantedBy=multi-user.target
EOT
    local wants=$root/etc/systemd/system/multi-user.target.wants
    mkdir -p "$wants"
    ln -sf ../agent.service "$wants/agent.service"
    # Minutes of an emulated processor that say nothing of volnet.
    local unit
    for unit in getty@tty1 serial-getty@ttyS0 serial-getty@ttyAMA0 systemd-firstboot \
        systemd-timesyncd e2scrub_reap systemd-pstore systemd-update-utmp ldconfig \
        systemd-update-utmp-runlevel; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
    done
    ln -sf /dev/null "$root/etc/systemd/system/timers.target"
    # The journal of the boot before is read after it.
    mkdir -p "$root/var/log/journal"
}

make_disk() {
    local used
    used=$(du -sm "$root" | cut -f1)
    mke2fs -qF -t ext4 -m 0 -d "$root" "$work/disk" "$((used * 5 / 4 + FREE_MIB))M"
}

echo "hosts: making $name"
make_root
unpack_kernel
make_initramfs
settle_root
make_disk
mkdir -p "$out"
rm -f "$out/recipe"
mv "$work/disk" "$work/vmlinuz" "$work/initramfs" "$out/"
echo "$recipe" >"$out/recipe"
