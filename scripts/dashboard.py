#!/usr/bin/env python3
"""Draws docs/dashboard.svg: the panels of docs/grafana.json with numbers of a live host.

    make dist guest && scripts/dashboard.py [SECONDS]

The host is a network namespace of its own with real guests in QEMU. They are pinged, limited,
denied and restarted. Prometheus is asked each query of the dashboard, as Grafana would ask. A query
that Prometheus does not understand is an error. Needs root.
"""

import html
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent.parent
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 240
METRICS, PROMETHEUS = "127.0.0.1:9744", "127.0.0.1:9090"
POINTS = 120
# A column of the dashboard has 24 parts.
PART, ROW, HEAD, FOOT = 40, 26, 24, 30
COLOURS = ["#3274d9", "#56a64b", "#e0a100", "#e02f44", "#8f3bb8", "#00889e", "#a0522d", "#555"]
UNITS = {"Bps": "B/s", "bytes": "B", "s": "s", "pps": "/s", "ops": "/s", "reqps": "/s"}


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class Host:
    """volnet and Prometheus, until the block ends."""

    def __init__(self, folder):
        self.folder, self.children = folder, []
        self.volnet = HERE / "dist/volnet"
        os.environ["VOLNET_SOCKET"] = str(folder / "volnet.sock")
        os.environ["VOLNET_CONFIG"] = str(folder / "config.json")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in ("web", "db", "job", "cam"):
            self.call("delete", name, "--timeout", "1")
        self.call("teardown")
        for child in reversed(self.children):
            child.terminate()
            child.wait()

    def begin(self):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "uplink", "type", "bridge")
        run("ip", "link", "set", "uplink", "up")
        run("ip", "route", "add", "default", "dev", "uplink")
        # In a namespace of mounts of this script's own.
        run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        # KVM is no use where it is emulated itself.
        group = f"/sys/fs/cgroup/{self.folder.name}"
        settings = {"metrics": METRICS, "cgroup": group, "kvm": False}
        (self.folder / "config.json").write_text(json.dumps(settings))
        jobs = {"job_name": "volnet", "scrape_interval": "1s"}
        jobs["static_configs"] = [{"targets": [METRICS]}]
        # JSON is YAML, too.
        (self.folder / "prometheus.json").write_text(json.dumps({"scrape_configs": [jobs]}))
        directories = [f"--{it}-dir={self.folder / it}" for it in ("state", "runtime", "log")]
        self.start(self.volnet, "serve", *directories)
        until(lambda: self.call("list"), "the daemon")
        self.start(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.json'}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address={PROMETHEUS}",
        )
        until(lambda: samples("up", time.time() - 5, time.time(), 1), "Prometheus")

    def start(self, *words):
        log = open(self.folder / "messages", "a")
        self.children.append(subprocess.Popen(words, stdout=log, stderr=log))

    def call(self, *words):
        """Whether the daemon did it. What it says otherwise is for whoever looks for the reason."""
        with open(self.folder / "messages", "a") as log:
            return subprocess.run([self.volnet, *words], stdout=log, stderr=log).returncode == 0

    def guest(self, name, cmdline, *flags):
        machine = ["--hypervisor", "qemu", "--kernel", HERE / "build/guest/vmlinux"]
        machine += ["--initramfs", HERE / "build/guest/initramfs", "--memory", "128"]
        if not self.call("run", name, *machine, "--cmdline", f"quiet {cmdline}", *flags):
            sys.exit(f"dashboard: {name} does not run\n{(self.folder / 'messages').read_text()}")


def until(done, what):
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    sys.exit(f"dashboard: waited a minute for {what}")


def live(host):
    """A few minutes of a host."""
    host.guest("web", "volnet.do=hold")
    host.guest("db", "volnet.do=hold", "--rx", "1")
    denied = ",".join(["ping:10.1.2.3"] * 4)
    host.guest("job", f"volnet.do={denied}", "--policy", "internet", "--restart", "always")
    host.guest("cam", "ip=dhcp volnet.do=lease:get,hold", "--mode", "dhcp")
    ips = {vm["name"]: vm.get("ip") for vm in listed(host)}
    pings = [("web", 0.01, 1000), ("db", 0.003, 1400), ("web", 0.05, 400)]
    end, turn = time.time() + SECONDS, 0
    while time.time() < end:
        turn += 1
        name, pause, bytes_ = pings[turn % len(pings)]
        subprocess.run(
            ["ping", "-q", "-w", "8", "-i", str(pause), "-s", str(bytes_), ips[name]],
            stdout=subprocess.DEVNULL,
        )
        host.call("get", name)
        if turn % 5 == 2:
            # Somebody else meddles, and volnet repairs it.
            run("ip", "link", "set", "vttap-web", "down")
        if turn % 6 == 5:
            host.call("restart", "cam", "--timeout", "1")


