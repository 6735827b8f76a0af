"""What a term of leadership begins with: the pools that there are."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from buildpool.core.errors import BuildpoolError, KubernetesError, NotFoundError, RefusedError
from buildpool.core.objects.refs import Object
from buildpool.kube.cluster import Cluster
from buildpool.manager.terms import pools_of
from buildpool.settings import Settings
from samples import HOME, a_raw_pool


class Namespaces:
    """An API server that answers for each namespace in its own way."""

    def __init__(self, **answers: Object | KubernetesError) -> None:
        self.answers = answers

    async def select(self, _: str, namespace: str, __: dict[str, str]) -> list[Object]:
        answer = self.answers[namespace or "everywhere"]
        if isinstance(answer, KubernetesError):
            raise answer
        return [answer]


def found(*namespaces: str, **answers: Object | KubernetesError) -> list[Object]:
    settings = Settings(HOME, "one", watch_namespaces=namespaces)
    return asyncio.run(pools_of(cast("Cluster", Namespaces(**answers)), settings))


def test_all_pools_are_found_where_all_are_tended() -> None:
    assert found(everywhere=a_raw_pool()) == [a_raw_pool()]


def test_a_namespace_that_may_not_be_looked_at_keeps_the_pools_of_no_other_from_being_tended() -> (
    None
):
    pools = found("a", "b", a=RefusedError("forbidden"), b=a_raw_pool(namespace="b"))
    assert pools == [a_raw_pool(namespace="b")]


def test_a_cluster_without_the_definition_is_told_how_to_get_it() -> None:
    with pytest.raises(BuildpoolError, match="install the CRD"):
        found(everywhere=NotFoundError("no such resource"))
