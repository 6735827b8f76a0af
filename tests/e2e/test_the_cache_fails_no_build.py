"""Whatever happens to a managed cache, no build fails; the pool says what is wrong; and it heals.

Two stories have pools of their own and go on beside the others, because they wait for the keeper's
rounds, which come once a minute.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from buildpool.core.api import Reason
from cluster import OPERATOR_NAMESPACE, Api, eventually
from e2e.caches import (
    REPOSITORIES,
    ManagedCache,
    Noise,
    a_small_disk,
    build_of,
    is_answered,
    managed,
    ready_since,
)
from e2e.clients import BASE, Client, RunningBuild, base_image, context, files_of, is_open
from e2e.operators import OPERATORS, lease, must_lead, take_lease
from e2e.pools import change, deploy, leaves_nothing, serving, settle
from e2e.registries import bring
from limits import patience

Story = Callable[[Api, str, Path], None]
MEBIBYTE: Final = 2**20
LARGE: Final = Noise(4, 100)
"""Mostly long enough on its way to be disturbed there: a second or two."""
ATTEMPTS: Final = 4
"""How often a disturbance may come too late."""
SMALL: Final = Noise(2, 8)
FOREGROUND: Final = ("--cascade=foreground", "--wait=false")
FILLER: Final = "/var/lib/registry/filler"
HARMS: Final = {
    "flipped": "printf XXXX | dd of={} bs=1 seek=4000000 conv=notrunc",
    "removed": "rm {}",
    "truncated": "truncate -s 4000000 {}",
}
"""What befalls a blob, as a shell command."""


def a_cache_outgrows_its_room(api: Api, namespace: str, folder: Path) -> None:
    """One round removes what nobody has used for the retention, then what room is needed for.

    Four caches of 23 MB have room for 67 MB, and are to take no more than 90 % of it.
    """
    cache = ManagedCache(api, "tidy", namespace)
    deploy(api, "tidy", namespace, cache=managed("64Mi"))
    client = cache.builder(0, folder)

    def source(name: str) -> Path:
        where = context(folder / name, "FROM scratch\nCOPY noise /\n")
        if not (noise := where / "noise").exists():
            noise.write_bytes(os.urandom(22 * MEBIBYTE))
        return where

    def is_of_use(name: str) -> bool:
        return "CACHED" in empty(client).build(source(name), *cache.imports(name))

    client.build(source("used"), *cache.exports("used"))
    cache.age("used", timedelta(hours=6))
    assert is_of_use("used")
    for name in ("expired", "unused", "newest"):
        client.build(source(name), *cache.exports(name))
    cache.age("unused", timedelta(hours=5))
    cache.age("expired", timedelta(days=15))
    eventually(
        lambda: set(cache.repositories()) == {"newest", "used"},
        within=180,
        what="only what is used is left",
        every=1,
    )
    keeper = (cache.pod()["metadata"]["name"], "-n", namespace, "-c", "keeper")
    eventually(
        lambda: (
            re.search(
                r"removed expired:main: it was not used since \d{4}-",
                log := api.must("logs", *keeper),
            )
            and "removed unused:main: room is needed" in log
        ),
        within=30,
        what="the keeper tells why",
        every=1,
    )
    eventually(
        lambda: (
            cache.metric("reclaimed_bytes_total") > 2 * 22 * MEBIBYTE
            and 2 * 22 * MEBIBYTE < cache.metric("used_bytes") < 3 * 22 * MEBIBYTE
        ),
        within=60,
        what="the operator tells how much was reclaimed, and is used",
        every=1,
    )
    for name, is_kept in {"used": True, "newest": True, "unused": False, "expired": False}.items():
        assert is_of_use(name) == is_kept, name
    cache.tells(Reason.CACHE_ANSWERS, within=60)


def a_disk_is_full(api: Api, namespace: str, folder: Path) -> None:
    """Caches that are there can be used, and new ones are kept once there is room."""
    cache, larger, next_one = ManagedCache(api, "full", namespace), Noise(1, 120), Noise(1, 4)
    refused = "ERROR: error writing layer blob"
    with a_small_disk(api, namespace, claim=cache.name) as storage_class:
        deploy(api, "full", namespace, cache=managed("96Mi", storage_class=storage_class))
        client = cache.builder(0, folder)
        client.build(context(folder, SMALL.dockerfile), *cache.exports("small"))
        progress = client.build(context(folder, larger.dockerfile), *cache.exports("larger"))
        assert refused in progress, progress
        cache.run(f"dd if=/dev/zero of={FILLER} bs=64k || true")
        progress = client.build(context(folder, next_one.dockerfile), *cache.exports("next"))
        assert refused in progress, progress
        assert is_imported(cache, SMALL, "small", client, folder)
        cache.tells(Reason.CACHE_FULL, "raise cache.registry.managed.storage.size", within=180)
        assert is_imported(cache, SMALL, "small", client, folder)
        # What an upload that broke off has left, the registry removes a day later.
        cache.run(f"rm -r {FILLER} {REPOSITORIES}/larger")
        client.build(context(folder, next_one.dockerfile), *cache.exports("next"))
        assert is_imported(cache, next_one, "next", client, folder)
        cache.tells(Reason.CACHE_ANSWERS, within=180)


STORIES: tuple[Story, ...] = (a_cache_outgrows_its_room, a_disk_is_full)


@pytest.fixture(scope="module", autouse=True)
def told(
    api: Api, shared_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Story, Future[None]]]:
    """The stories, going on."""
    bring("registry")
    bring("busybox")
    folder = tmp_path_factory.mktemp("stories")
    with ThreadPoolExecutor(len(STORIES)) as threads:
        yield {
            story: threads.submit(story, api, shared_namespace, folder / story.__name__)
            for story in STORIES
        }


@pytest.fixture(scope="module")
def cache(api: Api, shared_namespace: str) -> ManagedCache:
    """The cache of a pool of two builders."""
    deploy(api, "ci", shared_namespace, scaling={"min": 2}, cache=managed("2Gi"))
    return ManagedCache(api, "ci", shared_namespace)


@pytest.fixture
def first(cache: ManagedCache, tmp_path: Path) -> Client:
    """The builder that exports, with nothing in it."""
    return empty(cache.builder(0, tmp_path / "first"))


@pytest.fixture
def second(cache: ManagedCache, tmp_path: Path) -> Client:
    """The builder that imports, with nothing in it."""
    return empty(cache.builder(1, tmp_path / "second"))


def test_a_registry_that_dies_in_the_middle_of_an_export_fails_no_build(
    cache: ManagedCache, first: Client, second: Client, tmp_path: Path
) -> None:
    for attempt in range(ATTEMPTS):
        noise, folder = replace(LARGE, salt=f"{attempt}"), tmp_path / f"{attempt}"
        context(folder, noise.dockerfile)
        with build_of(first.build_command(folder, *cache.exports("large")), folder) as build:
            eventually(
                lambda: is_exporting(build.progress), within=60, what="it exports", every=0.01
            )
            with cache.crash():
                was_exporting = is_exporting(build.progress)
                assert build.process.wait(timeout=patience(60)) == 0, build.progress
        if was_exporting:
            break
    assert was_exporting, "it never died in the middle"
    first.build(folder, *cache.exports("large"))
    assert is_imported(cache, noise, "large", second, tmp_path)
    cache.tells(Reason.CACHE_ANSWERS, within=30)


@pytest.mark.parametrize("how", [("--force", "--grace-period=0"), ("--wait=false",)], ids="=".join)
def test_a_registry_that_leaves_in_the_middle_of_an_import_fails_no_build(
    api: Api,
    cache: ManagedCache,
    first: Client,
    second: Client,
    tmp_path: Path,
    how: tuple[str, ...],
) -> None:
    """It is away when the first layer is fetched."""
    first.build(context(tmp_path, SMALL.dockerfile), *cache.exports("small"))
    for attempt in range(ATTEMPTS):
        folder, imports = tmp_path / f"{attempt}", cache.imports("small")
        with waiting_build(empty(second), folder, *imports) as build:
            before, held = cache.pod()["metadata"], cache.requests_held(1)
            api.must("delete", "pod", before["name"], "-n", before["namespace"], *how)
            eventually(lambda: not is_open(cache.service, 5000), within=30, what="it is away")
            build.end(host_of(second))
            assert SMALL.is_spared_by(build.progress)
        assert cache.pod()["metadata"]["uid"] != before["uid"]
        if was_held := cache.requests_held(1) > held:
            break
    assert was_held, "it was always back too soon"
    assert is_imported(cache, SMALL, "small", second, tmp_path)
    cache.tells(Reason.CACHE_ANSWERS, within=30)


def test_a_registry_that_dies_in_the_middle_of_an_import_fails_no_build(
    cache: ManagedCache, first: Client, second: Client, tmp_path: Path
) -> None:
    first.build(context(tmp_path / "export", LARGE.dockerfile), *cache.exports("large"))
    for attempt in range(ATTEMPTS):
        folder = context(tmp_path / f"{attempt}", LARGE.reading)
        command = empty(second).build_command(folder, *cache.imports("large"))
        with build_of(command, folder) as build:
            eventually(
                lambda: LARGE.on_its_way(build.progress), within=60, what="it fetches", every=0.01
            )
            with cache.crash():
                was_fetching = LARGE.on_its_way(build.progress)
                assert build.process.wait(timeout=patience(60)) == 0, build.progress
        assert LARGE.is_spared_by(build.progress)
        if was_fetching:
            break
    assert was_fetching, "it never died in the middle"
    assert is_imported(cache, LARGE, "large", second, tmp_path)
    cache.tells(Reason.CACHE_ANSWERS, within=30)


def test_a_damaged_cache_is_told_of_and_used_again_when_a_build_has_exported_it(
    cache: ManagedCache, first: Client, second: Client, tmp_path: Path
) -> None:
    noises = {name: Noise(2, 8, salt=name) for name in HARMS}
    for name, noise in noises.items():
        first.build(context(tmp_path / name, noise.dockerfile), *cache.exports(name))
        (blob, _) = (path for path, size in cache.blobs(name).items() if size // MEBIBYTE == 8)
        cache.run(HARMS[name].format(blob))
        assert not is_imported(cache, noise, name, second, tmp_path), name
    remedy = "the next build that exports there writes it again"
    cache.tells(Reason.CACHE_DAMAGED, *(f"{name}:main" for name in HARMS), remedy, within=30)
    for name, noise in noises.items():
        first.build(context(tmp_path / name, noise.dockerfile), *cache.exports(name))
        assert is_imported(cache, noise, name, second, tmp_path), name
    cache.tells(Reason.CACHE_ANSWERS, within=30)


def test_nobody_without_a_certificate_of_the_pool_reads_the_cache(
    api: Api, cache: ManagedCache, first: Client, tmp_path: Path
) -> None:
    first.build(context(tmp_path, SMALL.dockerfile), *cache.exports("small"))
    own, other = (
        files_of(api, f"{pool}-cache-client", cache.namespace, tmp_path) for pool in ("ci", "tidy")
    )
    for port, path in ((5000, "/v2/small/tags/list"), (5001, "/status")):
        trusts = ssl.create_default_context(cafile=own / "ca.pem")
        assert not is_answered(cache.service, port, path, trusts)
        trusts.load_cert_chain(other / "cert.pem", other / "key.pem")
        assert not is_answered(cache.service, port, path, trusts)
        trusts.load_cert_chain(own / "cert.pem", own / "key.pem")
        assert is_answered(cache.service, port, path, trusts)


def test_no_step_of_a_build_reads_the_cache(
    cache: ManagedCache, first: Client, tmp_path: Path
) -> None:
    """Steps share the network of the builder, and so the port of its guard."""
    if base_image() is None:
        pytest.skip("the base image of Docker Hub has no openssl")
    manifest = "/v2/small/manifests/main"
    asked = {
        "localhost:1235": manifest,
        f"{cache.service}:5000": manifest,
        f"{cache.service}:5001": "/status",
        "kubernetes.default.svc:443": "/version",  # who does answer, so that we see it would show
    }
    steps = "".join(
        f"RUN (sleep 1; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n') | "
        f"openssl s_client -quiet -connect {at} 2>&1 || true\n"
        for at, path in asked.items()
    )
    progress = first.build(context(tmp_path, f"FROM {BASE}\n{steps}"))
    there = re.findall(r"^(#\d+) [\d.]+ depth=0 ", progress, re.MULTILINE)
    answered = re.findall(r"^(#\d+) [\d.]+ HTTP/1\.", progress, re.MULTILINE)
    assert len(set(there)) == len(asked), progress
    assert answered == [re.findall(r"^(#\d+) \[.*kubernetes", progress, re.MULTILINE)[0]]


def test_a_cache_rests_with_its_pool_and_answers_before_the_first_builder_does(
    api: Api, cache: ManagedCache, first: Client, tmp_path: Path
) -> None:
    first.build(context(tmp_path, SMALL.dockerfile), *cache.exports("small"))
    volume = uids(api.list("pvc", cache.namespace, cache.selector))
    assert volume
    api.must("scale", "bkp", "ci", "-n", cache.namespace, "--replicas=0")
    cache.tells(Reason.CACHE_RESTING, within=150)
    eventually(lambda: not cache.pods(), within=150, what="the registry is gone", every=0.5)
    api.must("scale", "bkp", "ci", "-n", cache.namespace, "--replicas=1")
    settle(api, "ci", cache.namespace)
    builder = serving(api, "ci-builder-0", cache.namespace)
    assert builder is not None
    assert str(ready_since(cache.pod())) <= str(ready_since(builder))
    assert uids(api.list("pvc", cache.namespace, cache.selector)) == volume
    assert is_imported(cache, SMALL, "small", cache.builder(0, tmp_path), tmp_path)
    cache.tells(Reason.CACHE_ANSWERS, within=30)


def test_a_cache_that_is_removed_from_the_spec_stays_until_the_builds_that_read_it_are_over(
    api: Api, cache: ManagedCache, first: Client, tmp_path: Path
) -> None:
    """The last test of this pool."""
    kinds = "deployments,services,pvc,secrets,configmaps"
    first.build(context(tmp_path, SMALL.dockerfile), *cache.exports("small"))
    first.ask("prune", "--all")
    before = uids(api.list(kinds, cache.namespace, cache.selector))
    assert len(before) == 7
    with waiting_build(first, tmp_path, *cache.imports("small")) as build:
        change(api, "ci", cache.namespace, cache={"registry": None})
        settle(api, "ci", cache.namespace)
        assert uids(api.list(kinds, cache.namespace, cache.selector)) == before
        build.end(host_of(first))
        assert SMALL.is_spared_by(build.progress)
    eventually(
        lambda: not api.list(f"{kinds},pods", cache.namespace, cache.selector),
        within=150,
        what="the cache and all that belongs to it is gone",
        every=0.5,
    )
    assert not cache.condition()


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_build_fails_though(story: Story, told: dict[Story, Future[None]]) -> None:
    """Before the operator is killed, whose numbers begin again then: a story reads them."""
    told[story].result(timeout=420)


def test_a_pool_that_is_deleted_in_the_foreground_keeps_its_cache_until_its_builds_are_over(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    """As Argo CD deletes; and meanwhile the operator is killed, and the next one loses the Lease.

    tests/chaos does the same in random orders.
    """
    deploy(api, "leaving", shared_namespace, cache=managed("1Gi"))
    cache = ManagedCache(api, "leaving", shared_namespace)
    kinds = "deployments,services,pvc,secrets,configmaps"
    builder = cache.builder(0, tmp_path)
    builder.build(context(tmp_path, SMALL.dockerfile), *cache.exports("small"))
    before = uids(api.list(kinds, cache.namespace, cache.selector))
    with waiting_build(empty(builder), tmp_path, *cache.imports("small")) as build:
        api.must("delete", "bkp", "leaving", "-n", cache.namespace, *FOREGROUND)
        at_once = ("--grace-period=0", "--force")
        api.must("delete", "pods", "-n", OPERATOR_NAMESPACE, "-l", OPERATORS, *at_once)
        must_lead(api, since=lease(api))
        take_lease(api, seconds=1)
        must_lead(api, since=lease(api))
        eventually(
            lambda: (
                "leaving-builder-0"
                in api.condition("leaving", cache.namespace, "Ready").get("message", "")
            ),
            within=60,
            what="the pool says for which pod it waits",
            every=0.5,
        )
        assert uids(api.list(kinds, cache.namespace, cache.selector)) == before
        build.end(host_of(builder))
        assert SMALL.is_spared_by(build.progress)
    leaves_nothing(api, "leaving", cache.namespace)


def is_imported(cache: ManagedCache, noise: Noise, name: str, client: Client, folder: Path) -> bool:
    """Whether a cache is of use to a builder that has nothing of its own."""
    options = cache.imports(name)
    return noise.is_spared_by(empty(client).build(context(folder, noise.reading), *options))


@contextmanager
def waiting_build(client: Client, folder: Path, *options: str) -> Iterator[RunningBuild]:
    """A build that has imported the cache of ``SMALL`` and fetches it when it is released."""
    command = client.build_command(context(folder, SMALL.waiting), *options)
    with build_of(command, folder) as build:
        build.reach_its_long_step()
        yield build


def empty(client: Client) -> Client:
    """The same builder, without anything in its own cache."""
    client.ask("prune", "--all")
    return client


def host_of(client: Client) -> str:
    return client.address.removeprefix("tcp://").partition(":")[0]


def uids(objects: list[dict[str, Any]]) -> set[str]:
    return {obj["metadata"]["uid"] for obj in objects}


def is_exporting(progress: str) -> bool:
    """Whether a layer of the cache is being written."""
    lines = re.findall(r"writing layer (sha256:\w+)(?: [\d.]+s)?( done)?$", progress, re.MULTILINE)
    return any(not done for done in dict(lines).values())
