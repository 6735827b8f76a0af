"""Builds through the gateway: they wait, wake their pool, find their cache, hear what goes wrong.

Stories that go on at the same time, each with a pool of its own and all through the one gateway.
"""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import OPERATOR_NAMESPACE, Api, at_rest, eventually
from e2e.caches import REPOSITORIES, ManagedCache, managed
from e2e.clients import (
    APP,
    BASE,
    SHORT,
    STEPS,
    TOOLS,
    Buildx,
    Client,
    cached_steps,
    client_of,
    context,
    run,
    running_build,
)
from e2e.gateways import (
    a_build,
    buildx_build,
    deploy,
    ends_well,
    know_builder,
    looked_at,
    status,
)
from e2e.pools import (
    address_of,
    change,
    newcomer,
    pods_of,
    port_forward,
    serving,
    settle_cache,
)
from e2e.stories import Story
from limits import patience

HOLD = float(os.environ.get("GATEWAY_HOLD_SECONDS", "50"))
"""How long clients are held that would give up by themselves after 20 and 40 seconds."""


def an_idle_pool_wakes_for_a_build_and_falls_asleep(api: Api, namespace: str, folder: Path) -> None:
    scaling = {"min": 0, "max": 1, "idleAfter": "3s"}
    deploy(api, "sleeps", namespace, scaling=scaling)
    assert status(api, "sleeps", namespace)["ready"] == "0/0"
    assert api.condition("sleeps", namespace, "Ready")["reason"] == "Asleep"
    assert pods_of(api, "sleeps", namespace) == []
    client = client_of(api, "sleeps", namespace, folder)
    assert "inactive" in looked_at(client, folder / "looks")

    def woken() -> tuple[int, int]:
        waiting: int = status(api, "sleeps", namespace)["waiting"]
        return waiting, len(pods_of(api, "sleeps", namespace))

    assert at_rest(woken) == (0, 0), "who looks wakes nobody"
    for number in (1, 2):
        with a_build(client, folder / str(number)) as build:
            ends_well(build)
        eventually(
            lambda: not pods_of(api, "sleeps", namespace), within=150, what="it sleeps", every=1
        )


def builds_wait_for_the_one_slot_and_all_end_well(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "queue", namespace)
    client = client_of(api, "queue", namespace, folder)
    with running_build(client, folder / "first") as first, ExitStack() as stack:
        (pod,) = pods_of(api, "queue", namespace)
        ways = enumerate((buildx_build, a_build, buildx_build), start=1)
        builds = [stack.enter_context(way(client, folder / f"{n}", 5)) for n, way in ways]
        eventually(
            lambda: status(api, "queue", namespace)["waiting"] == 3, within=120, what="three wait"
        )
        first.end(pod["status"]["podIP"])
        seen = []
        while any(build.is_running for build in builds):
            seen.append(status(api, "queue", namespace)["busySlots"])
            time.sleep(0.2)
        for build in (first, *builds):
            ends_well(build)
    assert max(seen) == 1, "never more than its slots"
    eventually(
        lambda: status(api, "queue", namespace)["waiting"] == 0, within=30, what="nobody waits"
    )


def clients_that_wait_for_longer_than_they_would_connect_build_all_the_same(
    api: Api, namespace: str, folder: Path
) -> None:
    """buildctl would give up after 20 s, buildx after 40, were their connections not answered."""
    deploy(api, "held", namespace)
    client = client_of(api, "held", namespace, folder)
    with running_build(client, folder / "first") as first:
        (pod,) = pods_of(api, "held", namespace)
        with a_build(client, folder / "buildctl") as waiting:
            eventually(
                lambda: status(api, "held", namespace)["waiting"] == 1, within=60, what="it waits"
            )
            with buildx_build(client, folder / "buildx") as other:
                assert "running" in looked_at(client, folder / "buildx"), "and takes no turn"
                time.sleep(HOLD)
                assert waiting.is_running
                assert other.is_running
                first.end(pod["status"]["podIP"])
                ends_well(waiting)
                ends_well(other)


def who_waits_in_vain_is_told(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "full", namespace, gateway={"maxWait": "3s"})
    client = client_of(api, "full", namespace, folder)
    with running_build(client, folder / "first") as first:
        (pod,) = pods_of(api, "full", namespace)
        done = run(*client.build_command(context(folder / "second", SHORT)))
        assert done.returncode != 0
        told = f"pool {namespace}/full: waited 3s for a slot, 1 of 1 builders busy"
        assert told in done.stderr
        # It asks in three ways before it reports one of the answers.
        with buildx_build(client, folder / "third") as third:
            assert third.process.wait(timeout=patience(60)) != 0
            assert told in third.progress
        first.end(pod["status"]["podIP"])


