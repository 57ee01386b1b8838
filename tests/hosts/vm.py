"""A host of the table in QEMU without KVM, and commands in it.

The disk is a snapshot: what a host writes survives its reboot and not its end. The agent of the
host (agent) is asked for commands by a port of virtio-serial.
"""

import base64
import pathlib
import re
import socket
import subprocess
import time

MEMORY_MB = 1024
# An emulated processor that shares two with others is slow; nothing is measured by these bounds.
BOOT_SECONDS = 600
COMMAND_SECONDS = 1800
PAUSE_SECONDS = 0.1


# How QEMU plays a machine of each architecture, by Debian's names: the program, its machine and
# processor, and what the kernel is told: its console, and that the timer is not to be tested
# against the processor's clock (kernel-parameters.txt): on a busy machine it fails, and Linux
# panics.
MACHINES = {
    "amd64": ("qemu-system-x86_64", "q35", "max", "console=ttyS0 no_timer_check"),
    "arm64": ("qemu-system-aarch64", "virt", "cortex-a72", "console=ttyAMA0"),
}


class HostFailed(Exception):
    """The host does not answer: it did not boot, or it is gone."""


class Host:
    """A host that runs until the end of a `with`."""

    def __init__(self, folder, architecture, source, log):
        self.console = log / "console"
        self.socket_path = log / "agent.sock"
        self.socket_path.unlink(missing_ok=True)
        # QEMU connects to it at once: a port that nobody has open reads as ended.
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket_path))
        listener.listen(1)
        program, machine, processor, words = MACHINES[architecture]
        drive = "if=virtio,format=raw,snapshot=on,file="
        self.qemu = subprocess.Popen(
            [program, "-machine", machine, "-accel", "tcg,thread=multi", "-cpu", processor]
            + ["-m", str(MEMORY_MB), "-nodefaults", "-display", "none", "-net", "none"]
            + ["-kernel", folder / "vmlinuz", "-initrd", folder / "initramfs"]
            + ["-append", f"{words} mitigations=off random.trust_cpu=on panic=-1"]
            + ["-serial", f"file:{self.console}"]
            + ["-drive", f"{drive}{folder / 'disk'}", "-drive", f"{drive}{source}"]
            + ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
            + ["-chardev", f"socket,id=agent,path={self.socket_path}"]
            + ["-device", "virtserialport,chardev=agent,name=agent"],
            stdin=subprocess.DEVNULL,
        )
        listener.settimeout(BOOT_SECONDS)
        self.port = listener.accept()[0]
        listener.close()
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.qemu.kill()
        self.qemu.wait()
        self.socket_path.unlink(missing_ok=True)

    def wait_for_boot(self):
        """Waits until the agent speaks, and gives the seconds that took."""
        begin = time.monotonic()
        while self._line(BOOT_SECONDS) != b"ready":
            pass
        return time.monotonic() - begin

    def run(self, command, seconds=COMMAND_SECONDS):
        """Runs a command of bash; gives its status and what it printed."""
        self.send(command)
        status, _, output = self._line(seconds).partition(b" ")
        return int(status), base64.b64decode(output).decode(errors="replace")

    def send(self, command):
        """Sends a command whose answer is not awaited: it reboots the host."""
        self.port.sendall(base64.b64encode(command.encode()) + b"\n")

    def _line(self, seconds):
        deadline = time.monotonic() + seconds
        while b"\n" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0:
                words = self.last_words()
                raise HostFailed(f"no answer in {seconds} s; its console ends:\n{words}")
            self.port.settimeout(left)
            try:
                read = self.port.recv(1 << 16)
            except TimeoutError:
                continue
            if not read:
                raise HostFailed(f"QEMU is gone; its console ends:\n{self.last_words()}")
            self.unread += read
        line, _, self.unread = self.unread.partition(b"\n")
        return line.strip()

    def last_words(self):
        """The last lines of the console, without what colours them."""
        console = pathlib.Path(self.console)
        text = console.read_text(errors="replace") if console.exists() else ""
        return "\n".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).splitlines()[-20:])
