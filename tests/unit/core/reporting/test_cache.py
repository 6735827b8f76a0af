from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import Condition, ConditionStatus, Pool, PoolStatus, Reason
from buildpool.core.api.cache import MAX_LOCATION_CHARACTERS
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.cache import CacheReport, CacheTarget
from buildpool.core.observed.observation import Observation
from buildpool.core.observed.usage import Usage
from buildpool.core.planning.caches import cache_references, cache_target
from buildpool.core.reporting.cache import cache_condition, cache_status
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.words import Finding
from memory_cluster import settled
from samples import a_pod, a_pool, a_situation

MANAGED = {"registry": {"managed": {}}}
EXTERNAL = {"registry": {"ref": "r.example:5000/ci/caches"}}
GIB = 1 << 30


def condition(pool: Pool, observation: Observation | None = None, *failures: Failure) -> Condition:
    found = cache_condition(a_situation(pool, observation), Outcome(failures=failures))
    assert found is not None
    return found


def seen(pool: Pool, **overrides: Any) -> Observation:
    """A settled pool, with what its cache answered."""
    world = settled(pool).observe(pool)
    values = {name: getattr(world, name) for name in ("live", "pods", "cache_pods")}
    return Observation(**(values | overrides))


def a_cache_pod(**overrides: Any) -> Object:
    return a_pod("ci-cache", component=naming.COMPONENT_CACHE, **overrides)


def config_map(name: str, **data: str) -> Object:
    metadata = {"name": name, "namespace": "builds"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": data}


def secret(name: str, **data: str) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": "builds"}
    return {"kind": "Secret", "metadata": metadata, "data": encoded}


def referred(*objects: Object) -> dict[Ref, Object]:
    return {Ref(o["kind"], "builds", o["metadata"]["name"]): o for o in objects}


# --- no cache ------------------------------------------------------------------------------------


def test_a_pool_without_a_cache_says_nothing_of_one() -> None:
    pool = a_pool()
    assert cache_condition(a_situation(pool), Outcome()) is None
    assert cache_status(a_situation(pool)) is None
    assert cache_target(a_situation(pool)) is None


# --- the managed registry ------------------------------------------------------------------------


def test_a_managed_cache_is_asked_with_the_builders_own_certificate() -> None:
    pool = a_pool(cache=MANAGED)
    target = cache_target(a_situation(pool, seen(pool)))
    assert isinstance(target, CacheTarget)
    assert (target.host, target.keeper) == ("ci-cache.builds.svc:5000", "ci-cache.builds.svc:5001")
    assert target.pair is not None
    assert target.trust is not None


def test_a_managed_cache_that_does_not_run_yet_is_not_asked() -> None:
    pool = a_pool(cache=MANAGED)
    observation = seen(pool, cache_pods=(a_cache_pod(ready=False),))
    assert cache_target(a_situation(pool, observation)) is None
    assert condition(pool, observation).reason == Reason.CACHE_STARTING


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (
            {"waiting": ("ImagePullBackOff", "no such host")},
            Reason.IMAGE_PULL_FAILED,
            "correct cache.registry.managed.image",
        ),
        (
            {"unschedulable": "pod has unbound immediate PersistentVolumeClaims"},
            Reason.CACHE_STARTING,
            "correct cache.registry.managed.storage or the StorageClass",
        ),
        (
            {"unschedulable": "0/3 nodes are available: 3 Insufficient cpu."},
            Reason.UNSCHEDULABLE,
            "Insufficient cpu",
        ),
        (
            {"ended": {"reason": "Error", "exitCode": 1, "message": "no such file"}},
            Reason.CACHE_CRASHING,
            "container registry ended",
        ),
    ],
)
def test_what_keeps_a_managed_cache_from_running_is_named(
    pod: dict[str, Any], reason: Reason, words: str
) -> None:
    pool = a_pool(cache=MANAGED)
    found = condition(pool, seen(pool, cache_pods=(a_cache_pod(**pod),)))
    assert (found.status, found.reason) == (ConditionStatus.FALSE, reason)
    assert words in found.message


def test_a_refused_object_of_the_cache_is_named() -> None:
    pool = a_pool(cache=MANAGED)
    volume = Ref("PersistentVolumeClaim", "builds", "ci-cache")
    found = condition(pool, seen(pool), Failure(volume, "exceeded quota"))
    assert found.reason == Reason.OBJECT_REFUSED
    assert "PersistentVolumeClaim builds/ci-cache was refused: exceeded quota" in found.message


def test_the_pipelines_config_map_of_somebody_else_is_named_and_not_recommended() -> None:
    pool = a_pool(cache=MANAGED)
    ref = Ref("ConfigMap", "builds", "ci-cache-recipes")
    world = seen(pool, cache=CacheReport(usage=Usage()))
    world = replace(world, live={**world.live, ref: config_map(ref.name, buildx="--cache-to evil")})
    found = condition(pool, world)
    assert (found.status, found.reason) == (ConditionStatus.FALSE, Reason.NAME_CONFLICT)
    assert "ConfigMap builds/ci-cache-recipes exists" in found.message
    status = cache_status(a_situation(pool, world))
    assert status is not None
    assert status.recipes is None