def a_project_finds_its_cache_on_another_builder_with_no_flag(
    api: Api, namespace: str, folder: Path
) -> None:
    cache = {"registry": {"managed": {"storage": {"size": "1Gi"}}}, "exportInterval": "0s"}
    deploy(api, "shares", namespace, cache=cache)
    eventually(
        lambda: api.condition("shares", namespace, "CacheReady").get("status") == "True",
        within=60,
        what="the cache is ready",
    )
    client = client_of(api, "shares", namespace, folder)
    source = context(folder / "source", APP)
    (source / "source").write_text("one\n")
    build = client.build_command(source, "--opt", "vcs:source=https://github.com/acme/app.git")
    first = run(*build)
    assert first.returncode == 0, first.stderr
    assert cached_steps(first.stderr) == 0
    before = pods_of(api, "shares", namespace)
    api.must("delete", "deployment", "shares-builder-0", "-n", namespace)
    newcomer(api, "shares", namespace, before)
    second = run(*build)
    assert second.returncode == 0, second.stderr
    assert cached_steps(second.stderr) == STEPS, second.stderr
    again = run(*build, "--no-cache")
    assert again.returncode == 0, again.stderr
    assert cached_steps(again.stderr) == 0, "who wants no cache gets none"


def a_client_that_is_removed_is_refused(api: Api, namespace: str, folder: Path) -> None:
    clients = [{"name": "default"}, {"name": "leaver"}]
    deploy(api, "access", namespace, access={"clients": clients})
    leaver = client_of(api, "access", namespace, folder, name="leaver")
    assert leaver.can_connect()
    change(api, "access", namespace, access={"clients": clients[:1]})
    eventually(
        lambda: "is not among access.clients" in run(*leaver.buildctl("debug", "info")).stderr,
        within=60,
        what="it is refused, and told why",
        every=0.5,
    )
    assert client_of(api, "access", namespace, folder).can_connect()


def a_client_that_may_only_import_builds_and_changes_nothing_of_others(
    api: Api, namespace: str, folder: Path
) -> None:
    clients = [{"name": "default"}, {"name": "guests", "inject": "Import"}]
    deploy(api, "guarded", namespace, access={"clients": clients}, cache=managed("1Gi"))
    client = client_of(api, "guarded", namespace, folder, "guests")
    with a_build(client, folder / "buildctl") as one, buildx_build(client, folder / "bx") as other:
        ends_well(one)
        ends_well(other)
    with pytest.raises(AssertionError, match="Prune changes what builders keep"):
        client.ask("prune")

    settle_cache(api, "guarded", namespace)
    cache = ManagedCache(api, "guarded", namespace)
    image, source = f"{cache.service}:5000/auto", context(folder / "source", SHORT)

    def export(name: str) -> tuple[str, str]:
        return "--export-cache", f"type=registry,ref={image}/{name}:amd64,mode=max"

    def push(key: str, name: str) -> tuple[str, str]:
        return "--output", f"type=image,push=true,{key}={image}/{name}:amd64"

    for options, field in (
        (export("victim-1"), "Cache.Exports.Attrs ref lies in the shared cache"),
        (push("name", "victim-2"), "Exporters.Attrs name lies in the shared cache"),
        (push("dangling-name-prefix", "victim-3"), "Exporters.Attrs 'dangling-name-prefix' is not"),
    ):
        done = run(*client.build_command(source, *options))
        assert done.returncode != 0
        assert field in done.stderr
        assert "PermissionDenied" in done.stderr
    host = client_of(api, "guarded", namespace, folder)
    host.build(source, *export("friend"), *push("name", "friend-image"))
    kept = cache.run(f"ls {REPOSITORIES}/auto").split()
    assert {"friend", "friend-image"} <= set(kept)
    assert not {name for name in kept if name.startswith("victim")}


