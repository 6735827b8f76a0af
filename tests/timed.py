"""Runs make targets to the first that fails, and says how long each took.

    python -m tests.timed check integration+unit,failures e2e

A plus joins lanes that run side by side, each of them its targets one after the other. The first
lane is shown as it runs, and the others when they have ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Run:
    """How a target ended."""

    target: str
    seconds: float
    code: int

    def __str__(self) -> str:
        return f"{self.target:<14} {self.seconds:7.1f}  {'failed' if self.code else 'passed'}"


def run_lane(targets: list[str], output: IO[bytes]) -> list[Run]:
    """Runs targets one after the other, to the first that fails."""
    runs: list[Run] = []
    for target in targets:
        output.write(f"\n=== {target}\n".encode())
        output.flush()
        started = time.monotonic()
        done = subprocess.run(
            ["make", "--no-print-directory", target], check=False, stdout=output, stderr=output
        )
        runs.append(Run(target, time.monotonic() - started, done.returncode))
        if done.returncode:
            break
    return runs


def run_side_by_side(first: str, *others: str) -> list[Run]:
    """Runs lanes at the same time."""
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        threads = stack.enter_context(ThreadPoolExecutor())
        beside = [
            threads.submit(run_lane, lane.split(","), output)
            for lane, output in zip(others, outputs, strict=True)
        ]
        if others:
            print(f"\nbeside it, shown later: {', '.join(others)}", flush=True)
        runs = run_lane(first.split(","), sys.stdout.buffer)
        for output, lane in zip(outputs, beside, strict=True):
            runs += lane.result()
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return runs


def main(steps: list[str]) -> int:
    """The exit code of the first target that failed, or 0."""
    runs: list[Run] = []
    started = time.monotonic()
    for step in steps:
        runs += run_side_by_side(*step.split("+"))
        if any(each.code for each in runs):
            break
    print("\ntier           seconds")
    print("\n".join(map(str, runs)))
    print(f"{'all':<14} {time.monotonic() - started:7.1f}")
    return next((each.code for each in runs if each.code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