def test_what_keeps_a_cache_from_running_comes_before_the_pipelines_config_map() -> None:
    pool = a_pool(cache=MANAGED)
    ref = Ref("ConfigMap", "builds", "ci-cache-recipes")
    world = seen(pool, cache_pods=(a_cache_pod(unschedulable="0/3 nodes are available"),))
    world = replace(world, live={**world.live, ref: config_map(ref.name)})
    assert condition(pool, world).reason == Reason.UNSCHEDULABLE


def test_a_managed_cache_rests_while_there_are_no_builders() -> None:
    pool = a_pool(cache=MANAGED, replicas=0)
    found = condition(pool, seen(pool, cache=CacheReport()))
    assert (found.status, found.reason) == (ConditionStatus.FALSE, Reason.CACHE_RESTING)


def test_a_cache_that_answers_is_ready() -> None:
    pool = a_pool(cache=MANAGED)
    found = condition(pool, seen(pool, cache=CacheReport(usage=Usage())))
    assert (found.status, found.reason) == (ConditionStatus.TRUE, Reason.CACHE_ANSWERS)
    assert found.message == "The builders share the cache in ci-cache.builds.svc:5000."


def test_a_full_cache_says_how_full_and_what_helps() -> None:
    pool = a_pool(cache=MANAGED)
    usage = Usage(used=50 * GIB, capacity=50 * GIB, is_full=True)
    found = condition(pool, seen(pool, cache=CacheReport(usage=usage)))
    assert found.reason == Reason.CACHE_FULL
    assert "50Gi of 50Gi" in found.message
    assert "cache.registry.managed.storage.size" in found.message


def test_a_full_disk_is_told_of_rather_than_what_the_registry_makes_of_it() -> None:
    pool = a_pool(cache=MANAGED)
    trouble = Finding(Reason.REGISTRY_UNREACHABLE, "it answers 500")
    report = CacheReport(trouble=trouble, usage=Usage(is_full=True))
    assert condition(pool, seen(pool, cache=report)).reason == Reason.CACHE_FULL
    report = CacheReport(trouble=trouble, usage=Usage(unhealed=("a:b",)))
    assert condition(pool, seen(pool, cache=report)).reason == Reason.REGISTRY_UNREACHABLE


def test_damage_is_told_with_the_caches_that_it_cost() -> None:
    pool = a_pool(cache=MANAGED)
    usage = Usage(damaged=1, unhealed=("shop/web:main-amd64",))
    found = condition(pool, seen(pool, cache=CacheReport(usage=usage)))
    assert found.reason == Reason.CACHE_DAMAGED
    assert "shop/web:main-amd64" in found.message


def test_a_volume_that_fails_is_reported_rather_than_the_damage_that_it_causes() -> None:
    pool = a_pool(cache=MANAGED)
    usage = Usage(damaged=20, unhealed=("shop/web:main-amd64",), is_failing=True)
    found = condition(pool, seen(pool, cache=CacheReport(usage=usage)))
    assert found.reason == Reason.CACHE_DAMAGED
    assert "check the volume" in found.message
    assert "shop/web" not in found.message


def test_trouble_of_the_registry_is_passed_on() -> None:
    pool = a_pool(cache=EXTERNAL)
    report = CacheReport(trouble=Finding(Reason.REGISTRY_NOT_FOUND, "who is r.example"))
    found = condition(pool, Observation(cache=report))
    assert (found.status, found.reason) == (ConditionStatus.FALSE, Reason.REGISTRY_NOT_FOUND)
    assert found.message == "Who is r.example."


def test_a_restarted_operator_believes_what_it_said_until_it_has_asked() -> None:
    before = Condition(
        type="CacheReady", status=ConditionStatus.TRUE, reason=Reason.CACHE_ANSWERS, message="Yes."
    )
    pool = a_pool(cache=EXTERNAL, status=PoolStatus(conditions=(before,)))
    assert condition(pool) == before
    new = condition(a_pool(cache=EXTERNAL))
    assert (new.status, new.reason) == (ConditionStatus.UNKNOWN, Reason.CACHE_UNKNOWN)


# --- somebody else's registry --------------------------------------------------------------------


def test_an_external_registry_is_asked_as_its_entry_in_registries_says() -> None:
    entry = {"host": "r.example:5000", "caBundle": {"configMap": {"name": "ca"}}}
    cache = {"registry": EXTERNAL["registry"] | {"credentials": {"name": "login"}}}
    pool = a_pool(cache=cache, registries=[entry])
    auths = json.dumps({"auths": {"r.example:5000": {"username": "ci", "password": "secret"}}})
    objects = referred(
        config_map("ca", **{"ca.crt": "PEM"}), secret("login", **{".dockerconfigjson": auths})
    )
    target = cache_target(a_situation(pool, Observation(referred=objects)))
    assert isinstance(target, CacheTarget)
    assert (target.host, target.repository) == ("r.example:5000", "ci/caches")
    assert (target.trust, target.http, target.keeper) == (b"PEM", False, None)
    assert target.credentials is not None
    assert (target.credentials.username, target.credentials.password) == ("ci", "secret")
    assert "secret" not in repr(target)
    assert cache_references(pool) == objects.keys(), "a change of each is noticed"


