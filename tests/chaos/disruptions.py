"""What each kind of disruption is to a pool and its operator."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from chaos.operators import kill_operator
from chaos.records import Result
from chaos.schedule import Kind, Step
from chaos.target import NAME, OWN_SIZE, TAKING, Act, Answer, Common
from cluster import OPERATOR_NAMESPACE, a_pool, eventually
from e2e.clients import Client
from e2e.pools import settle

SPEC: Final[Mapping[str, Any]] = {
    # With its own size in force, the load of the campaign wants three of them, sometimes two.
    "scaling": {"min": OWN_SIZE, "max": OWN_SIZE + 2, "idleAfter": "5s"},
    "builders": {"slots": 3, "maxBuildDuration": "5m"},
    # Clients read their Secret before each build; a change of authority shall get to its end.
    "access": {"authorityOverlap": "5s"},
}
"""The pool that is disrupted."""
ROTATE: Final = "buildpool.dev/rotate"
"""The annotation by which a user asks for new certificates."""
GATEWAYS: Final = "app.kubernetes.io/name=buildpool,app.kubernetes.io/component=gateway"


class Pool(Common):
    """A BuildKitPool."""

    @property
    def title(self) -> str:
        """For the report."""
        return "pool"

    @property
    def selector(self) -> str:
        """Labels of the builders' pods."""
        return f"buildpool.dev/pool={NAME},app.kubernetes.io/component=builder"

    spec: ClassVar[Mapping[str, Any]] = SPEC

    def deploy(self) -> None:
        """Brings the builders up, and waits until they serve."""
        self.api.apply(a_pool(NAME, self.namespace, **self.spec))
        self.settle(120)

    def settle(self, within: float) -> None:
        """Waits until the pool is what its spec says."""
        settle(self.api, NAME, self.namespace, within=within)

    def acts(self) -> Mapping[Kind, Act]:
        """What each kind of disruption is to a pool."""
        return {
            Kind.SCALE_UP: lambda step: self.scale("bkp", OWN_SIZE + 1 + step.among(2)),
            Kind.SCALE_DOWN: lambda step: self.scale("bkp", 1 + step.among(OWN_SIZE)),
            Kind.SCALE_BACK: lambda _: self._change(replicas=None),
            Kind.IMAGE: lambda step: self._change(builders={"image": self.next_image(step)}),
            Kind.ENV: self._change_env,
            Kind.CONFIG: lambda step: self._change(builders={"config": self.next_config(step)}),
            Kind.CERTIFICATES: lambda _: self._rotate("certificates"),
            Kind.AUTHORITY: lambda _: self._rotate("authority"),
            Kind.KILL_OPERATOR: self._kill_operator,
            Kind.KILL_API: self.kill_api,
            Kind.EVICT: self.evict,
            Kind.DELETE: self.delete,
        }

    def _change(self, **spec: Any) -> Answer:
        patch = json.dumps({"spec": spec})
        self.api.must("patch", "bkp", NAME, "-n", self.namespace, "--type=merge", "-p", patch)
        return Result.DONE, ""

    def _change_env(self, step: Step) -> Answer:
        return self._change(builders={"env": [{"name": "TURN", "value": f"{self.turn(step)}"}]})

    def _rotate(self, what: str) -> Answer:
        annotation = f"{ROTATE}={what}"
        self.api.must("annotate", "bkp", NAME, "-n", self.namespace, annotation, "--overwrite")
        return Result.DONE, ""

    def _kill_operator(self, step: Step) -> Answer:
        """Every other time its pod goes, too."""
        with_its_pod = self.turn(step) % 2 == 0
        return Result.DONE, kill_operator(self.api, self.node, with_its_pod=with_its_pod)


class PoolBehindTheGateway(Pool):
    """The same, behind the gateway, which is disrupted, too."""

    spec: ClassVar[Mapping[str, Any]] = {**SPEC, "routing": "Gateway"}

    @property
    def title(self) -> str:
        """For the report."""
        return "pool behind the gateway"

    def acts(self) -> Mapping[Kind, Act]:
        """What each kind of disruption is to it."""
        return {
            **super().acts(),
            Kind.KILL_ROUTER: self._kill_router,
            Kind.ROLL_GATEWAY: self._roll_gateway,
        }

    def must_take(self, client: Client) -> None:
        """The gateway takes this client, on to any builder."""
        eventually(client.can_connect, within=TAKING, what="the gateway takes the client", every=1)

    def _kill_router(self, step: Step) -> Answer:
        """One that has been killed is started again within its container."""
        pods = [
            pod["metadata"]["name"]
            for pod in self.api.list("pods", OPERATOR_NAMESPACE, GATEWAYS)
            for status in pod["status"].get("containerStatuses", [])
            if status["name"] == "router" and "running" in status["state"]
        ]
        first = step.among(len(pods))
        for name in pods[first:] + pods[:first]:
            inside = ("exec", name, "-n", OPERATOR_NAMESPACE, "-c", "router", "--")
            try:
                self.api.must(*inside, "sh", "-c", "kill -9 $(cat /tmp/router.pid)")
            except AssertionError as error:
                if not re.search(r"not found|No such|can't open|not running", str(error)):
                    raise
                continue  # its pod or its router has ended since
            return Result.DONE, name
        return Result.NOT_HERE, ""

    def _roll_gateway(self, _: Step) -> Answer:
        deployment = ("deployment/buildpool-gateway", "-n", OPERATOR_NAMESPACE)
        self.api.must("rollout", "restart", *deployment)
        return Result.DONE, ""
