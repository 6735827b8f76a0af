"""Which shared cache is added to a build."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api import Inject
from buildpool.core.api.brief import CacheBrief, ClientBrief
from buildpool.core.api.cache import MAX_LOCATION_CHARACTERS
from buildpool.core.routing.affinity import Traits
from buildpool.core.routing.sharing import (
    COMMON_INTERVAL,
    NOTHING,
    Share,
    Wish,
    caches_of,
    lies_in,
    repository_of,
    share,
    variant_of,
)
from buildpool.core.routing.variants import NUMBERS
from samples import NOW

CACHE = CacheBrief(
    location="r.example/cache", architecture="amd64", export_interval=timedelta(minutes=1)
)
APP = Traits(source="github.com/acme/app", image="r.example/app", client="ci")
REPOSITORY = repository_of(CACHE, APP) or ""
REFERENCE = f"{REPOSITORY}:amd64"
USUAL = caches_of(CACHE, REPOSITORY, "", None)
VARIANT = caches_of(CACHE, REPOSITORY, "a variant", 10)
OWN, COMMON = f"{REFERENCE}-0a", f"{REFERENCE}-any"
BOTH = Share((REFERENCE,), (REFERENCE,))


def a_client(inject: Inject = Inject.FULL) -> ClientBrief:
    return ClientBrief(identity="buildpool://builds/ci/client/ci", name="ci", inject=inject)


def added(
    inject: Inject = Inject.FULL,
    caches: Share = USUAL,
    exported: Mapping[str, datetime] | None = None,
    **wish: bool,
) -> Share:
    """What a build gets that these caches fit."""
    client = a_client(inject)
    return share(CACHE, caches, client, Wish(**wish), exported=exported or {}, now=NOW)


def test_a_build_imports_and_exports_the_cache_of_its_project() -> None:
    assert added() == BOTH


def test_what_a_client_asks_for_by_itself_wins() -> None:
    assert added(imports=True) == Share(exports=BOTH.exports)
    assert added(exports=True) == Share(imports=BOTH.imports)
    assert added(imports=True, exports=True) == NOTHING


def test_a_build_that_wants_no_cache_still_leaves_one() -> None:
    assert added(is_no_cache=True) == Share(exports=BOTH.exports)


def test_a_build_whose_result_depends_on_imports_gets_none_and_still_leaves_a_cache() -> None:
    assert added(is_exact=True) == Share(exports=BOTH.exports)
    assert added(is_exact=True, caches=VARIANT) == Share(exports=(OWN, COMMON))
    assert added(is_exact=True, inject=Inject.IMPORT) == NOTHING


def test_who_may_only_import_exports_nothing() -> None:
    assert added(Inject.IMPORT) == Share(imports=BOTH.imports)
    assert added(Inject.NONE) == NOTHING


def test_a_project_is_exported_no_more_often_than_the_interval_says() -> None:
    ago = {seconds: {REFERENCE: NOW - timedelta(seconds=seconds)} for seconds in (59, 60)}
    assert added(exported=ago[59]) == Share(imports=BOTH.imports)
    assert added(exported=ago[60]) == BOTH


def test_a_variant_finds_its_own_cache_and_what_it_has_in_common_with_others() -> None:
    assert added(caches=VARIANT) == Share((OWN, COMMON, REFERENCE), (OWN, COMMON))


def test_each_cache_of_a_variant_has_an_interval_of_its_own() -> None:
    exported = {OWN: NOW - timedelta(minutes=1), COMMON: NOW - timedelta(minutes=1)}
    assert added(caches=VARIANT, exported=exported).exports == (OWN,)
    other = {f"{REFERENCE}-0b": NOW, COMMON: NOW - COMMON_INTERVAL}
    assert added(caches=VARIANT, exported=other).exports == (OWN, COMMON)


def test_a_variant_without_a_cache_of_its_own_shares_that_of_all_variants() -> None:
    caches = caches_of(CACHE, REPOSITORY, "a variant", None)
    exported = {COMMON: NOW - timedelta(minutes=1)}
    assert added(caches=caches, exported=exported) == Share((COMMON, REFERENCE), (COMMON,))


def test_no_variant_overwrites_the_cache_of_usual_builds() -> None:
    for number in (None, *range(NUMBERS)):
        assert not {REFERENCE} & {*caches_of(CACHE, REPOSITORY, "v", number).exports}


@pytest.mark.parametrize(
    ("traits", "is_usual"),
    [
        (Traits(), True),
        (Traits(platforms=("linux/amd64",)), True),
        (Traits(platforms=("linux/arm64",)), False),
        (Traits(platforms=("linux/amd64", "linux/arm64")), False),
        (Traits(inputs="0"), False),
    ],
)
def test_a_build_for_the_builders_own_platform_without_arguments_is_usual(
    traits: Traits, is_usual: bool
) -> None:
    assert (variant_of(CACHE, traits) == "") is is_usual


@given(
    st.lists(
        st.builds(
            Traits,
            platforms=st.lists(
                st.sampled_from(["linux/arm", "linux/s390x", "linux/386"]), max_size=2
            )
            .map(sorted)
            .map(tuple),
            inputs=st.text("0123456789abcdef", max_size=3),
        ),
        unique=True,
        max_size=8,
    )
)
def test_two_variants_are_never_taken_for_one(traits: list[Traits]) -> None:
    assert len({variant_of(CACHE, each) for each in traits}) == len(traits)


def test_a_build_that_does_not_say_what_it_is_of_shares_nothing() -> None:
    assert repository_of(CACHE, Traits(client="ci")) is None


def test_a_context_is_no_project_as_each_new_machine_gives_it_another_name() -> None:
    assert repository_of(CACHE, Traits(context="app:4f1kq2", client="ci")) is None


@pytest.mark.parametrize(
    "other",
    [
        Traits(source="github.com/acme/app2"),
        Traits(image="github.com/acme/app"),
        Traits(source="github.com/acme/App"),
        Traits(source="github.com/acme/app", part="test"),
    ],
)
def test_two_projects_never_share_a_cache(other: Traits) -> None:
    assert repository_of(CACHE, other) != REPOSITORY


def test_two_architectures_never_share_a_cache() -> None:
    arm = CACHE.model_copy(update={"architecture": "arm64"})
    for variant, number in (("", None), ("v", 1), ("v", None)):
        ours = caches_of(CACHE, REPOSITORY, variant, number)
        theirs = caches_of(arm, REPOSITORY, variant, number)
        assert not {*ours.imports} & {*theirs.imports}


@given(st.text(min_size=1, max_size=400), st.integers(0, NUMBERS - 1))
def test_whatever_a_project_is_called_its_caches_have_names_that_registries_take(
    name: str, number: int
) -> None:
    repository = repository_of(CACHE, Traits(source=name))
    assert repository is not None
    path = r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    for reference in caches_of(CACHE, repository, "a variant", number).imports:
        assert re.fullmatch(rf"r\.example/{path}:amd64(-any|-[0-9a-f]{{2}})?", reference)
        assert len(reference) < 255


@given(st.text(min_size=1, max_size=400), st.text(max_size=9), st.integers(0, NUMBERS - 1))
def test_caches_can_be_tags_of_one_repository(name: str, part: str, number: int) -> None:
    cache = at("r.example/cache").model_copy(update={"is_flat": True})
    flat = repository_of(cache, Traits(source=name, part=part))
    deep = repository_of(CACHE, Traits(source=name, part=part))
    assert flat is not None
    assert deep is not None
    assert flat == deep.replace("/auto/", ":auto-"), "the same project by the same name"
    for reference in caches_of(cache, flat, "a variant", number).imports:
        assert re.fullmatch(r"r\.example/cache:[a-z0-9-]{1,128}", reference)
        assert lies_in(reference, cache)


@given(st.integers(1, 255), st.text(min_size=1, max_size=400))
def test_however_long_its_location_is_a_cache_has_a_name_that_registries_take(
    length: int, name: str
) -> None:
    location = f"r.example/{'x' * (length - 10)}"[:length].rstrip("/")
    repository = repository_of(at(location), Traits(source=name))
    if repository is None:
        assert len(location) > MAX_LOCATION_CHARACTERS, "such a pool is refused"
    else:
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
    repository = repository_of(at(location), traits)
    assert repository is not None
    for reference in caches_of(at(location), repository, "a variant", 1).exports:
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
