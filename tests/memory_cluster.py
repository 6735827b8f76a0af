"""A cluster in memory: what an API server and its controllers make of a pool's plans. No I/O.

The controller itself reads and writes it, through ``memory_api``. Time goes on by five seconds in
each pass, and a pool's status is kept from one pass to the next. How objects are stored is
``memory_storage``'s.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import cast

from buildpool.controller.act import act
from buildpool.controller.observe import observe
from buildpool.core.api import Pool, PoolStatus
from buildpool.core.naming import Installation
from buildpool.core.objects.pods import has_daemon, name_of_builder
from buildpool.core.objects.refs import Object, Ref, component_of, is_terminating, ref_of
from buildpool.core.observed.load import Load
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.plan import Plan, planned
from buildpool.core.planning.removal import Removal
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.reporting.report import report_pass
from buildpool.core.resources import has_guard
from buildpool.core.resources.common import fingerprint
from buildpool.kube.cluster import Cluster
from memory_api import MemoryApi, run
from memory_storage import stored
from samples import INSTALLATION, NOW, a_load, a_pod, a_situation

PASS = timedelta(seconds=5)
"""How much later the next pass is."""
DELETED = "2026-01-01T12:00:00Z"


@dataclass
class MemoryCluster:
    """Objects and pods by name."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    bad_images: set[str] = field(default_factory=set)
    """Builders with one of these never become ready."""
    full: set[str] = field(default_factory=set)
    """Builders for whose pod there is no node."""
    now: datetime = NOW
    version: int = 1
    status: PoolStatus | None = None
    """The pool's, as the last pass left it."""
    builds: dict[str, int] = field(default_factory=dict)
    """How many builds run, by builder; none where it is not named."""
    served: dict[str, int] = field(default_factory=dict)
    """How many builds were started, by builder."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes that a pod takes, by builder; as far as anybody measures."""
    admit: Callable[[Object], None] = lambda _: None
    """What the cluster itself changes of each object as it is stored."""
    silent: set[str] = field(default_factory=set)
    """Builders whose daemons do not answer."""
    installation: Installation = INSTALLATION
    """The operator; another image of it is another version."""
    may_roll: bool = True
    """Whether builders may be replaced where that is the operator's doing."""

    def __getitem__(self, name: str) -> Object:
        """An object by ``Kind/name``, to be looked at or edited by a test."""
        kind, _, wanted = name.partition("/")
        return next(o for ref, o in self.objects.items() if (ref.kind, ref.name) == (kind, wanted))

    def names(self, kind: str) -> list[str]:
        """The names of all objects of a kind."""
        return sorted(ref.name for ref in self.objects if ref.kind == kind)

    @property
    def api(self) -> Cluster:
        """How the controller reads and writes it."""
        return cast("Cluster", MemoryApi(self))

    def observe(self, pool: Pool) -> Observation:
        """What a pass sees: what the controller reads, and what the daemons and the metrics say."""
        seen = run(observe(self.api, pool, self.installation))
        return replace(
            seen,
            loads=self._loads(seen.pods),
            memory={
                pod["metadata"]["name"]: self.memory[name]
                for pod in seen.pods
                if (name := name_of_builder(pod)) in self.memory
            },
        )

    def _loads(self, pods: tuple[Object, ...]) -> dict[str, Load]:
        """What daemons say that run and answer."""
        return {
            pod["metadata"]["uid"]: a_load(
                self.builds.get(name, 0), as_of=self.now, served=self.served.get(name, 0)
            )
            for pod in pods
            if (name := name_of_builder(pod)) not in self.silent and has_daemon(pod)
        }

    def known(self, pool: Pool) -> Pool:
        """The pool with the status that the last pass left."""
        return pool if self.status is None else replace(pool, status=self.status)

    def plan(self, pool: Pool) -> Plan:
        """What is to be done now, certificates being issued."""
        return planned(self.situation(pool))[1]

    def situation(self, pool: Pool) -> Situation:
        """What a pass knows."""
        pool = self.known(pool)
        return a_situation(
            pool,
            self.observe(pool),
            now=self.now,
            installation=self.installation,
            may_roll=self.may_roll,
        )

    def act(self, todo: Plan | Removal) -> None:
        """Carries out a plan as the controller does."""
        plan = todo if isinstance(todo, Plan) else Plan(delete=todo.delete)
        run(act(self.api, plan))

    def store(self, desired: Object) -> Object:
        """What becomes of an object that is applied."""
        found = self.objects[ref_of(desired)] = self.tried(desired)
        return found

    def tried(self, desired: Object) -> Object:
        """What would become of an object if it were applied."""
        before, version = self.objects.get(ref_of(desired)), int(self.next_version())
        created = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        found = stored(copy.deepcopy(before), desired, version=version, created=created)
        self.admit(found)
        return found

    def remove(self, ref: Ref) -> None:
        """Removes an object; the pods of a Deployment are told to go."""
        for pod in self._pods_of(self.objects.pop(ref)):
            pod["metadata"]["deletionTimestamp"] = DELETED

    def collect(self, uid: str) -> None:
        """What the garbage collector does at once where their owner is deleted in the foreground.

        And when it is gone; whether they block its deletion is all one.
        """
        for ref, obj in list(self.objects.items()):
            if any(o["uid"] == uid for o in obj["metadata"].get("ownerReferences", ())):
                self.remove(ref)

    def next_version(self) -> str:
        """The version of what is written now."""
        self.version += 1
        return str(self.version)

    def drain(self) -> None:
        """Terminating pods go on which no build runs."""
        self.pods = {
            name: pod
            for name, pod in self.pods.items()
            if not is_terminating(pod) or self.builds.get(name_of_builder(pod))
        }

    def roll(self) -> None:
        """What the controllers and the kubelet do, until nothing moves."""
        for deployment in self.objects.values():
            if deployment["kind"] == "Deployment" and "spec" in deployment:  # or it is foreign
                self._roll(deployment)

    def step(self, pool: Pool) -> Plan:
        """One pass, and all that follows from it."""
        situation, todo = planned(self.situation(pool))
        self.act(todo)
        self.status = report_pass(situation, todo, Outcome()).status
        self.roll()
        self.drain()
        self.now += PASS
        return todo

    def settle(self, pool: Pool) -> list[Plan]:
        """Passes until there is nothing to do; the plans that had something to do."""
        plans: list[Plan] = []
        while not (todo := self.step(pool)).is_empty:
            plans.append(todo)
            assert len(plans) < 50, f"it never settles: {todo}"
        return plans

    def _pods_of(self, obj: Object) -> list[Object]:
        if obj["kind"] != "Deployment":
            return []
        selected = obj["spec"]["selector"]["matchLabels"].items()
        pods = self.pods.values()
        return [pod for pod in pods if selected <= pod["metadata"]["labels"].items()]

    def _roll(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        name, image = deployment["metadata"]["name"], template["spec"]["containers"][0]["image"]
        suffix = fingerprint(template)[:10]
        serves = image not in self.bad_images and name not in self.full
        old = [
            pod for pod in self._pods_of(deployment) if not pod["metadata"]["name"].endswith(suffix)
        ]
        if deployment["spec"]["strategy"]["type"] == "Recreate" or serves:
            for pod in old:
                del self.pods[pod["metadata"]["name"]]
            old = []
        if not deployment["spec"]["replicas"]:
            deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"]}
            self.pods = {n: p for n, p in self.pods.items() if p not in self._pods_of(deployment)}
            return
        crash = ("CrashLoopBackOff", "back-off 10s restarting failed container=buildkitd")
        pod = a_pod(
            name,
            suffix=suffix,
            image=image,
            component=component_of(deployment),
            guarded=has_guard(template),
            waiting=None if serves or name in self.full else crash,
            unschedulable="0/3 nodes are available: 3 Insufficient cpu."
            if name in self.full
            else None,
        )
        pod["metadata"]["namespace"] = deployment["metadata"]["namespace"]
        pod["metadata"]["labels"] |= template["metadata"]["labels"]
        pod["metadata"]["annotations"] = dict(template["metadata"].get("annotations", {}))
        # What is marked stays so.
        self.pods.setdefault(pod["metadata"]["name"], pod)["status"] = pod["status"]
        serving = [
            p for p in old if any(c["status"] == "True" for c in p["status"]["conditions"][3:])
        ]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(old) + 1,
            "updatedReplicas": 1,
            "availableReplicas": len(serving) + serves,
        }


def settled(pool: Pool) -> MemoryCluster:
    """A cluster in which the pool is as its spec wants it."""
    cluster = MemoryCluster()
    cluster.settle(pool)
    return cluster
