"""What the commands cost that set a client up or look around, on a pool in three states.

None of them builds. Each is run by itself; its exit code and time are printed as a table.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

from cluster import Api, eventually
from e2e.clients import Client, client_of
from e2e.gateways import a_build, deploy, ends_well, know_builder, status

ASLEEP = (
    "buildx create",
    "buildx ls",
    "buildx inspect",
    "buildx du",
    "buildctl du",
    "buildctl debug histories",
)
"""Commands for a pool that sleeps: none of them wakes it."""
LONGEST_SECONDS = 60
"""After which a command is ended; then it waits for as long as ``gateway.maxWait`` allows."""


def commands(client: Client, folder: Path) -> dict[str, list[str]]:
    """The command lines, by what people call them."""
    environment = ["env", f"BUILDX_CONFIG={folder / 'config'}", "buildx"]
    create = ["create", "--name", "another", *client.node()]
    return {
        "buildx create": [*environment, *create],
        "buildx rm": [*environment, "rm", "another"],
        "buildx ls": [*environment, "ls"],
        "buildx inspect": [*environment, "inspect", "remote"],
        "buildx inspect --bootstrap": [*environment, "inspect", "--bootstrap", "remote"],
        "buildx du": [*environment, "du", "--builder=remote"],
        "buildx history ls": [*environment, "history", "ls", "--builder=remote"],
        "buildctl debug workers": client.buildctl("debug", "workers"),
        "buildctl debug info": client.buildctl("debug", "info"),
        "buildctl du": client.buildctl("du"),
        "buildctl debug histories": client.buildctl("debug", "histories"),
    }


def measured(command: list[str]) -> tuple[str, float]:
    """The exit code of a command, and its seconds."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "waits", time.monotonic() - began
    return str(done.returncode), time.monotonic() - began


def test_what_set_up_commands_cost(api: Api, shared_namespace: str, tmp_path: Path) -> None:
    namespace = shared_namespace
    pools = {"free": {"min": 1, "max": 1}, "full": {"min": 1, "max": 1}, "asleep": {"min": 0}}
    print(f"\n{os.cpu_count()} CPUs; exit code and seconds\n\n| command | pool | exit | seconds |")
    for state, scaling in pools.items():
        name = f"is-{state}"
        deploy(api, name, namespace, scaling={"max": 1, "idleAfter": "1h"} | scaling)
        client, folder = client_of(api, name, namespace, tmp_path), tmp_path / name
        folder.mkdir()
        know_builder(client, folder)
        full = a_build(client, folder / "holds", seconds=1800) if state == "full" else None
        with full or nullcontext() as holder:
            if holder is not None:
                eventually(
                    lambda name=name: status(api, name, namespace)["scaling"]["message"].startswith(  # type: ignore[misc]
                        "1 build runs"
                    ),
                    within=60,
                    what="the slot is taken",
                )
            lines = commands(client, folder)
            for command in ASLEEP if state == "asleep" else lines:
                code, seconds = measured(lines[command])
                print(f"| `{command}` | {state} | {code} | {seconds:.1f} |", flush=True)
            if holder is not None:
                # Nobody of them stands in the queue any more: the next build has the next slot.
                with a_build(client, folder / "next") as following:
                    holder.process.kill()
                    ends_well(following)
