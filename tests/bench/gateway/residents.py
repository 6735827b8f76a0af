"""How much memory processes have."""

from __future__ import annotations

from pathlib import Path


def resident_of(pid: int) -> float:
    """Memory that a process has, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
