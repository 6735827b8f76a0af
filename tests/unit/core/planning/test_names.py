"""Two pools that need one name: which can, and that the second one says so and harms nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import ConditionType, Pool, PoolStatus
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.planning.names import desired_refs
from buildpool.core.planning.removal import plan_removal
from memory_cluster import MemoryCluster
from samples import INSTALLATION, OTHER_UID, a_pool, clients

WORDS: Final = ("ci", "x", "client", "builder", "cache", "recipes", "busy", "0", "default")
names: Final = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("-".join)
pool_names: Final = names.filter(lambda name: not name[0].isdigit())


def whole(name: str, *people: str) -> Pool:
    """A pool with everything that a pool can consist of."""
    spec: dict[str, Any] = {"routing": "Gateway", "cache": {"registry": {"managed": {}}}}
    return a_pool(name=name, access=clients(*people), **spec)


def refs_of(pool: Pool) -> frozenset[Ref]:
    """All names that it may come to need."""
    key = pool.key
    numbered = (
        Ref(kind, key.namespace, naming.builder(key, number))
        for kind, number in product(("Deployment", "PersistentVolumeClaim"), range(11))
    )
    return frozenset((*desired_refs(pool, INSTALLATION), *numbered))


def parts(name: str) -> Iterator[tuple[str, str]]:
    """A name in two, wherever there is a hyphen."""
    words = name.split("-")
    return (("-".join(words[:n]), "-".join(words[n:])) for n in range(1, len(words)))


def is_client(pool: Pool, ref: Ref) -> bool:
    """Whether it is the Secret of a client of this pool."""
    secrets = {naming.client_certificate(pool.key, c.name) for c in pool.spec.access.clients}
    return ref.kind == "Secret" and ref.name in secrets


def is_cache_of(pool: Pool, other: Pool, ref: Ref) -> bool:
    """Whether the other pool is called as this one calls its cache."""
    return ref == Ref("Service", "builds", f"{pool.key.name}-cache") and ref.name == other.key.name


def rivals(pool: Pool) -> Iterator[Pool]:
    """All other pools that can need a name of this one, as far as their clients matter.

    All names of a pool begin with its own. Those in the operator's namespace have dots between
    their parts, and no part has one.
    """
    needed = {ref.name for ref in refs_of(pool) if ref.namespace == pool.key.namespace}
    assert all(name.startswith(pool.key.name) for name in needed)
    found = {(prefix, rest) for name in needed for prefix, rest in parts(name)}
    found |= {(prefix, tail) for prefix, rest in found for _, tail in parts(rest)}
    found |= {(name, "default") for name in needed}
    for name, client in sorted(found):
        if name != pool.key.name and not name[0].isdigit() and len(name) <= 40:
            yield whole(name, client)


@settings(max_examples=20, deadline=None)
@given(pool_names, names)
@example("ci", "x-builder")
@example("ci-cache", "default")
def test_two_pools_need_one_name_only_for_a_clients_secret_or_a_caches_service(
    name: str, client: str
) -> None:
    one = whole(name, client)
    needed = refs_of(one)
    for other in rivals(one):
        for ref in needed & refs_of(other):
            assert (
                is_client(one, ref)
                or is_client(other, ref)
                or is_cache_of(one, other, ref)
                or is_cache_of(other, one, ref)
            ), ref


@dataclass
class Two:
    """A cluster with two pools."""

    cluster: MemoryCluster
    first: Pool
    second: Pool

    def settle(self, pool: Pool) -> Pool:
        """Passes until nothing is left to do; the pool with the status they leave."""
        self.cluster.status = pool.status
        for _ in range(12):
            self.cluster.step(pool)
        assert isinstance(self.cluster.status, PoolStatus)
        return replace(pool, status=self.cluster.status)

    def of(self, pool: Pool) -> dict[Ref, Object]:
        """What this pool has made."""
        return dict(self.cluster.situation(pool).own)


COLLISIONS: Final = {
    "a client, and another pool's builders": (
        whole("ci", "x-builder"),
        whole("ci-client-x", "default"),
    ),
    "a client, and another pool's cache": (whole("ci", "x-cache"), whole("ci-client-x", "default")),
    "a client, and the builders of another pool's cache": (
        whole("ci", "x-cache-client"),
        whole("ci-client-x", "default"),
    ),
    "two clients": (whole("ci", "x-client-y"), whole("ci-client-x", "y")),
    "a cache, and another pool": (whole("ci", "default"), whole("ci-cache", "default")),
}


@pytest.mark.parametrize("is_turned", [False, True], ids=["", "the other one first"])
@pytest.mark.parametrize("pair", COLLISIONS.values(), ids=COLLISIONS)
def test_the_pool_that_comes_second_says_what_helps_and_the_first_is_unharmed(
    pair: tuple[Pool, Pool], is_turned: bool
) -> None:
    first, second = reversed(pair) if is_turned else pair
    two = Two(MemoryCluster(), first, replace(second, uid=OTHER_UID))
    first = two.settle(first)
    before = two.of(first)
    second = two.settle(two.second)
    (taken,) = refs_of(first) & refs_of(second)
    lacks = is_client(second, taken)
    said = {c.type: c for c in second.status.conditions}
    kind = ConditionType.CERTIFICATES_READY if lacks else ConditionType.READY
    if taken.name in (naming.cache(second.key), naming.cache_client(second.key)):
        kind = ConditionType.CACHE_READY  # and the pool goes on without
    assert said[kind].reason == "NameConflict"
    assert f"{taken} exists and is needed by pool {first.key}" in said[kind].message
    if lacks:
        client = second.spec.access.clients[0].name
        assert f"access.clients[0].name ({client})" in said[kind].message
        assert "rename the client" in said[kind].message
    elif is_client(first, taken):
        client = first.spec.access.clients[0].name
        assert f"rename this pool, or the client {client} in access.clients" in said[kind].message
    else:
        assert "rename one of the two pools" in said[kind].message
    assert "remove" not in said[kind].message, "the other pool needs it"

    # The first one has all that it had, whatever becomes of the second.
    assert two.settle(first).status.conditions == first.status.conditions
    assert two.of(first) == before
    two.cluster.status = second.status
    while (removal := plan_removal(two.cluster.situation(second))).delete:
        two.cluster.act(removal)
        two.cluster.drain()
    assert two.of(second) == {}
    assert two.of(first) == before


@settings(max_examples=10, deadline=None)
@given(pool_names, names, pool_names, names)
def test_the_names_of_two_pools_are_never_taken_from_one_another(
    name: str, client: str, other_name: str, other_client: str
) -> None:
    assume(name != other_name)
    one = whole(name, client)
    other = replace(whole(other_name, other_client), uid=OTHER_UID)
    two = Two(MemoryCluster(), one, other)
    one = two.settle(one)
    before = two.of(one)
    two.settle(other)
    assert two.of(one) == before
