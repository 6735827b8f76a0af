"""What a refusal holds up: what needs the refused object, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from buildpool.controller.act import act
from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.errors import RefusedError, UnavailableError
from buildpool.core.objects.refs import JSON, Object, Ref, ref_of
from buildpool.core.planning.marks import Mark
from buildpool.core.planning.plan import Apply, Delete, Plan
from buildpool.core.reporting.outcome import Outcome


class Refusing:
    """A cluster that refuses some objects, and writes down what it was asked for."""

    def __init__(self, *refused: str, error: Exception | None = None, slow: str = "") -> None:
        self.refused = refused
        self.error = error or RefusedError("forbidden: so says a policy")
        self.slow = slow
        self.done: list[str] = []

    async def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Takes an object, or refuses it."""
        name = obj["metadata"]["name"]
        if dry_run:
            return obj
        if name in self.refused:
            raise self.error
        if name == self.slow:
            await asyncio.sleep(0.01)
        self.done.append(name)
        return obj

    async def delete(self, ref: Ref, **_: Any) -> None:
        """Takes a removal, or refuses it."""
        if ref.name in self.refused:
            raise self.error
        self.done.append(f"no {ref.name}")

    async def patch(self, ref: Ref, _: JSON) -> None:
        """Takes a mark, or refuses it."""
        if ref.name in self.refused:
            raise self.error
        self.done.append(f"marked {ref.name}")


def written(kind: str, name: str, component: str) -> Apply:
    """An object of a pool that is to be written."""
    labels = {"app.kubernetes.io/component": component}
    metadata = {"name": name, "namespace": "builds", "labels": labels}
    spec = {"template": {"spec": {}}}
    return Apply({"kind": kind, "metadata": metadata, "spec": spec}, None, f"created {name}")


AUTHORITY = written("Secret", "authority", naming.COMPONENT_AUTHORITY)
CLIENT = written("Secret", "client", naming.COMPONENT_CLIENT)
POLICY = written("NetworkPolicy", "policy", naming.COMPONENT_BUILDER)
CACHE = written("PersistentVolumeClaim", "cache", naming.COMPONENT_CACHE)
NEW = written("Deployment", "new", naming.COMPONENT_BUILDER)
OTHER = written("Deployment", "other", naming.COMPONENT_BUILDER)
OLD = Delete(Ref("Deployment", "builds", "old"), "uid", None, "removed old")


async def carried_out(*applied: Apply, refused: str) -> tuple[list[str], Outcome]:
    """What was done of a plan that removes an old builder, too, and its outcome."""
    cluster: Any = Refusing(refused)
    outcome = await act(cluster, Plan(apply=applied, delete=(OLD,)))
    assert [failure.ref.name for failure in outcome.failures] == [refused]
    return cluster.done, outcome


async def test_what_fails_of_one_object_is_told_and_holds_up_no_other() -> None:
    for error in (RefusedError("no"), UnavailableError("failed calling webhook")):
        cluster: Any = Refusing("new", error=error)
        outcome = await act(cluster, Plan(apply=(NEW, OTHER), delete=(OLD,)))
        assert cluster.done == ["other", "no old"]
        (failure,) = outcome.failures
        assert str(error) in str(failure)
        assert (failure.reason is Reason.OBJECT_FAILED) == isinstance(error, UnavailableError)


async def test_a_removal_that_is_refused_is_told_and_holds_up_no_other() -> None:
    other = Delete(Ref("Deployment", "builds", "older"), "uid", None, "removed older")
    for error in (RefusedError("no"), UnavailableError("failed calling webhook")):
        cluster: Any = Refusing("old", error=error)
        outcome = await act(cluster, Plan(delete=(OLD, other)))
        assert cluster.done == ["no older"]
        (failure,) = outcome.failures
        assert failure.ref == OLD.ref
        assert str(error) in str(failure)


async def test_a_mark_that_is_refused_is_told_and_holds_up_nothing() -> None:
    marks = tuple(
        Mark(Ref("Pod", "builds", name), "uid", {"labels": {}}, None, "") for name in ("a", "b")
    )
    for error in (RefusedError("no"), UnavailableError("failed calling webhook")):
        cluster: Any = Refusing("a", error=error)
        outcome = await act(cluster, Plan(mark=marks, apply=(NEW,), delete=(OLD,)))
        assert cluster.done == ["marked b", "new", "no old"]
        (failure,) = outcome.failures
        assert failure.ref.name == "a"
        assert str(error) in str(failure)


async def test_nothing_of_a_pass_goes_on_after_it() -> None:
    cluster: Any = Refusing("first", error=ZeroDivisionError(), slow="second")
    first = written("ConfigMap", "first", naming.COMPONENT_BUILDER)
    second = written("Service", "second", naming.COMPONENT_ENDPOINT)
    with pytest.raises(ZeroDivisionError):
        await act(cluster, Plan(apply=(first, second)))
    assert cluster.done == ["second"]


async def test_clients_keep_the_way_they_have_where_another_is_refused() -> None:
    service = written("Service", "service", naming.COMPONENT_ENDPOINT)
    done, _ = await carried_out(POLICY, service, NEW, refused="service")
    assert done == []


async def test_a_cache_that_is_refused_holds_up_no_builder() -> None:
    done, _ = await carried_out(CACHE, NEW, refused="cache")
    assert done == ["new", "no old"]


async def test_a_builder_that_is_refused_holds_up_no_other() -> None:
    done, _ = await carried_out(NEW, OTHER, refused="new")
    assert done == ["other", "no old"]


async def test_what_needs_a_refused_secret_waits_for_it() -> None:
    done, _ = await carried_out(AUTHORITY, CLIENT, NEW, CACHE, refused="client")
    assert done == ["authority"]


async def test_no_builder_comes_while_clients_could_go_past_the_gateway() -> None:
    done, _ = await carried_out(POLICY, NEW, refused="policy")
    assert done == []


async def test_without_its_authority_nothing_is_written() -> None:
    done, outcome = await carried_out(AUTHORITY, CLIENT, NEW, CACHE, refused="authority")
    assert done == []
    assert [failure.ref for failure in outcome.failures] == [ref_of(AUTHORITY.object)]
