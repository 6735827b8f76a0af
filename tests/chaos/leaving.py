"""A pool that is deleted while a build on it imports lazily from its managed cache."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from chaos.builds import since
from chaos.node import Node
from chaos.operators import kill_operator
from chaos.removals import Act, Moment, Turn
from cluster import Api, a_pool, eventually
from e2e.caches import ManagedCache, Noise, build_of, managed
from e2e.clients import RunningBuild, context, is_open
from e2e.operators import has_led, lease, must_lead, take_lease
from e2e.pools import is_leaving, leaves_nothing, pods_of, settle

NOISE: Final = Noise(2, 8)
FOREGROUND: Final = ("--cascade=foreground", "--wait=false")
NEEDED: Final = "deployments,services,pvc,secrets,configmaps"
"""Kinds of what a build may need."""
STARTING: Final = 300.0
"""Seconds a pool may take until it serves, beside others that start, after an operator has died."""
SEEN: Final = 120.0
"""Seconds within which what a turn waits for has to be seen."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went."""

    acted: timedelta
    """How long the turns took, until an operator tended the deleted pool again."""
    built: timedelta
    """How long the build then took to its end."""
    gone: timedelta
    """How long it took from there until nothing was left."""

    def __str__(self) -> str:
        """For the report."""
        times = (self.acted, self.built, self.gone)
        acted, built, gone = (f"{each.total_seconds():.0f} s" for each in times)
        return f"acts {acted}, then the build's end {built}, then nothing left {gone}"


@dataclass
class LeavingPool:
    """One pool, with a cache that was exported to, and a builder that has nothing of its own."""

    api: Api
    node: Node
    namespace: str
    name: str
    folder: Path
    cache: ManagedCache = field(init=False)
    step: int = field(default=0, init=False)
    """The step that the build is in, counted from 1."""
    before: dict[str, Any] = field(default_factory=dict, init=False)
    """The Lease after the last act that an operator has to recover from."""

    def __post_init__(self) -> None:
        """Names its cache."""
        self.cache = ManagedCache(self.api, self.name, self.namespace)

    def prepare(self) -> LeavingPool:
        """Deploys it, has a build export to its cache, and empties the builder."""
        self.api.apply(a_pool(self.name, self.namespace, cache=managed("1Gi")))
        settle(self.api, self.name, self.namespace, within=STARTING)
        builder = self.cache.builder(0, self.folder)
        exported = context(self.folder / "exported", NOISE.dockerfile)
        builder.build(exported, *self.cache.exports("noise"))
        builder.ask("prune", "--all")
        return self

    def go(self, turns: tuple[Turn, ...], steps: int) -> Outcome:
        """Carries the turns out around a build of so many steps, and waits until nothing is left.

        An AssertionError if the build does not end well, if anything that it may need is gone
        before, or if anything is left.
        """
        builder = self.cache.builder(0, self.folder)
        source = context(self.folder / "imports", NOISE.stepping(steps))
        command = builder.build_command(source, *self.cache.imports("noise"))
        host = builder.address.removeprefix("tcp://").partition(":")[0]
        self.before = lease(self.api)
        needed = self._needed()
        assert {f"Deployment/{self.name}-cache", f"Secret/{self.name}-builder"} <= needed.keys()
        with build_of(command, self.folder) as build:
            self._reach(build, 1)
            started = time.monotonic()
            for turn in turns:
                self._await(turn.after, build, host)
                self._act(turn)
            must_lead(self.api, since=self.before)
            self._await(Moment.TOLD, build, host)
            assert self._needed() == needed
            acted, started = since(started), time.monotonic()
            for number in range(self.step, steps + 1):
                self._reach(build, number)
                self._let_through(build, host, number)
            code = build.process.wait(timeout=120)
            assert code == 0, f"the build ended with {code}: {build.progress[-2000:]}"
            built, started = since(started), time.monotonic()
        assert NOISE.is_spared_by(build.progress), build.progress
        leaves_nothing(self.api, self.name, self.namespace)
        return Outcome(acted, built, since(started))

    def _act(self, turn: Turn) -> None:
        match turn.act:
            case Act.DELETE:
                self.api.must("delete", "bkp", self.name, "-n", self.namespace, *FOREGROUND)
                return
            case Act.KILL:
                kill_operator(self.api, self.node, with_its_pod=turn.takes_the_pod)
            case Act.TAKE:
                take_lease(self.api, seconds=turn.seconds)
        self.before = lease(self.api)

    def _await(self, moment: Moment, build: RunningBuild, host: str) -> None:
        """Waits for what has to be seen; the build has to go on meanwhile."""
        if moment is Moment.STEP:
            self._let_through(build, host, self.step)
            self._reach(build, self.step + 1)
            return
        is_seen: dict[Moment, Callable[[], object]] = {
            Moment.AT_ONCE: lambda: True,
            Moment.LED: lambda: has_led(self.api, self.before),
            Moment.MARKED: lambda: "deletionTimestamp" in self._pool().get("metadata", {}),
            Moment.LEAVES: lambda: any(map(is_leaving, self._builders())),
            Moment.TOLD: lambda: f"{self.name}-builder-0" in self._ready_message(),
        }
        eventually(is_seen[moment], within=SEEN, what=moment, every=0.1)
        assert build.is_running, build.progress

    def _reach(self, build: RunningBuild, number: int) -> None:
        """Waits until the builder executes a step of the build."""

        def runs() -> bool:
            assert build.is_running, build.progress
            return bool(re.search(rf"^#\d+ [\d.]+ step {number}$", build.progress, re.MULTILINE))

        eventually(runs, within=SEEN, what=f"the build is in step {number}")
        self.step = number

    def _let_through(self, build: RunningBuild, host: str, number: int) -> None:
        """Lets the build go on from a step."""
        port = NOISE.gate(number)
        eventually(lambda: is_open(host, port), within=60, what=f"step {number} ends", every=0.5)
        assert build.is_running or build.process.returncode == 0, build.progress

    def _pool(self) -> dict[str, Any]:
        return self.api.get("bkp", self.name, self.namespace) or {}

    def _builders(self) -> list[dict[str, Any]]:
        component = "app.kubernetes.io/component"
        pods = pods_of(self.api, self.name, self.namespace)
        return [pod for pod in pods if pod["metadata"]["labels"][component] == "builder"]

    def _ready_message(self) -> str:
        return str(self.api.condition(self.name, self.namespace, "Ready").get("message", ""))

    def _needed(self) -> dict[str, str]:
        """What stays until the build is over, with the identity that it has."""
        found = {
            f"{obj['kind']}/{obj['metadata']['name']}": obj["metadata"]["uid"]
            for obj in self.api.list(NEEDED, self.namespace, f"buildpool.dev/pool={self.name}")
            if not is_leaving(obj)
        }
        goes_first = (f"Service/{self.name}", f"Deployment/{self.name}-builder-0")
        return {name: uid for name, uid in found.items() if name not in goes_first}