def listed(host):
    done = subprocess.run([host.volnet, "list", "--json"], capture_output=True, check=True)
    return json.loads(done.stdout)["vms"]


def samples(query, start, end, step):
    """What Prometheus has: (labels, [(time, value)]) of each series; none while it is not up."""
    asked = {"query": query, "start": start, "end": end, "step": step}
    url = f"http://{PROMETHEUS}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    try:
        with urllib.request.urlopen(url) as answer:
            found = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return []
        sys.exit(f"dashboard: {query}: {error.read().decode()}")
    except OSError:
        return []
    of = lambda values: [(float(at), float(value)) for at, value in values if value != "NaN"]
    return [(it["metric"], of(it["values"])) for it in found]


def short(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{UNITS.get(unit, '')}".strip()
    return f"{value:.2g} {UNITS.get(unit, '')}".strip()


def named(target, labels):
    text = target.get("legendFormat") or ", ".join(labels.values()) or target["expr"]
    for label, value in labels.items():
        text = text.replace("{{" + label + "}}", value)
    return text


def panel(it, start, end):
    """A panel as SVG: its title, its lines with the greatest value at the left, its legend."""
    place = it["gridPos"]
    x, y, wide, high = (place["x"] * PART, place["y"] * ROW, place["w"] * PART, place["h"] * ROW)
    series = []
    for target in it["targets"]:
        # Minutes are drawn, not hours: so is what a rate is of.
        query = target["expr"].replace("$vm", ".*").replace("[5m]", "[10s]").replace("[1h]", "[1m]")
        for labels, points in samples(query, start, end, (end - start) / POINTS):
            series.append((named(target, labels), points))
    # The busiest first; a legend has no room for more.
    series.sort(key=lambda it: -max((value for _, value in it[1]), default=0))
    series = [it for it in series if it[1]][: len(COLOURS)]
    unit = it["fieldConfig"]["defaults"].get("unit", "short")
    top = max((value for _, points in series for _, value in points), default=0) or 1
    left, right = x + 64, x + wide - 16
    upper, lower = y + HEAD + 10, y + high - FOOT - 8
    at = lambda when, value: (
        f"{left + (when - start) / (end - start) * (right - left):.1f},"
        f"{lower - value / top * (lower - upper):.1f}"
    )
    out = [f'<rect x="{x + 4}" y="{y + 4}" width="{wide - 8}" height="{high - 8}" class="panel"/>']
    out.append(f'<text x="{x + 14}" y="{y + 22}" class="title">{html.escape(it["title"])}</text>')
    for value in (0, top):
        level = at(start, value).split(",")[1]
        out.append(f'<path d="M{left} {level}H{right}" class="grid"/>')
        out.append(f'<text x="{left - 6}" y="{level}" class="axis">{short(value, unit)}</text>')
    across = x + 14
    for colour, (name, points) in zip(COLOURS, series):
        line = " ".join(at(when, value) for when, value in points)
        out.append(f'<polyline points="{line}" stroke="{colour}"/>')
        if across + 7 * len(name) < x + wide - 20:
            out.append(f'<text x="{across}" y="{y + high - 14}" fill="{colour}">'
                       f"{html.escape(name)}</text>")
            across += 7 * len(name) + 14
    if not series:
        out.append(f'<text x="{x + wide / 2}" y="{y + high / 2}" class="none">none</text>')
    return "\n".join(out)


STYLE = """text { font: 11px sans-serif; } .title { font-weight: bold; } .axis { text-anchor: end; }
.panel { fill: #fff; stroke: #ccc; } .grid { stroke: #ddd; } .none { fill: #999; }
polyline { fill: none; stroke-width: 1.4; }"""


def main():
    if os.environ.get("VOLNET_DASHBOARD") != "inside":
        os.environ["VOLNET_DASHBOARD"] = "inside"
        os.execvp("unshare", ["unshare", "-n", "-m", sys.executable, __file__, str(SECONDS)])
    panels = json.loads((HERE / "docs/grafana.json").read_text())["panels"]
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="volnet-dashboard-") as folder:
        with Host(pathlib.Path(folder)) as host:
            host.begin()
            live(host)
            drawn = [panel(it, start, time.time()) for it in panels]
    high = max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in panels) * ROW
    picture = HERE / "docs/dashboard.svg"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * PART} {high}">'
    picture.write_text("\n".join([head, f"<style>{STYLE}</style>", *drawn, "</svg>\n"]))
    print(f"{picture}: {len(panels)} panels")


main()
