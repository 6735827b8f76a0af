"""Pools as tests need them: applied, Ready, with the pods that serve."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cluster import OPERATOR_NAMESPACE, Api, a_pool, eventually
from e2e.clients import is_open

DONE = ("Settled", "Draining")
KINDS: Final = (
    "bkp,deployments,replicasets,pods,services,endpointslices,configmaps,secrets,pvc,"
    "networkpolicies,poddisruptionbudgets"
)
"""All that a pool consists of, and what follows from that."""


def deploy(api: Api, name: str, namespace: str, **spec: Any) -> None:
    """Applies a pool and waits until all its builders take builds."""
    api.apply(a_pool(name, namespace, **spec))
    settle(api, name, namespace)


def settle(api: Api, name: str, namespace: str, *, within: float = 120) -> None:
    """Waits until a pool is what its present spec says; what was before may still drain."""

    seen: list[str] = []

    def is_settled() -> bool:
        pool = api.get("bkp", name, namespace) or {}
        conditions = pool.get("status", {}).get("conditions", [])
        seen[:] = [f"{each['type']} {each['reason']}: {each['message']}" for each in conditions]
        reasons = {
            condition["type"]: condition["reason"]
            for condition in conditions
            if condition["observedGeneration"] == pool["metadata"]["generation"]
        }
        return reasons.get("Ready") == "Ready" and reasons.get("Progressing") in DONE

    try:
        eventually(is_settled, within=within, what=f"{namespace}/{name} is settled", every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}; {'; '.join(seen)}") from None
    # A builder is Ready up to a second or two before every kube-proxy knows of it.
    service = f"{name}.{namespace}.svc"
    eventually(lambda: is_open(service, 1234), within=60, what=f"{service} is open")


def settle_cache(api: Api, name: str, namespace: str, *, within: float = 60) -> None:
    """Waits until a pool's shared cache can be used."""
    eventually(
        lambda: api.condition(name, namespace, "CacheReady").get("status") == "True",
        within=within,
        what=f"the cache of {namespace}/{name} is ready",
        every=0.5,
    )


def cache_flags(api: Api, name: str, namespace: str, tool: str, **variables: str) -> list[str]:
    """A pool's cache recipe for ``buildctl`` or ``buildx``, as a shell with variables reads it."""
    recipes = api.get("configmap", f"{name}-cache-recipes", namespace)
    assert recipes is not None, f"{namespace}/{name} hands out no recipes"
    script = f"printf '%s\\n' {recipes['data'][tool]}"
    done = subprocess.run(
        ["sh", "-euc", script],
        env=variables,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def change(api: Api, name: str, namespace: str, **spec: Any) -> None:
    """Changes fields of a pool's spec."""
    patch = json.dumps({"spec": spec})
    api.must("patch", "bkp", name, "-n", namespace, "--type=merge", "-p", patch)


@contextmanager
def scaled(api: Api, pool: str, namespace: str, replicas: int) -> Iterator[None]:
    """A pool with more builders, for the length of a block."""
    scale = ("scale", "bkp", pool, "-n", namespace)
    api.must(*scale, f"--replicas={replicas}")
    settle(api, pool, namespace)
    assert len(pods_of(api, pool, namespace)) >= replicas
    yield
    api.must(*scale, "--replicas=1")
    settle(api, pool, namespace)


def pods_of(api: Api, pool: str, namespace: str) -> list[dict[str, Any]]:
    """The builder pods of a pool, leaving ones included."""
    return api.list("pods", namespace, f"buildpool.dev/pool={pool}")


def serving(api: Api, builder: str, namespace: str) -> dict[str, Any] | None:
    """The pod of a builder that is Ready and stays."""
    pods = api.list("pods", namespace, f"buildpool.dev/builder={builder}")
    return next((pod for pod in pods if _is_ready(pod) and not is_leaving(pod)), None)


def is_leaving(pod: dict[str, Any]) -> bool:
    """Whether a pod has been told to go."""
    return "deletionTimestamp" in pod["metadata"]


def is_retired(pod: dict[str, Any]) -> bool:
    """Whether a pod takes no new builds."""
    return pod["metadata"]["labels"].get("buildpool.dev/serving") == "false"


def newcomer(
    api: Api, pool: str, namespace: str, before: Sequence[dict[str, Any]], *, within: float = 150
) -> dict[str, Any]:
    """A pod that takes builds and is none of these."""
    known = {pod["metadata"]["uid"] for pod in before}

    def found() -> dict[str, Any] | None:
        others = (p for p in pods_of(api, pool, namespace) if p["metadata"]["uid"] not in known)
        return next((p for p in others if _is_ready(p) and not is_leaving(p)), None)

    pod: dict[str, Any] = eventually(
        found, within=within, what=f"{namespace}/{pool} has a new builder", every=0.5
    )
    return pod


def address_of(pod: dict[str, Any]) -> str:
    """The address of one builder, past the Service."""
    return f"tcp://{pod['status']['podIP']}:1234"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def left_of(api: Api, pool: str, namespace: str) -> list[str]:
    """What there is of a pool, its authority included: it and whatever is named or labelled so."""
    left = [
        f"{obj['kind']}/{obj['metadata']['name']}"
        for obj in api.list(KINDS, namespace)
        if f"{obj['metadata']['name']}-".startswith(f"{pool}-")
        or obj["metadata"].get("labels", {}).get("buildpool.dev/pool") == pool
    ]
    authority = f"authority.{namespace}.{pool}"
    return left + [authority] * bool(api.get("secret", authority, OPERATOR_NAMESPACE))


def leaves_nothing(api: Api, pool: str, namespace: str, *, within: float = 150) -> None:
    """Waits until nothing is left of a pool that was deleted."""
    left: list[str] = []

    def is_gone() -> bool:
        left[:] = left_of(api, pool, namespace)
        return not left

    try:
        eventually(is_gone, within=within, what=f"nothing is left of {namespace}/{pool}", every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}; there is {', '.join(left)}") from None


@contextmanager
def port_forward(target: str, namespace: str) -> Iterator[str]:
    """``kubectl port-forward`` to a Service for the length of a block; the address out here."""
    command = ["kubectl", "port-forward", "-n", namespace, target, ":1234"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"kubectl port-forward did not start: {line}"
            yield f"tcp://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
