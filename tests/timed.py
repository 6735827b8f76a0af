"""Runs make targets one after the other, to the first that fails, and says how long each took."""

from __future__ import annotations

import subprocess
import sys
import time


def main(targets: list[str]) -> int:
    """The exit code of the first target that failed, or 0."""
    took: list[tuple[str, float, str]] = []
    code = 0
    for target in targets:
        print(f"\n=== {target}", flush=True)
        started = time.monotonic()
        code = subprocess.run(["make", "--no-print-directory", target], check=False).returncode
        took.append((target, time.monotonic() - started, "failed" if code else "passed"))
        if code:
            break
    print("\ntier           seconds")
    for target, seconds, result in took:
        print(f"{target:<14} {seconds:7.1f}  {result}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
