"""The history of a pool behind the gateway: that of one builder, for buildx and buildctl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from cluster import Api, eventually
from e2e.clients import BASE, Buildx, Client, base_context, client_of, context, run
from e2e.gateways import a_build, deploy, ends_well, know_builder, status
from e2e.pools import address_of, is_leaving, pods_of
from limits import patience

POOL = "remembers"
AIM_SECONDS = 2.0
"""Within which each command answers on a quiet machine, with time to spare: most need 0.3 s."""


def listed(client: Client, refs: list[str]) -> None:
    """Waits until exactly these builds are listed: a record comes a moment after its build."""
    eventually(lambda: refs_of(client) == refs, within=30, what=f"{len(refs)} builds are listed")


def refs_of(client: Client) -> list[str]:
    """The builds that have ended, as they are listed."""
    lines = client.ask("debug", "histories").splitlines()[1:]
    return [line.split()[1] for line in lines if line.startswith("COMPLETE")]


class Timed:
    """Runs the commands of buildx's history, and prints what each took."""

    def __init__(self, config: Path) -> None:
        self._buildx = Buildx(config)
        self._environment = {**os.environ, "BUILDX_CONFIG": str(config)}

    def __call__(self, state: str, command: str, *args: str) -> str:
        """It has to succeed, and soon; what it printed."""
        began = time.monotonic()
        printed = self._buildx("history", command, "--builder=remote", *args)
        self._count(state, command, args, time.monotonic() - began)
        return printed

    def fails(self, state: str, command: str, *args: str) -> str:
        """The same of one that cannot do here what it is for: there is no Docker Desktop."""
        began = time.monotonic()
        line = ["buildx", "history", command, "--builder=remote", *args]
        done = subprocess.run(
            line, env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        self._count(state, f"{command} (no Docker Desktop)", args, time.monotonic() - began)
        assert done.returncode != 0
        return done.stderr

    def _count(self, state: str, command: str, args: tuple[str, ...], seconds: float) -> None:
        options = " ".join(each for each in args if each.startswith("--"))
        print(f"| `history {command} {options}` | {state} | {seconds:.2f} |", flush=True)
        assert seconds < patience(AIM_SECONDS), f"{command} took {seconds:.1f} s"


@contextmanager
def a_full_pool(api: Api, namespace: str, client: Client, folder: Path) -> Iterator[None]:
    """Every slot is taken, by builds that go on."""
    with ExitStack() as stack:
        holders = [
            stack.enter_context(a_build(client, folder / f"holds{number}", seconds=3600))
            for number in range(2)
        ]
        eventually(
            lambda: client.ask("debug", "histories").count("STARTED") == len(holders),
            within=90,
            what="every slot is taken",
        )
        yield
        assert all(holder.is_running for holder in holders)
        eventually(
            lambda: status(api, POOL, namespace)["waiting"] == 0, within=30, what="nobody waits"
        )


def test_the_history_of_two_builders_is_that_of_one(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    namespace, folder = shared_namespace, tmp_path
    deploy(api, POOL, namespace, scaling={"min": 2, "max": 2})
    client = client_of(api, POOL, namespace, folder)
    know_builder(client, folder)
    history = Timed(folder / "config")
    for turn in ("first", "second"):  # one on each builder
        with (
            a_build(client, folder / f"{turn}-here", seconds=10) as here,
            a_build(client, folder / f"{turn}-there", seconds=10) as there,
        ):
            ends_well(here)
            ends_well(there)

    def of_each() -> list[list[str]]:
        return [refs_of(client.at(address_of(pod))) for pod in pods_of(api, POOL, namespace)]

    eventually(
        lambda: [len(refs) for refs in of_each()] == [2, 2], within=30, what="two builds on each"
    )
    refs = sorted(ref for refs in of_each() for ref in refs)
    listed(client, refs)  # as one daemon lists them

    monitor = folder / "monitor.log"
    print(f"\n{os.cpu_count()} CPUs\n\n| command | pool | seconds |\n|---|---|---|")
    with ExitStack() as stack:
        said = stack.enter_context(monitor.open("w"))
        listening = stack.enter_context(
            subprocess.Popen(client.buildctl("debug", "monitor"), stdout=said, stderr=said)
        )
        stack.callback(listening.kill)
        all_commands(history, "free", refs, folder)
        with a_full_pool(api, namespace, client, folder):
            all_commands(history, "full", refs, folder)
            running = eventually(lambda: both_running(client), within=30, what="two builds run")
            starts = [f"event: STARTED ref:{ref}" for ref in running]
            eventually(
                lambda: all(start in monitor.read_text() for start in starts),
                within=30,
                what="who listens has heard of the builds that run",
            )
            assert [monitor.read_text().count(start) for start in starts] == [1, 1]
            records_of_a_builder_that_drains_are_found(api, namespace, client, history, refs)
            for ref in refs[:2]:
                history("full", "rm", ref)
            listed(client, refs[2:])
            history("full", "rm", "--all")
            listed(client, [])


def both_running(client: Client) -> list[str]:
    """The two builds that run, as they are listed; none where there are not two."""
    lines = client.ask("debug", "histories").splitlines()
    found = [line.split()[1] for line in lines if line.startswith("STARTED")]
    return found if len(found) == 2 else []


def all_commands(history: Timed, state: str, refs: list[str], folder: Path) -> None:
    """Each of them finds each record."""
    listed = [
        json.loads(line)
        for line in history(state, "ls", "--format=json", "--no-trunc").splitlines()
    ]
    found = [each["ref"].rpartition("/")[2] for each in listed if each.get("completed_at")]
    assert sorted(found) == refs
    starts = [
        datetime.fromisoformat(each["created_at"]) for each in listed if "completed_at" in each
    ]
    assert starts == sorted(starts, reverse=True), "the newest first"
    names: set[str] = set()
    for ref in refs:
        assert ref in history(state, "inspect", ref)
        names |= set(re.findall(r"echo ((?:first|second)-t?here);", history(state, "logs", ref)))
        bundle = folder / f"{state}-{ref}.dockerbuild"
        history(state, "export", "-o", str(bundle), ref)
        assert "index.json" in names_in(bundle)
        assert "no record" not in history.fails(state, "open", ref)
    assert len(names) == 4
    assert "Ref:" in history(state, "inspect"), "the latest"
    bundle = folder / f"{state}-all.dockerbuild"
    history(state, "export", "--all", "-o", str(bundle))
    assert len(names_in(bundle)) > 4
    history.fails(state, "import", "-f", str(bundle))
    assert "no record found" in history.fails(state, "inspect", "0123456789012345678901234")


def names_in(bundle: Path) -> list[str]:
    """The files in a bundle of records."""
    with tarfile.open(bundle) as archive:
        return archive.getnames()


def records_of_a_builder_that_drains_are_found(
    api: Api, namespace: str, client: Client, history: Timed, refs: list[str]
) -> None:
    """It runs a build; so it stays, and keeps its records, until that has ended."""
    pod = pods_of(api, POOL, namespace)[0]
    api.must("delete", "pod", "-n", namespace, pod["metadata"]["name"], "--wait=false")
    eventually(
        lambda: any(is_leaving(each) for each in pods_of(api, POOL, namespace)),
        within=60,
        what="a builder drains",
    )
    eventually(lambda: set(refs) <= set(refs_of(client)), within=30, what="its records are listed")
    for ref in refs:
        assert ref in history("draining", "inspect", ref)
        assert "echo" in history("draining", "logs", ref)


def test_the_record_of_a_build_is_read_by_the_build(
    api: Api, shared_namespace: str, tmp_path: Path
) -> None:
    """As the summaries of CI do: the build, and then its export by the ref that it told."""
    namespace, folder = shared_namespace, tmp_path
    deploy(api, "summarises", namespace, scaling={"min": 2, "max": 2})
    client = client_of(api, "summarises", namespace, folder)
    know_builder(client, folder)
    history = Timed(folder / "config")
    for number in range(3):
        source = context(folder / f"{number}", f"FROM {BASE}\nRUN echo {number}\n")
        told = folder / f"{number}.json"
        build = ["build", "--builder=remote", "--no-cache", *base_context()]
        Buildx(folder / "config")(*build, f"--metadata-file={told}", str(source))
        ref = json.loads(told.read_text())["buildx.build.ref"].rpartition("/")[2]
        bundle = folder / f"{number}.dockerbuild"
        history("free", "export", "--finalize", "-o", str(bundle), ref)
        assert bundle.stat().st_size > 0
    assert run(*client.buildctl("prune-histories")).returncode == 0
