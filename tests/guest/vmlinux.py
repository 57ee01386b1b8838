#!/usr/bin/env python3
"""Takes the ELF kernel out of a bzImage: vmlinux.py BZIMAGE OUT.

QEMU enters an ELF kernel by its PVH note and so skips the guest's own decompressor, which is the
slowest part of a boot under emulation. Offsets: Documentation/arch/x86/boot.rst of the kernel.
"""

import struct
import subprocess
import sys

SETUP_SECTS = 0x1F1
PAYLOAD_OFFSET = 0x248  # followed by payload_length
SECTOR = 512
DECOMPRESSORS = {
    b"\x02\x21": ["lz4", "-dc"],
    b"\x28\xb5": ["zstd", "-dcq"],
    b"\xfd\x37": ["xz", "-dc"],
    b"\x1f\x8b": ["gzip", "-dc"],
}


def main() -> None:
    with open(sys.argv[1], "rb") as image:
        data = image.read()
    start = ((data[SETUP_SECTS] or 4) + 1) * SECTOR
    offset, length = struct.unpack_from("<II", data, PAYLOAD_OFFSET)
    payload = data[start + offset : start + offset + length]
    # The kernel's build appends the unpacked size to the compressed stream.
    (size,) = struct.unpack("<I", payload[-4:])
    tool = DECOMPRESSORS[payload[:2]]
    # xz and gzip complain of those four bytes after they wrote everything: judge the result.
    unpacked = subprocess.run(tool, input=payload[:-4], stdout=subprocess.PIPE, check=False).stdout
    if unpacked[:4] != b"\x7fELF" or len(unpacked) < size:
        sys.exit(f"{sys.argv[1]}: {tool[0]} gave {len(unpacked)} bytes of {size}, or no ELF file")
    with open(sys.argv[2], "wb") as out:
        out.write(unpacked[:size])


main()
