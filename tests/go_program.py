"""The Go program with which tests build as programs do that use BuildKit's own library.

It is compiled out here, where modules are found: ``tests.in_cluster`` runs this, and what runs in
the cluster finds it compiled.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from devcluster.golang import STATIC, GoModule, compile_module, find_go
from devcluster.layout import layout

# With the flags and the versions of the devcluster's tools: most of it is compiled already.
PROGRAM = GoModule("goclient", tags=STATIC, root=Path(__file__).parent)


def program() -> Path:
    """The program, compiled now if need be."""
    cache = layout("dev", os.environ, Path.home()).cache
    return compile_module(PROGRAM, cache, lambda _: None) / PROGRAM.name


def buildkit() -> Path:
    """The source of BuildKit's library that the program is made of, fetched now if need be."""
    command = [find_go(), "mod", "download", "-json", "github.com/moby/buildkit"]
    done = subprocess.run(
        command, cwd=PROGRAM.folder, capture_output=True, text=True, timeout=300, check=True
    )
    return Path(json.loads(done.stdout)["Dir"])


if __name__ == "__main__":
    print(program(), buildkit())
