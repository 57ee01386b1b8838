#!/usr/bin/env python3
"""Makes tables of what `make bench` measured.

    performance.py [--page FILE] RUN.json [RUN.json ...]

With several runs of the same commit each number is the range of what they gave. The tables are
printed; with --page they also go to that file, unless the machine was busy with other work.
"""

import json
import sys

# The most that others may take of the processors while something is measured for the page, percent.
QUIET = 10
ATTACH = "attach"
DURABLE_FLOOR, FLOOR = "floor and a synced file", "floor"
PAIR_FLOOR = "floor, a pair of links"
FLOORS = DURABLE_FLOOR, FLOOR, PAIR_FLOOR
SYSTEM_CALLS = "system calls of a create: "
# Measured with several numbers of VMs, by everybody: one table each.
MATRICES = {
    ATTACH: "Attach a VM, ms",
    "attach, a hundred at once": "Attach a hundred at once up to so many, ms a VM",
    "detach, answered": "Detach a VM until the answer, ms",
    "detach, link gone": "Detach a VM until its link is gone, ms",
    "kernel memory of a VM": "Kernel memory of a VM, up to so many, KiB",
}

# How a value of a unit is shown: divided by, digits, unit. Microseconds only where they are few.
FEW = 1000
MILLISECONDS = (1000, 2, "ms")
SHOWN = {
    "us": (1, 1, "us"),
    "ns": (1, 0, "ns"),
    "KiB": (1, 0, "KiB"),
    "bytes": (1e6, 2, "MB"),
    "count": (1, 0, ""),
    "calls": (1, 2, ""),
    "a second": (1, 0, "a second"),
}


def span(values, digits):
    """One number, or a range where the runs differ."""
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low}–{high}"


def table(head, lines):
    """A table of Markdown whose columns are aligned in plain text too."""
    lines = [head] + lines
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]

    def row(line):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "-" * (widths[0] + 2) + "|"
    rule += "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([row(lines[0]), rule] + [row(line) for line in lines[1:]]) + "\n"


class Runs:
    """Several runs, row by row."""

    def __init__(self, documents):
        self.documents = documents
        self.others = max(document["others"] for document in documents)
        self.rows = {}
        for document in documents:
            for row in document["rows"]:
                key = row["what"], row["who"], row["vms"]
                self.rows.setdefault(key, []).append(row)

    def matching(self, test):
        return [(key, rows) for key, rows in self.rows.items() if test(key)]

    def missing(self):
        return [
            f"{who}: {rows[0]['missing']}"
            for (_, who, _), rows in self.rows.items()
            if rows[0]["missing"]
        ]


def cell(rows, floor):
    """p50, p99 of times, and how often the floor's p50 goes into it."""
    if rows[0]["unit"] == "us":
        p50 = span([row["p50"] / 1000 for row in rows], 3)
        p99 = span([row["p99"] / 1000 for row in rows], 3)
        text = f"{p50} / {p99}"
    else:
        text = span([row["p50"] for row in rows], 0)
    if floor:
        ratios = [row["p50"] / below["p50"] for row, below in zip(rows, floor)]
        text += f" ({span(ratios, 2)})"
    return text


def matrix(runs, what):
    """Who by how many VMs."""
    rows = dict(runs.matching(lambda key: key[0] == what and key[2] is not None))
    numbers = sorted({vms for _, _, vms in rows})
    names = list(dict.fromkeys(who for _, who, _ in rows))
    lines = []
    for who in names:
        below = DURABLE_FLOOR if who.endswith(", durable") else FLOOR
        # A program that makes a pair of links is beside the floor that does.
        if who.startswith("CNI ") or " as CNI plugin" in who:
            below = PAIR_FLOOR
        line = [who]
        for vms in numbers:
            found = rows.get((what, who, vms))
            floor = rows.get((what, below, vms)) if who not in FLOORS else None
            line.append(cell(found, floor) if found else "-")
        lines.append(line)
    return table([MATRICES[what]] + [f"{vms} VMs" for vms in numbers], lines)


def singles(runs):
    """Everything that is not in a table of its own."""
    special = lambda key: key[0] in MATRICES or key[0].startswith(SYSTEM_CALLS)
    lines = []
    for (what, who, vms), rows in runs.matching(lambda key: not special(key)):
        unit = rows[0]["unit"]
        many = unit == "us" and max(row["p50"] for row in rows) >= FEW
        divisor, digits, unit = MILLISECONDS if many else SHOWN[unit]
        p50 = span([row["p50"] / divisor for row in rows], digits)
        p99 = span([row["p99"] / divisor for row in rows], digits)
        several = rows[0]["samples"] > 1
        vms = "" if vms is None else str(vms)
        lines.append([what, who, vms, f"{p50} {unit}".strip(), p99 if several else ""])
    return table(["", "", "VMs", "p50", "p99"], lines)


def system_calls(runs):
    rows = dict(runs.matching(lambda key: key[0].startswith(SYSTEM_CALLS)))
    who = list(dict.fromkeys(who for _, who, _ in rows))
    names = list(dict.fromkeys(what for what, _, _ in rows))
    lines = []
    for what in names:
        found = [rows.get((what, name, None)) for name in who]
        shown = [span([row["p50"] for row in some], 2) if some else "0" for some in found]
        lines.append([what.removeprefix(SYSTEM_CALLS)] + shown)
    return table(["system calls of a create"] + who, lines)


def machine(runs):
    documents = runs.documents
    lines = []
    for name in documents[0]["machine"]:
        values = dict.fromkeys(document["machine"][name] for document in documents)
        lines.append([name, ", ".join(values)])
    return table(["measured", f"{len(documents)} times" if len(documents) > 1 else "once"], lines)


PREFACE = """\
Made by `make bench` and `scripts/performance.py`; do not edit. The *floor* is the bare
system calls for the same work, with no daemon: open, make, own and close a tap, one
rtnetlink send, one nf_tables batch. A cell is p50 / p99 (p50 as a multiple of the
floor's; that of a durable VM of the floor with a synced file, that of a plugin of CNI of
the floor with a pair of links). Everybody has a network namespace of their own, and they
take turns in one run."""


def page(runs):
    quick = " This was the quick run: few samples." if runs.documents[0]["quick"] else ""
    parts = [
        "# Performance",
        f"Others took at most {runs.others} % of the processors meanwhile.",
        f"{PREFACE}{quick}",
        machine(runs).rstrip(),
        "## Attach and detach",
    ]
    parts += [matrix(runs, what).rstrip() for what in MATRICES]
    parts += [f"Not measured: {missing}." for missing in runs.missing()]
    parts += ["## The daemon, packets, and pure work", singles(runs).rstrip()]
    parts += ["## System calls", system_calls(runs).rstrip()]
    return "\n\n".join(parts) + "\n"


def main():
    documents, paths, target = [], sys.argv[1:], None
    if paths[:1] == ["--page"] and len(paths) > 1:
        target, paths = paths[1], paths[2:]
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents.append(json.load(file))
    if not documents:
        sys.exit(__doc__)
    runs = Runs(documents)
    text = page(runs)
    sys.stdout.write(text)
    if target and runs.others > QUIET:
        sys.exit(
            f"{target} is not written: others took {runs.others} % of the processors, and"
            f" {QUIET} % is the most"
        )
    if target:
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)


main()
