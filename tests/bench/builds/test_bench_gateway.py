"""What the gateway costs: the same builds straight to a builder and through the gateway, in turns.

    upload    a context of 800 MB (share of the direct speed)
    cached    twenty steps, all of them cached (added time)
    small     thirty small builds, three at once (builds a minute)
    burst     eight equal builds at once, two slots warm and eight allowed (in build lengths)
    affinity  builds of four projects at once over four builders: which find what they built before

The two ways lead to one pool with one builder, but for the last two. All runs on one machine:
clients, Envoy, router and builders share its processors.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import report
from cluster import Api, eventually
from e2e.clients import (
    BASE,
    Buildx,
    Client,
    base_context,
    cached_steps,
    client_of,
    context,
    run,
)
from e2e.gateways import deploy, status
from e2e.pools import address_of, pods_of

ROUNDS = 5
CONTEXT = 800 << 20
"""Bytes."""
STEPS = 20
SMALL = 30
AT_ONCE = 8
PROJECTS = 4


def timed(work: Callable[[], object]) -> float:
    """How long it takes, in seconds."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def build(client: Client, folder: Path, *options: str) -> str:
    """A build that has to succeed; its progress."""
    done = run(*client.build_command(folder, *options), within=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def in_turns(direct: Callable[[], object], through: Callable[[], object]) -> dict[str, float]:
    """Medians of both ways, measured in turns, and their ratio."""
    times: dict[str, list[float]] = {"direct": [], "gateway": []}
    for number in range(ROUNDS):
        ways = [("direct", direct), ("gateway", through)]
        for name, work in ways if number % 2 else reversed(ways):
            times[name].append(timed(work))
    one, other = (statistics.median(times[name]) for name in ("direct", "gateway"))
    return {
        "direct s": one,
        "gateway s": other,
        "gateway / direct": other / one,
        "spread direct": max(times["direct"]) / min(times["direct"]),
        "spread gateway": max(times["gateway"]) / min(times["gateway"]),
    }


def repeated(client: Client, folder: Path, number: int) -> Callable[[], str]:
    """A project's build, each time the same; every other one's by buildx."""
    source = context(folder / "source", f"FROM {BASE}\nRUN echo {number}\n")
    if number % 2:
        buildx = Buildx(folder / "config")
        buildx("create", "--name", "remote", *client.node())
        return lambda: buildx(
            "build", "--builder=remote", "--progress=plain", *base_context(), str(source)
        )
    source_of = f"vcs:source=https://example.com/p/{number}"
    return lambda: build(client, source, "--opt", source_of)


def test_bench_the_same_builds_both_ways(api: Api, shared_namespace: str, tmp_path: Path) -> None:
    deploy(api, "both", shared_namespace, builders={"slots": 4})
    through = client_of(api, "both", shared_namespace, tmp_path)
    (pod,) = pods_of(api, "both", shared_namespace)
    direct = through.at(address_of(pod))

    large = context(tmp_path / "large", "FROM scratch\nCOPY big /big\n")
    (large / "big").write_bytes(b"")

    def upload(client: Client) -> None:
        # Other bytes each time: what is there already is not sent again.
        with (large / "big").open("wb") as file:
            file.write(str(time.monotonic_ns()).encode())
            file.truncate(CONTEXT)
        build(client, large)

    lines = "".join(f"RUN echo {number}\n" for number in range(STEPS))
    cached = context(tmp_path / "cached", f"FROM {BASE}\n{lines}")
    assert cached_steps(build(through, cached)) == 0
    assert cached_steps(build(through, cached)) == STEPS

    def small(client: Client) -> None:
        with ThreadPoolExecutor(3) as threads:
            jobs = [
                threads.submit(
                    build, client, context(tmp_path / f"small-{n}", f"FROM {BASE}\nRUN echo {n}\n")
                )
                for n in range(SMALL)
            ]
            for job in jobs:
                job.result()

    small(direct)
    report(
        "gateway",
        f"medians of {ROUNDS} rounds, in turns",
        {
            "upload of 800 MB": in_turns(lambda: upload(direct), lambda: upload(through)),
            "20 cached steps": in_turns(
                lambda: build(direct, cached), lambda: build(through, cached)
            ),
            "30 small builds": in_turns(lambda: small(direct), lambda: small(through)),
        },
    )


def test_bench_a_burst_of_equal_builds(api: Api, shared_namespace: str, tmp_path: Path) -> None:
    length = 20
    scaling = {"min": 2, "max": AT_ONCE, "targetUtilization": 100}
    deploy(api, "burst", shared_namespace, scaling=scaling)
    client = client_of(api, "burst", shared_namespace, tmp_path)

    def one(number: int) -> None:
        source = f"FROM {BASE}\nRUN echo {number}; sleep {length}\n"
        build(client, context(tmp_path / f"burst-{number}", source), "--no-cache")

    began = datetime.now(UTC)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        took = timed(lambda: list(threads.map(one, range(AT_ONCE))))
    pods = pods_of(api, "burst", shared_namespace)
    assert len(pods) == AT_ONCE
    start = max((became_ready(pod) - began).total_seconds() for pod in pods)
    report(
        "burst",
        f"{AT_ONCE} builds of {length} s, two slots warm",
        {
            "burst": {
                "seconds": took,
                "until the last builder was ready": start,
                "build lengths after that": (took - start) / length,
                "build lengths in all": took / length,
            }
        },
    )


def became_ready(pod: dict[str, Any]) -> datetime:
    """When a builder took builds, to the second below."""
    (moment,) = (
        c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "Ready"
    )
    return datetime.fromisoformat(moment)


def test_bench_builds_find_what_they_built_before(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    shares: dict[str, float] = {}
    # buildx names no source here, but its context.
    for name, affinity in (("with", ["Source", "Context"]), ("without", [])):
        scaling = {"min": PROJECTS, "max": PROJECTS}
        builders = {"slots": 2}
        deploy(
            api, name, shared_namespace, scaling=scaling, builders=builders,
            gateway={"affinity": affinity},
        )  # fmt: skip
        client = client_of(api, name, shared_namespace, tmp_path / name)
        builds = [repeated(client, tmp_path / name / f"{n}", n) for n in range(PROJECTS)]
        order = random.Random(1)
        hits = total = 0
        with ThreadPoolExecutor(PROJECTS) as threads:
            for number in range(10):
                order.shuffle(builds)
                found = [work.result() for work in [threads.submit(build) for build in builds]]
                if number:  # the first time nobody has it
                    total += len(found)
                    hits += sum(map(cached_steps, found))
        shares[f"{name} affinity"] = hits / total
        eventually(
            lambda name=name: status(api, name, shared_namespace)["waiting"] == 0,  # type: ignore[misc]
            within=10,
            what="nobody waits",
        )
    report("affinity", f"{PROJECTS} projects, {PROJECTS} builders", {"found": shares})
