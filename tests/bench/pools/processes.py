"""What a process has cost so far, as the kernel counts it, and what an operator says of itself."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from cluster import samples

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time, in user and in kernel mode."""
    # The name of the command, in parentheses, may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Memory that is really there."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def pid_here(command: str) -> int:
    """The process of this name that shares our network: that of our devcluster, not of another."""
    here = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == command[:15] and (
                (process / "ns" / "net").readlink() == here
            ):
                return int(process.name)
        except OSError:
            continue  # it has ended meanwhile
    raise AssertionError(f"no process {command} in this network")


def requests_made(port: int) -> Counter[str]:
    """Requests to the API server by ``read`` and ``write``; those for the Lease do not count."""
    counted: Counter[str] = Counter()
    for sample in samples(port):
        labels = sample.labels
        if sample.name == "buildpool_kubernetes_requests_total" and labels["kind"] != "Lease":
            counted["read" if labels["method"] == "GET" else "write"] += int(sample.value)
    return counted


def pools_passed(port: int) -> int:
    """Pools that have had a pass, to the end."""
    return sum(
        sample.name == "buildpool_passes_total" and sample.labels["result"] == "done"
        for sample in samples(port)
    )


def pools_carried_out(port: int, namespace: str) -> int:
    """Pools of a namespace that have everything they consist of."""
    return sum(
        sample.name == "buildpool_condition"
        and sample.labels["namespace"] == namespace
        and sample.labels["condition"] == "CertificatesReady"
        and sample.value == 1
        for sample in samples(port)
    )
