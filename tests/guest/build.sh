#!/bin/sh
# Makes the test guest: build/guest/vmlinux and build/guest/initramfs.
#
# The kernel is Debian's "cloud" one, fetched as a package and unpacked, not installed. What is
# there already is kept; every result appears under its name only when it is complete, so an
# interrupted run is simply repeated.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$here/../.." && pwd)/build/guest
mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# In load order. What the kernel has built in is in no package file, and left out.
modules="failover net_failover virtio_ring virtio virtio_mmio virtio_pci_legacy_dev
    virtio_pci_modern_dev virtio_pci virtio_net virtio_blk vsock vmw_vsock_virtio_transport_common
    vmw_vsock_virtio_transport button evdev nls_cp437 nls_ascii fat vfat
    pvpanic pvpanic-mmio pvpanic-pci rng-core virtio-rng virtio_balloon fuse virtiofs"

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

fetch_package() {
    package=$(kernel_package)
    [ -n "$package" ] || { apt-get -qq update && package=$(kernel_package); }
    [ -n "$package" ] || { echo "no linux-image-cloud-amd64 in the package lists" >&2; exit 1; }
    echo "guest: fetching $package"
    cd "$work"
    # A list that is days old names files that the mirror no longer has.
    apt-get -qq download "$package" 2>/dev/null ||
        { apt-get -qq update && apt-get -qq download "$(kernel_package)" 2>/dev/null; }
    dpkg-deb -x "$work"/linux-image-*.deb "$work/package"
}

copy_modules() {
    mkdir "$work/modules"
    for module in $modules; do
        file=$(find "$work/package/lib/modules" -name "$module.ko*" | head -n 1)
        [ -n "$file" ] || continue
        cp "$file" "$work/modules/"
        case $file in *.xz) xz -d "$work/modules/$module.ko.xz" ;; esac
        echo "$module" >>"$work/modules/order"
    done
    strip --strip-debug "$work"/modules/*.ko
    echo "$modules" >"$work/modules/wanted"
}

if ! [ -f "$out/vmlinux" ] || [ "$(cat "$out/modules/wanted" 2>/dev/null)" != "$modules" ]; then
    fetch_package
    copy_modules
    python3 "$here/vmlinux.py" "$work"/package/boot/vmlinuz-* "$work/vmlinux"
    cp "$work"/package/boot/vmlinuz-* "$work/vmlinuz"
    rm -rf "$out/modules"
    mv "$work/modules" "$out/modules"
    mv "$work/vmlinuz" "$work/vmlinux" "$out/"
fi

up_to_date() {
    [ -f "$out/initramfs" ] &&
        [ -z "$(find "$here" "$out/modules" -newer "$out/initramfs" -type f | head -n 1)" ]
}

if ! up_to_date; then
    root=$work/root
    mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $(busybox --list | grep -vx busybox); do ln -s busybox "$root/bin/$applet"; done
    gcc -static -Os -s -Wall -Wextra -Werror -o "$root/bin/tool" "$here/tool.c"
    install -m 755 "$here/init" "$here/lease" "$root/"
    cp -r "$out/modules" "$root/modules"
    # The kernel opens /dev/console before /init mounts anything there.
    mknod "$root/dev/console" c 5 1
    # Uncompressed: a guest under emulation would spend longer unpacking than reading.
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
    mv "$work/initramfs" "$out/initramfs"
    size() { du -h "$out/$1" | cut -f1; }
    echo "guest: $(size initramfs) initramfs, $(size vmlinux) kernel"
fi