def how_a_build_of_a_large_dockerfile_fails_is_told_word_for_word(
    api: Api, namespace: str, folder: Path
) -> None:
    """The daemon sends the whole Dockerfile back with its error, some of it several times."""
    deploy(api, "large", namespace)
    client = client_of(api, "large", namespace, folder)
    (pod,) = pods_of(api, "large", namespace)

    def failure(of: Client, tool: str, source: Path) -> str:
        with pytest.raises(AssertionError, match="exit code: 7") as raised:
            TOOLS[tool](of, source)
        said = str(raised.value)
        assert re.search(r"^(#\d+ )?[\d.]+ boom$", said, re.MULTILINE), said
        excerpt = said.find("\nDockerfile:")
        assert excerpt >= 0, said[-2000:]
        return said[excerpt:]

    padding = "".join(f": padding line {n} {'.' * 36}\n" for n in range(500))
    comments = f"# {'a comment, as those that generators write'.ljust(58, '.')}\n" * 1000
    fails = "echo boom >&2; exit 7\n"
    for name, dockerfile in (
        ("heredoc", f"FROM {BASE}\nRUN <<'EOT'\n{padding}{fails}EOT\n"),
        ("comments", f"FROM {BASE}\n{comments}RUN {fails}"),
    ):
        source = context(folder / name, dockerfile)
        for tool in TOOLS:
            told = failure(client, tool, source)
            assert told == failure(client.at(address_of(pod)), tool, source)
    for tool in TOOLS:
        TOOLS[tool](client, context(folder / "good", f"FROM {BASE}\n{comments}RUN echo built\n"))

    def results() -> list[str]:
        logs = ("logs", "-n", OPERATOR_NAMESPACE, "deployment/buildpool-gateway", "-c", "router")
        lines = (x for x in api.must(*logs).splitlines() if f"{namespace}/large " in x)
        return re.findall(r" result=(\w+)", "\n".join(lines))

    eventually(
        lambda: results() == ["failed"] * 4 + ["succeeded"] * 2,
        within=30,
        what="the gateway tells how the builds ended",
        every=1,
    )


def buildx_gets_the_attestations_of_its_build(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "attests", namespace)
    client = client_of(api, "attests", namespace, folder)
    told = folder / "metadata.json"
    client.build_with_buildx(context(folder / "source", SHORT), f"--metadata-file={told}")
    metadata = json.loads(told.read_text())
    assert metadata["buildx.build.ref"]
    assert metadata["buildx.build.provenance"]["buildType"]


def records_of_all_builders_are_found_as_those_of_one(
    api: Api, namespace: str, folder: Path
) -> None:
    deploy(api, "remembers", namespace, scaling={"min": 2, "max": 2})
    client = client_of(api, "remembers", namespace, folder)
    for turn in ("first", "second"):  # one on each builder
        with (
            a_build(client, folder / f"{turn}-here", seconds=20) as here,
            a_build(client, folder / f"{turn}-there", seconds=20) as there,
        ):
            ends_well(here)
            ends_well(there)
    refs = [line.split()[1] for line in client.ask("debug", "histories").splitlines()[1:]]
    assert len(refs) == 4
    assert [
        client.at(address_of(pod)).builds() for pod in pods_of(api, "remembers", namespace)
    ] == [2, 2]
    know_builder(client, folder)
    buildx = Buildx(folder / "config")
    listed = buildx("history", "ls", "--builder=remote", "--no-trunc")
    said = set()
    for ref in refs:
        assert ref in listed
        assert ref in buildx("history", "inspect", "--builder=remote", ref)
        (name,) = re.findall(
            r"echo ((?:first|second)-t?here)", buildx("history", "logs", "--builder=remote", ref)
        )[:1]
        said.add(name)
        bundle = folder / f"{ref}.dockerbuild"
        buildx("history", "export", "--builder=remote", "-o", str(bundle), ref)
        assert bundle.stat().st_size > 0
        buildx("history", "rm", "--builder=remote", ref)
    assert said == {"first-here", "first-there", "second-here", "second-there"}
    assert client.builds() == 0


def nothing_of_builds_stays_once_their_records_are_gone(
    api: Api, namespace: str, folder: Path
) -> None:
    """BuildKit keeps a record for ever that somebody has listened to by its ref."""
    deploy(api, "forgets", namespace)
    client = client_of(api, "forgets", namespace, folder)

    def blobs() -> set[str]:
        inside = ("exec", "-n", namespace, "deploy/forgets-builder-0", "-c", "buildkitd", "--")
        find = "find / -path '*/content/blobs/sha256/*' -type f 2>/dev/null || true"
        return set(api.must(*inside, "sh", "-c", find).split())

    def build(number: int) -> None:
        source = context(folder / f"{number}", f"{SHORT}RUN echo {number}\n")
        client.build_with_buildx(source, f"--metadata-file={folder / f'{number}.json'}")

    def is_clean(before: set[str]) -> bool:
        client.ask("prune-histories")
        client.ask("prune", "--all")
        return blobs() <= before

    build(0)
    client.ask("prune-histories")
    client.ask("prune", "--all")
    before = blobs()
    for number in range(1, 21):
        build(number)
    assert not blobs() <= before
    eventually(lambda: is_clean(before), within=60, what="all content is gone", every=5)