def test_a_pool_that_was_stored_with_too_long_a_location_builds_and_says_that_it_has_no_cache() -> (
    None
):
    cache = {"registry": {"ref": "r.example/".ljust(MAX_LOCATION_CHARACTERS + 1, "x")}}
    pool = a_pool(cache=cache, routing="Gateway")
    assert "ci-builder-0" in settled(pool).names("Deployment")
    found = condition(pool)
    assert (found.status, found.reason) == (ConditionStatus.FALSE, Reason.INVALID_SPEC)
    assert "cache.registry.ref has at most 237 characters" in found.message
    assert "set cache.registry.layout to Tags" in found.message


@pytest.mark.parametrize(
    ("routing", "below"),
    [("Gateway", "auto/buildpool-preflight"), ("Direct", "buildpool-preflight")],
)
def test_a_repository_is_tried_where_caches_will_lie(routing: str, below: str) -> None:
    target = cache_target(a_situation(a_pool(cache=EXTERNAL, routing=routing)))
    assert isinstance(target, CacheTarget)
    assert target.below == below
    flat = {"registry": EXTERNAL["registry"] | {"layout": "Tags"}}
    target = cache_target(a_situation(a_pool(cache=flat, routing=routing)))
    assert isinstance(target, CacheTarget)
    assert target.below == ""


@pytest.mark.parametrize(
    ("objects", "reason", "words"),
    [
        ([], Reason.SECRET_NOT_FOUND, "Secret login does not exist"),
        ([secret("login", other="x")], Reason.SECRET_NOT_FOUND, "no key .dockerconfigjson"),
        (
            [secret("login", **{".dockerconfigjson": '{"auths": {}}'})],
            Reason.CREDENTIALS_REFUSED,
            "has no entry for r.example:5000",
        ),
        (
            [secret("login", **{".dockerconfigjson": "{"})],
            Reason.CREDENTIALS_REFUSED,
            "Secret login, key .dockerconfigjson",
        ),
    ],
)
def test_credentials_that_are_of_no_use_are_named(
    objects: list[Object], reason: Reason, words: str
) -> None:
    cache = {"registry": EXTERNAL["registry"] | {"credentials": {"name": "login"}}}
    found = condition(a_pool(cache=cache), Observation(referred=referred(*objects)))
    assert (found.status, found.reason) == (ConditionStatus.FALSE, reason)
    assert words in found.message


def test_a_bundle_without_its_key_is_named() -> None:
    entry = {"host": "r.example:5000", "caBundle": {"configMap": {"name": "ca"}}}
    pool = a_pool(cache=EXTERNAL, registries=[entry])
    found = condition(pool, Observation(referred=referred(config_map("ca", other="PEM"))))
    assert found.reason == Reason.CONFIG_MAP_NOT_FOUND
    assert "ConfigMap ca has no key ca.crt" in found.message


def flags(names: tuple[str, str, str], ref: str, tag: str, export: str) -> list[str]:
    return [names[0], f"{ref}:{tag}", names[1], f"{ref}:arm64-main", names[2], export]


def expanded(recipe: str, branch: str) -> list[str]:
    """The flags as a shell reads them for one project and branch."""
    variables = {"REPOSITORY": "shop/web", "PATH": "/usr/bin:/bin", "BRANCH": branch}
    script = f"printf '%s\\n' {recipe}"
    done = subprocess.run(
        ["sh", "-euc", script], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


# --- what clients are told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "location"),
    [(MANAGED, "ci-cache.builds.svc:5000"), (EXTERNAL, "r.example:5000/ci/caches")],
)
def test_the_status_tells_the_flags_of_both_clients(cache: dict[str, Any], location: str) -> None:
    pool = a_pool(cache=cache, builders={"architecture": "arm64"})
    status = cache_status(a_situation(pool))
    assert status is not None
    ref = f"type=registry,ref={location}/shop/web"
    for branch, tag in ("feature/x #1", "arm64-feature-x--1"), ("", "arm64-main"):
        export = f"{ref}:{tag},mode=max,ignore-error=true"
        names = "--import-cache", "--import-cache", "--export-cache"
        assert expanded(status.buildctl, branch) == flags(names, ref, tag, export)
        names = "--cache-from", "--cache-from", "--cache-to"
        assert expanded(status.buildx, branch) == flags(names, ref, tag, export)
    assert status.recipes == "ci-cache-recipes"


def test_the_status_keeps_the_size_that_was_last_told() -> None:
    pool = a_pool(cache=MANAGED)
    told = cache_status(
        a_situation(pool, Observation(cache=CacheReport(usage=Usage(used=3 * GIB, refs=2))))
    )
    assert told is not None
    assert (told.used, told.refs) == ("3Gi", 2)
    later = a_pool(cache=MANAGED, status=PoolStatus(cache=told))
    assert cache_status(a_situation(later)) == told
