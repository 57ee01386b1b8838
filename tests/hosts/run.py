#!/usr/bin/env python3
"""make test-hosts: the hosts of the table, and what is tried on each.

    run.py [--always | HOST ...]

Makes each host (build.sh), boots it, tries its checks, and ends with a table hosts x checks. What
each check printed is in build/hosts/NAME/log. A host that cannot be made, or that does not answer,
has failed. HOSTS_AT_ONCE is how many run beside each other (the number of processors), HOST_CHECKS
names the checks that are tried instead of those of the table. With --always it is the hosts and
checks of `make test`.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from vm import Host, HostFailed

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build/hosts"
# What a host has of the repository, in its places.
GIVEN = ["README.md", "docs", "packaging", "tests/hosts"]
# The binary that is shipped, and what else the compiler is told, by the architecture of a host. For
# another one than this machine's, programs are linked as scripts/dist.sh does it.
BINARIES = {"amd64": "dist/volnet", "arm64": "dist/volnet-arm64"}
PACKAGES = "dist/volnet_*_{}.deb"
TARGETS = {
    "amd64": [],
    "arm64": [
        "--target=aarch64-unknown-linux-musl",
        "--config=build.rustflags=['-Clinker=rust-lld']",
    ],
}
# Asks for a reboot, and to be run again with the argument "after" (EX_TEMPFAIL of sysexits.h).
REBOOT = 75

# Programs of `cargo test` whose judge is the kernel.
KERNEL = "contract links nft socket conntrack rtnl packets commands twin".split()
KERNEL = [f"kernel_{name}" for name in KERNEL]
USER = ["smoke", "install", "systemd", "limits", "reboot", "remove", "package"]
# Sets of checks. The name of a check stands for itself.
CHECKS = {"kernel": KERNEL, "user": USER, "all": [*KERNEL, *USER], "-": []}


def table():
    """The lines of the table: name, and the rest of the words."""
    lines = (HERE / "table").read_text().splitlines()
    return {words[0]: words[1:] for words in map(str.split, lines) if words and words[0] != "#"}


def architecture_of(words):
    """The architecture of a host, from its line of the table."""
    return words[1].rpartition("-")[2]


def test_programs(architecture, checks):
    """Builds the programs of the kernel's tests among these checks; gives the path of each."""
    names = [name for name in KERNEL if name in checks]
    if not names:
        return {}
    # Compiled for speed: an emulated processor has none to spare.
    command = ["cargo", "test", "--locked", "--profile=simulation", "--no-run"]
    command += TARGETS[architecture]
    command += [word for name in names for word in ("--test", name)]
    said = subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True).stderr
    built = dict(re.findall(r"Executable tests/(\w+)\.rs \((.*)\)", said))
    return {name: ROOT / built[name] for name in names}


def make_source(architecture, programs):
    """An image of what hosts of an architecture have at /src."""
    tree, image = CACHE / f"src-{architecture}", CACHE / f"src-{architecture}.img"
    shutil.rmtree(tree, ignore_errors=True)
    for name in GIVEN:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    (tree / "dist").mkdir()
    shutil.copy(ROOT / BINARIES[architecture], tree / "dist/volnet")
    (package,) = ROOT.glob(PACKAGES.format(architecture))
    shutil.copy(package, tree / "dist/volnet.deb")
    # They are linked against this machine's libraries, which come along, or are static.
    (tree / "programs").mkdir()
    libraries = set()
    for name, path in programs.items():
        shutil.copy(path, tree / "programs" / name)
        said = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True).stdout
        libraries.update(re.findall(r"(/\S+) \(0x", said))
    for library in libraries:
        shutil.copy(library, tree / "programs")
    image.unlink(missing_ok=True)
    files = sum(path.lstat().st_size for path in tree.rglob("*"))
    # A quarter more than the files, for what the file system itself needs.
    size = f"{files * 5 // 4 // 1024 + 16384}k"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, size], check=True)
    return image