def no_more_records_stay_than_the_pool_keeps(api: Api, namespace: str, folder: Path) -> None:
    """BuildKit looks every two minutes for records that are too old, and too many."""
    history = {"maxEntries": 5, "maxAge": "1m"}
    deploy(api, "keeps-five", namespace, builders={"slots": 1, "history": history})
    client = client_of(api, "keeps-five", namespace, folder)
    source = context(folder / "source", "FROM scratch\nCOPY Dockerfile /\n")
    for _ in range(50):
        client.build(source)
    assert client.builds() > 5
    eventually(lambda: client.builds() == 5, within=300, what="five records stay", every=5)


def a_port_forward_leads_to_the_pool_whose_name_is_asked_for(
    api: Api, namespace: str, folder: Path
) -> None:
    deploy(api, "remote", namespace, gateway={"hostnames": ["build.example.com"]})
    client = client_of(api, "remote", namespace, folder)
    with port_forward("service/buildpool-gateway", OPERATOR_NAMESPACE) as address:
        for name in (f"remote.{namespace}.svc", "build.example.com"):
            far = replace(client, address=address, server_name=name)
            assert "BuildKit" in far.ask("debug", "info")
        nobody = replace(client, address=address, server_name="nobody.example.com")
        assert not nobody.can_connect()


def a_client_hears_what_became_of_its_builder(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "crash", namespace)
    client = client_of(api, "crash", namespace, folder)
    with running_build(client, folder) as build:
        inside = ("exec", "-n", namespace, "deploy/crash-builder-0", "-c", "buildkitd", "--")
        api.kubectl(*inside, "sh", "-c", "kill -9 $(pidof buildkitd)")  # which may end this, too
        # What it prints is what it hears first, which may be the end of another of its streams.
        assert build.process.wait(timeout=patience(30)) != 0
    logs = ("logs", "-n", OPERATOR_NAMESPACE, "deployment/buildpool-gateway", "-c", "router")
    line = eventually(
        lambda: next((x for x in api.must(*logs).splitlines() if f"{namespace}/crash " in x), None),
        within=30,
        what="the gateway tells of the build",
        every=1,
    )
    assert "result=lost" in line
    assert "its daemon ended with exit code" in line


def the_routing_changes_under_a_running_build(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "moves", namespace)
    client = client_of(api, "moves", namespace, folder)
    with running_build(client, folder) as build:
        (pod,) = pods_of(api, "moves", namespace)
        change(api, "moves", namespace, routing="Direct")
        eventually(client.can_connect, within=60, what="the Service leads to builders", every=1)
        build.end(pod["status"]["podIP"])
    assert [each["metadata"]["uid"] for each in pods_of(api, "moves", namespace)] == [
        pod["metadata"]["uid"]
    ]


def the_authority_rotates_under_a_running_build(api: Api, namespace: str, folder: Path) -> None:
    deploy(api, "rotates", namespace, access={"authorityOverlap": "2s"})
    client = client_of(api, "rotates", namespace, folder / "before")
    with running_build(client, folder) as build:
        (pod,) = pods_of(api, "rotates", namespace)
        rotate = ("annotate", "bkp", "rotates", "-n", namespace, "buildpool.dev/rotate=authority")
        api.must(*rotate)
        eventually(
            lambda: "phase" in status(api, "rotates", namespace)["authority"],
            within=60,
            what="it rotates",
        )
        eventually(
            lambda: serving(api, "rotates-builder-1", namespace), within=150, what="a new builder"
        )
        build.end(pod["status"]["podIP"])
    eventually(
        lambda: "phase" not in status(api, "rotates", namespace)["authority"],
        within=240,
        what="it has rotated",
        every=1,
    )
    assert client_of(api, "rotates", namespace, folder / "after").can_connect()
    eventually(
        lambda: not client.can_connect(), within=30, what="the old certificate opens nothing"
    )


STORIES: tuple[Story, ...] = (
    an_idle_pool_wakes_for_a_build_and_falls_asleep,
    builds_wait_for_the_one_slot_and_all_end_well,
    clients_that_wait_for_longer_than_they_would_connect_build_all_the_same,
    who_waits_in_vain_is_told,
    a_project_finds_its_cache_on_another_builder_with_no_flag,
    a_client_that_is_removed_is_refused,
    a_client_that_may_only_import_builds_and_changes_nothing_of_others,
    how_a_build_of_a_large_dockerfile_fails_is_told_word_for_word,
    buildx_gets_the_attestations_of_its_build,
    records_of_all_builders_are_found_as_those_of_one,
    nothing_of_builds_stays_once_their_records_are_gone,
    no_more_records_stay_than_the_pool_keeps,
    a_port_forward_leads_to_the_pool_whose_name_is_asked_for,
    a_client_hears_what_became_of_its_builder,
    the_routing_changes_under_a_running_build,
    the_authority_rotates_under_a_running_build,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_that(story: Story, told: dict[Story, Future[None]]) -> None:
    told[story].result(timeout=600 + HOLD)
