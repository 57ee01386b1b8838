"""What the stand-ins for Cloud Hypervisor and Firecracker share.

A guest is a word of the kernel command line: `guest=WORD,MS`. It does WORD so many milliseconds
after it began to run: `poweroff`, `reset`, `panic` (which resets), `silent` (a panic that is told
by pvpanic alone, and hangs), or nothing (`hold`; `deaf` does not react to the power button either).
`shell` answers each line that is typed on its serial port in capitals, and powers off at
`poweroff`; `flood` writes to its serial port without end.
"""

import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import threading
import time

TUNSETIFF = 0x400454CA
TUNGETIFF = 0x800454D2
TAP, NO_PI, VNET_HDR, MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100

# Bytes: what KVM does not take as one slot of memory (KVM_MEM_MAX_NR_PAGES in
# virt/kvm/kvm_main.c of Linux).
MEMORY_MAX = ((1 << 31) - 1) << 12
F_OFD_SETLK = 37
PR_SET_NAME = 15

BORN = time.monotonic()


def passed():
    """Milliseconds since the program began."""
    return (time.monotonic() - BORN) * 1000


def is_kernel(path, bz_image):
    """Whether a file is an ELF kernel, or a bzImage where that is taken (boot.rst of Linux)."""
    with open(path, "rb") as file:
        head = file.read(0x206)
    return head[:4] == b"\x7fELF" or bz_image and head[0x202:0x206] == b"HdrS"


def guest_of(cmdline):
    """What the guest does, and after how many milliseconds. The last word wins, as in Linux."""
    words = [word[6:] for word in cmdline.split() if word.startswith("guest=")]
    word, _, after = (words[-1] if words else "hold").partition(",")
    return word, float(after or 0)


def word_ms(cmdline, name, usual=0):
    """Milliseconds that something takes, if a test wants it slow: `boot=MS` is how long a boot
    takes until it fails, if it does, or a guest until it has woken; `save=MS` how long one is
    saved."""
    values = [word.partition("=")[2] for word in cmdline.split() if word.startswith(name + "=")]
    return float(values[-1]) if values else usual


def bind(path):
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o077)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(10)
    return listener


def serve_vsock(path):
    """A guest that listens on the vsock port 1024 and sends back what it gets in capitals.

    The socket of the host speaks as docs/vsock.md of Firecracker says it (Cloud Hypervisor has the
    same): `CONNECT PORT`, and `OK` with the port of the host. If nobody listens, it is closed. Who
    ends one direction of a connection ends the other, too: what the guest answers later is lost
    (`recv_pkt` in src/vmm/src/devices/virtio/vsock/csm/connection.rs).
    """
    listener = bind(path)
    threading.Thread(target=serve_ports, args=[listener], daemon=True).start()
    return listener


def serve_ports(listener):
    while True:
        client = listener.accept()[0]
        with client:
            if client.recv(64) == b"CONNECT 1024\n":
                client.sendall(b"OK 1073741824\n")
                answer_lines(client)


def answer_lines(client):
    """Answers each line a while later. The line `quit` ends the connection."""
    data = b""
    while more := client.recv(4096):
        *lines, data = (data + more).split(b"\n")
        for line in lines:
            if line == b"quit" or is_over(client, 0.2):
                return
            client.sendall(line.upper() + b"\n")


def is_over(client, seconds):
    """Whether the other end ends what it sends, within this time."""
    ready, _, _ = select.select([client], [], [], seconds)
    return bool(ready) and not client.recv(1, socket.MSG_PEEK)


def attach(name, flags):
    """Opens a tap by its name, as tun_set_iff of Linux allows it."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    return tap


def kvm_is_denied():
    """Whether this host has KVM that this user may not open. A host without it is what this
    stand-in is for."""
    return os.path.exists("/dev/kvm") and not os.access("/dev/kvm", os.R_OK | os.W_OK)


def lock(file, kind):
    """Locks a whole file, as an open file description (fcntl(2))."""
    fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))


def name_of(tap):
    """The name of an open tap."""
    return fcntl.ioctl(tap, TUNGETIFF, bytes(40))[:16].rstrip(b"\0").decode()


def panic():
    """What the kernel writes to its console (panic in kernel/panic.c of Linux)."""
    os.write(1, b"[    0.9] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
                b"[    0.9] CPU: 0 PID: 1 Comm: swapper/0\n[    0.9] Rebooting in 1 seconds..\n")


def serve_console(word, power_off):
    """A guest with a shell on its serial port, or one that floods it. Standard output is the
    port."""
    target, args = {"shell": (shell, [power_off]), "flood": (flood, [])}.get(word, (None, []))
    if target:
        threading.Thread(target=target, args=args, daemon=True).start()


def shell(power_off):
    os.write(1, b"login: ")
    line = b""
    while True:
        typed = os.read(0, 64)
        if not typed:
            return
        for byte in typed.replace(b"\n", b"\r"):
            if byte != ord("\r"):
                line += bytes([byte])
            elif line == b"poweroff":
                os.write(1, b"\r\nreboot: Power down\r\n")
                power_off()
                return
            else:
                os.write(1, b"\r\n" + line.upper() + b"\r\n")
                line = b""


def flood():
    while True:
        os.write(1, b"the guest floods its console\r\n" * 100)


class Api:
    """An HTTP API on a Unix socket, served only while somebody calls `serve`."""

    def __init__(self, path, answer):
        self.listener, self.answer, self.clients = bind(path), answer, {}

    def serve(self, until=None):
        """Serves up to that age of the program in milliseconds, or for ever."""
        while True:
            left = None if until is None else (until - passed()) / 1000
            if left is not None and left <= 0:
                return
            ready, _, _ = select.select([self.listener, *self.clients], [], [], left)
            for one in ready:
                self.turn(one)

    def turn(self, one):
        if one is self.listener:
            self.clients[one.accept()[0]] = b""
            return
        try:
            data = one.recv(65536)
        except ConnectionResetError:
            # Whoever asked has ended and has not read its answer.
            data = b""
        if not data:
            del self.clients[one]
            one.close()
            return
        data = self.clients[one] + data
        head, end, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not end or len(body) < length:
            self.clients[one] = data
            return
        self.clients[one] = body[length:]
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        status, answer = self.answer(method, path, body[:length].decode())
        head = f"HTTP/1.1 {status} \r\nServer: stand-in\r\nConnection: keep-alive\r\n"
        if answer:
            head += f"Content-Type: application/json\r\nContent-Length: {len(answer)}\r\n"
        try:
            one.sendall((head + "\r\n" + answer).encode())
        except (BrokenPipeError, ConnectionResetError):
            del self.clients[one]  # It did not wait for the answer.

    def is_asked(self):
        """Whether a request is open: it has come and was not read."""
        ready, _, _ = select.select([self.listener, *self.clients], [], [], 0)
        return bool(ready)


def name_thread(name):
    """Begins a thread of this name, which does nothing."""
    def idle():
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())
        named.set()
        threading.Event().wait()

    named = threading.Event()
    threading.Thread(target=idle, daemon=True).start()
    named.wait()


def say(line):
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
