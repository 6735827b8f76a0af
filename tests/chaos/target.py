"""What can be disrupted: the builders behind one Service, however they are run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from buildpool.core.api.builders import DEFAULT_IMAGES, Security
from chaos.node import Node
from chaos.patience import PatientApi
from chaos.records import Result
from chaos.schedule import Kind, Step
from cluster import eventually
from e2e.clients import Client, client_of
from e2e.pools import is_leaving

NAME: Final = "ci"
IMAGE: Final = DEFAULT_IMAGES[Security.ROOTLESS]
IMAGES: Final = (f"{IMAGE}-b", IMAGE)
"""Two names of one image: who goes by names has to take the other one for another image."""
OWN_SIZE: Final = 2
"""How many builders there are until somebody scales them."""
TAKING: Final = 30.0
"""Seconds within which all builders of a settled target have to take its client."""
Answer = tuple[Result, str]
"""What became of a disruption, and what it was done to or why not."""
Act = Callable[[Step], Answer]


class Target(Protocol):
    """Builders that a campaign disrupts."""

    @property
    def title(self) -> str:
        """For the report."""
        ...

    def deploy(self) -> None:
        """Brings the builders up, and waits until they serve."""
        ...

    def access(self, folder: Path) -> Client:
        """A client with the certificate that there is now."""
        ...

    def acts(self) -> Mapping[Kind, Act]:
        """What each kind of disruption is here; what is missing does not exist here."""
        ...

    def settle(self, within: float) -> None:
        """Waits until all is as it should be; an AssertionError if it is not within so long."""
        ...

    def must_take(self, client: Client) -> None:
        """All that serve take this client; an AssertionError that names those who do not."""
        ...


@dataclass
class Common:
    """What a pool and a plain Deployment have in common: a Service, pods, a client's Secret."""

    api: PatientApi
    node: Node
    namespace: str
    turns: Counter[Kind] = field(default_factory=Counter, init=False)
    """How often something has been changed: each time to something else."""

    def access(self, folder: Path) -> Client:
        """A client with the certificate that is in its Secret now."""
        return client_of(self.api, NAME, self.namespace, folder)

    @property
    def selector(self) -> str:
        """Labels of the builders' pods."""
        raise NotImplementedError

    def turn(self, step: Step) -> int:
        """Counts from 1 how often this has been done."""
        self.turns[step.kind] += 1
        return self.turns[step.kind]

    def next_image(self, step: Step) -> str:
        """The name of the image that is not in use."""
        return IMAGES[(self.turn(step) - 1) % len(IMAGES)]

    def next_config(self, step: Step) -> str:
        """Another ``buildkitd.toml`` that makes no difference to these builds."""
        return f"[dns]\noptions = ['attempts:{2 + self.turn(step) % 4}']\n"

    def pods(self) -> list[str]:
        """The builders' pods that are not on their way out."""
        found = self.api.list("pods", self.namespace, self.selector)
        return sorted(pod["metadata"]["name"] for pod in found if not is_leaving(pod))

    def must_take(self, client: Client) -> None:
        """All builders that the Service leads to take this client."""

        def takes_it(address: str) -> bool:
            return client.at(f"tcp://{address}:1234").can_connect()

        eventually(
            lambda: (found := self.endpoints()) and all(map(takes_it, found)),
            within=TAKING,
            what="the Service leads to builders, and each of them takes the present client",
            every=1,
        )

    def endpoints(self) -> list[str]:
        """The addresses that the Service leads to."""
        of_service = f"kubernetes.io/service-name={NAME}"
        return [
            address
            for found in self.api.list("endpointslices", self.namespace, of_service)
            for endpoint in found.get("endpoints") or []
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]

    def kill_api(self, _: Step) -> Answer:
        """Kills the API server, which is started again."""
        self.node.kill_component("kube-apiserver")
        return Result.DONE, ""

    def evict(self, step: Step) -> Answer:
        """Asks for the eviction of a pod, as a node that is drained does."""

        def ask(pod: str) -> tuple[int, str]:
            metadata = {"name": pod, "namespace": self.namespace}
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
            done = self.api.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
            return done.returncode, done.stderr

        return self._to_a_pod(step, ask)

    def delete(self, step: Step) -> Answer:
        """Deletes a pod."""

        def ask(pod: str) -> tuple[int, str]:
            done = self.api.kubectl("delete", "pod", pod, "-n", self.namespace, "--wait=false")
            return done.returncode, done.stderr

        return self._to_a_pod(step, ask)

    def scale(self, kind: str, replicas: int) -> Answer:
        """Sets the number of builders, as an autoscaler does."""
        self.api.must("scale", kind, NAME, "-n", self.namespace, f"--replicas={replicas}")
        return Result.DONE, f"to {replicas}"

    def _to_a_pod(self, step: Step, ask: Callable[[str], tuple[int, str]]) -> Answer:
        """Does it to the drawn pod; to another one if that has gone in between."""
        error = "there is no pod"
        for _ in range(3):
            pods = self.pods()
            if not pods:
                break
            pod = pods[step.among(len(pods))]
            code, error = ask(pod)
            if code == 0:
                return Result.DONE, pod
            if "TooManyRequests" in error:
                return Result.PROTECTED, pod
        return Result.FAILED, error.strip()
