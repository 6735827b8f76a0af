"""Which shared cache is added to a build."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api import Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from buildpool.core.routing.affinity import Traits
from buildpool.core.routing.sharing import NOTHING, Share, Wish, lies_in, reference_of, share
from samples import NOW

CACHE = CacheBrief(
    location="r.example/cache", architecture="amd64", export_interval=timedelta(minutes=1)
)
APP = Traits(source="github.com/acme/app", image="r.example/app", client="ci")
REFERENCE = reference_of(CACHE, APP) or ""


def a_client(inject: Inject = Inject.FULL) -> ClientBrief:
    return ClientBrief(identity="buildpool://builds/ci/client/ci", name="ci", inject=inject)


def added(inject: Inject = Inject.FULL, ago: timedelta | None = None, **wish: bool) -> Share:
    """What a build gets whose cache was exported so long ago."""
    exported = None if ago is None else NOW - ago
    return share(CACHE, REFERENCE, a_client(inject), Wish(**wish), exported=exported, now=NOW)


def test_a_build_imports_and_exports_the_cache_of_its_project() -> None:
    assert added() == Share(imports=REFERENCE, exports=REFERENCE)


def test_what_a_client_asks_for_by_itself_wins() -> None:
    assert added(imports=True) == Share(exports=REFERENCE)
    assert added(exports=True) == Share(imports=REFERENCE)
    assert added(imports=True, exports=True) == NOTHING


def test_a_build_that_wants_no_cache_still_leaves_one() -> None:
    assert added(is_no_cache=True) == Share(exports=REFERENCE)


def test_who_may_only_import_exports_nothing() -> None:
    assert added(inject=Inject.IMPORT) == Share(imports=REFERENCE)
    assert added(inject=Inject.NONE) == NOTHING


def test_a_project_is_exported_no_more_often_than_the_interval_says() -> None:
    assert added(ago=timedelta(seconds=59)) == Share(imports=REFERENCE)
    assert added(ago=timedelta(minutes=1)) == Share(imports=REFERENCE, exports=REFERENCE)


def test_a_build_that_does_not_say_what_it_is_of_shares_nothing() -> None:
    assert reference_of(CACHE, Traits(client="ci")) is None


@pytest.mark.parametrize(
    "other",
    [
        Traits(source="github.com/acme/app2"),
        Traits(image="github.com/acme/app"),
        Traits(context="github.com/acme/app"),
        Traits(source="github.com/acme/App"),
        Traits(source="github.com/acme/app", part="test"),
    ],
)
def test_two_projects_never_share_a_cache(other: Traits) -> None:
    assert reference_of(CACHE, other) != REFERENCE


def test_two_architectures_never_share_a_cache() -> None:
    arm = CACHE.model_copy(update={"architecture": "arm64"})
    assert reference_of(arm, APP) != REFERENCE


@given(st.text(min_size=1, max_size=400))
def test_whatever_a_project_is_called_its_cache_has_a_name_that_registries_take(name: str) -> None:
    reference = reference_of(CACHE, Traits(source=name))
    assert reference is not None
    path = r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    assert re.fullmatch(rf"r\.example/{path}:amd64", reference)
    assert len(reference) < 255


@given(st.integers(1, 255), st.text(min_size=1, max_size=400))
def test_however_long_its_location_is_a_cache_has_a_name_that_registries_take(
    length: int, name: str
) -> None:
    location = f"r.example/{'x' * (length - 10)}"[:length].rstrip("/")
    reference = reference_of(at(location), Traits(source=name))
    if reference is None:
        assert len(location) > 230
    else:
        repository = reference.removesuffix(":amd64")
        assert len(repository) <= 255
        assert re.fullmatch("[a-z0-9./-]*[a-z0-9]", repository)


MANAGED, EXTERNAL, HUB = "ci-cache.builds.svc:5000", "r.example/cache", "docker.io/org/cache"


def at(location: str) -> CacheBrief:
    return CacheBrief(location=location, architecture="amd64")


@pytest.mark.parametrize("location", [MANAGED, EXTERNAL, HUB, "localhost/cache"])
def test_a_reference_lies_in_the_cache_only_below_its_location(location: str) -> None:
    cache = at(location)
    for tag in ("", ":amd64", "@sha256:0", ":amd64@sha256:0"):
        assert lies_in(f"{location}/auto/app{tag}", cache)
        assert lies_in(f"{location}/app{tag}", cache)
        assert lies_in(f"{location}/auto/app{tag}".upper(), cache)
        assert not lies_in(f"x{location}/auto/app{tag}", cache)
        assert not lies_in(f"{location}t/app{tag}", cache)
        assert not lies_in(f"r.example/app{tag}", cache)
        assert not lies_in(f"other.example/{location.partition('/')[2]}/app{tag}", cache)


@pytest.mark.parametrize("location", [MANAGED, EXTERNAL])
@given(traits=st.builds(Traits, source=st.text(min_size=1), part=st.text()))
def test_whatever_is_added_to_builds_lies_in_the_cache(location: str, traits: Traits) -> None:
    reference = reference_of(at(location), traits)
    assert reference is not None
    assert lies_in(reference, at(location))


@pytest.mark.parametrize(
    ("location", "reference"),
    [
        (EXTERNAL, "R.EXAMPLE/cache/auto/app"),
        (EXTERNAL, "r.example:443/cache/auto/app"),
        (EXTERNAL, "r.example/cache:latest"),
        (EXTERNAL, "r.example/cache@sha256:0"),
        (f"{MANAGED}/deep", f"{MANAGED}/deep"),
        (HUB, "org/cache/auto/app"),
        (HUB, "index.docker.io/org/cache"),
        (HUB, "registry-1.docker.io/org/cache"),
        (HUB, "registry.hub.docker.com/org/cache"),
        (HUB, "docker.io.:0443/org/cache"),
        ("docker.io/library/cache", "cache:latest"),
        (EXTERNAL, "r.example:0443/cache/auto/app"),
        (EXTERNAL, "r.example.:00080/cache/auto/app"),
        (MANAGED, "ci-cache.builds.svc:05000/auto/app"),
        (MANAGED, "ci-cache.builds:5000/auto/app"),
        (MANAGED, "ci-cache.builds.svc.cluster.local:5000/auto/app"),
        (MANAGED, "ci-cache.builds.svc.cluster.local.:5000/auto/app"),
        (MANAGED, "ci-cache.builds.svc.k8s.test:5000/auto/app"),
        (MANAGED, "CI-Cache.builds.svc.K8s.test.:5000/auto/app"),
        ("c.builds.svc.k8s.test/deep", "c.builds.svc/deep/app"),
        ("c.builds.svc.k8s.test/deep", "c.builds/deep/app"),
        ("ci-cache.builds:5000/deep", "ci-cache.builds.svc.:5000/deep/app"),
        ("localhost/cache", "localhost/cache/auto/app"),
    ],
)
def test_a_reference_lies_in_the_cache_however_it_is_spelled(location: str, reference: str) -> None:
    assert lies_in(reference, at(location))
    assert not lies_in(f"x{reference}", at(location))