def command_of(check):
    """What the host is asked to run for a check."""
    if check in KERNEL:
        programs = "/src/programs"
        loader = f"{programs}/ld-linux-x86-64.so.2"
        # An emulated processor is too slow for all seeds.
        return f"""cd /tmp; export RUST_BACKTRACE=0 VOLNET_TWIN_SEEDS=2
            [ ! -e {loader} ] || exec {loader} --library-path {programs} {programs}/{check}
            exec {programs}/{check}"""
    return f"/src/tests/hosts/checks/{check}.sh"


def said_of(check, status, output):
    """The cell of the table."""
    if status == 0:
        return "ok"
    counts = re.search(r"(\d+) passed; (\d+) failed", output)
    return f"FAILED {counts[2]} of {int(counts[1]) + int(counts[2])}" if counts else "FAILED"


def try_check(host, check, log):
    """Runs one check; gives its cell."""
    command = command_of(check)
    status, output = host.run(command)
    while status == REBOOT:
        host.send("systemctl reboot || openrc-shutdown --reboot now")
        output += f"-- booted again in {host.wait_for_boot():.0f} s\n"
        status, more = host.run(f"{command} after")
        output += more
    (log / check).write_text(output)
    cell = said_of(check, status, output)
    if cell != "ok":
        print(f"--- {log / check}\n{output}", flush=True)
    return cell


def try_host(name, architecture, checks, image):
    """Makes a host, boots it and tries it; gives a cell for each check."""
    cells = dict.fromkeys(["boot", *checks], "-")
    folder = CACHE / name
    try:
        subprocess.run([HERE / "build.sh", name], check=True)
        log = folder / "log"
        shutil.rmtree(log, ignore_errors=True)
        log.mkdir()
        with Host(folder, architecture, image, log) as host:
            cells["boot"] = f"{host.wait_for_boot():.0f} s"
            for check in checks:
                begin = time.monotonic()
                cells[check] = "FAILED"
                cells[check] = try_check(host, check, log)
                took = time.monotonic() - begin
                print(f"{name}: {check}: {cells[check]} ({took:.0f} s)", flush=True)
    except (HostFailed, OSError, subprocess.SubprocessError) as error:
        print(f"{name}: {error}", flush=True)
        if cells["boot"] == "-":
            cells["boot"] = "FAILED"
    return cells


def show(rows):
    """The table, hosts across."""
    checks = list(dict.fromkeys(check for cells in rows.values() for check in cells))
    lines = [["", *rows]]
    lines += [[check, *(cells.get(check, "") for cells in rows.values())] for check in checks]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    print(text)
    (CACHE / "table").write_text(text + "\n")


def main():
    hosts = table()
    always = sys.argv[1:] == ["--always"]
    sets = {name: words[3 if always else 2] for name, words in hosts.items()}
    names = [name for name in hosts if sets[name] != "-"] if always else sys.argv[1:] or list(hosts)
    unknown = [name for name in names if name not in hosts]
    if unknown:
        sys.exit(f"hosts: not in the table: {' '.join(unknown)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    only = os.environ.get("HOST_CHECKS", "").split()
    checks = {name: only or CHECKS.get(sets[name], [sets[name]]) for name in names}
    architectures = {name: architecture_of(hosts[name]) for name in names}
    images = {}
    for it in set(architectures.values()):
        wanted = set().union(*(checks[name] for name in names if architectures[name] == it))
        images[it] = make_source(it, test_programs(it, wanted))
    at_once = int(os.environ.get("HOSTS_AT_ONCE") or os.cpu_count())
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        tried = {
            name: pool.submit(try_host, name, it, checks[name], images[it])
            for name, it in architectures.items()
        }
        rows = {name: future.result() for name, future in tried.items()}
    show(rows)
    cells = [cell for cells in rows.values() for cell in cells.values()]
    failed = sum(cell == "-" or cell.startswith("FAILED") for cell in cells)
    print(f"{len(cells) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
