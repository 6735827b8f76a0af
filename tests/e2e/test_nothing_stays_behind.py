"""What steps leave behind does not stay in a rootless builder, and no build comes to harm by that.

The kubelet probes every 15 seconds. Where a test shall not wait for it, it runs the probe's own
command in the builder.
"""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from buildpool.core.resources.scripts import PATIENCE
from cluster import Api, eventually
from e2e.caches import build_of
from e2e.clients import BASE, RELEASE, Client, client_of, context, running_build
from e2e.gateways import a_build, deploy, ends_well, status
from e2e.pools import pods_of

LEAVES = f"FROM {BASE}\nRUN (setsid sleep 100000 > /dev/null 2>&1 &); echo ok\n"
HANGS_ON = f"FROM {BASE}\nRUN sleep 100001 & echo running; sleep 100002\n"
"""Something in the background holds the output of the step after its main process was killed."""
BACKGROUND = f"""\
FROM {BASE}
RUN for n in $(seq 30); do \\
      (setsid sh -c "until [ -e /go ]; do sleep 1; done; echo >> /alive" >/dev/null 2>&1 &); \\
    done; \\
    echo running; nc -l -p {RELEASE} < /dev/null; echo released; touch /go; \\
    for n in $(seq 60); do [ $(wc -l < /alive) = 30 ] && exit 0; sleep 1; done; exit 1
"""


@pytest.fixture(scope="module")
def pool(api: Api, shared_namespace: str) -> str:
    """The namespace of a pool, tidy, with one builder, whose two slots the gateway gives."""
    deploy(api, "tidy", shared_namespace, builders={"slots": 2})
    return shared_namespace


@pytest.fixture
def client(api: Api, pool: str, tmp_path: Path) -> Client:
    return client_of(api, "tidy", pool, tmp_path)


def inside(api: Api, namespace: str, *command: str) -> str:
    """Runs a command in the builder."""
    builder = ("deploy/tidy-builder-0", "-c", "buildkitd")
    return api.must("exec", "-n", namespace, *builder, "--", *command)


def probe(api: Api, namespace: str) -> None:
    """What the kubelet does every 15 seconds."""
    (pod,) = pods_of(api, "tidy", namespace)
    (daemon,) = (c for c in pod["spec"]["containers"] if c["name"] == "buildkitd")
    inside(api, namespace, *daemon["readinessProbe"]["exec"]["command"])


def leftovers(api: Api, namespace: str) -> list[str]:
    """The processes named sleep in the pod, those that are dead and not reaped included."""
    names = inside(api, namespace, "sh", "-c", "cat /proc/[0-9]*/comm 2> /dev/null || true")
    return [name for name in names.split() if name == "sleep"]


def tells(api: Api, namespace: str, words: str) -> None:
    """Waits until this is in the log of the builder, which comes there by way of its node."""
    log = ("logs", "-n", namespace, "deploy/tidy-builder-0", "-c", "buildkitd")
    eventually(lambda: words in api.must(*log), within=30, what=f"the log says: {words}", every=1)


def test_what_steps_leave_behind_is_ended_and_the_builder_stays(
    api: Api, pool: str, client: Client, tmp_path: Path
) -> None:
    (before,) = pods_of(api, "tidy", pool)
    folder = context(tmp_path / "context", LEAVES)
    for _ in range(5):
        client.build(folder, "--no-cache")
    eventually(lambda: not leftovers(api, pool), within=60, what="nothing is left", every=1)
    (after,) = pods_of(api, "tidy", pool)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    tells(api, pool, "ended what a step had left behind: sleep")


def test_a_step_keeps_what_it_has_in_the_background_however_often_is_looked(
    api: Api, pool: str, client: Client, tmp_path: Path
) -> None:
    over, looks = Event(), []

    def look() -> None:
        while not over.is_set():
            probe(api, pool)
            looks.append(1)

    looking = Thread(target=look)
    looking.start()
    command = client.build_command(context(tmp_path / "context", BACKGROUND), "--no-cache")
    try:
        with build_of(command, tmp_path) as build:
            build.reach_its_long_step()
            eventually(lambda: len(looks) > PATIENCE, within=300, what="it was looked at often")
            (pod,) = pods_of(api, "tidy", pool)
            build.end(pod["status"]["podIP"], within=90)
    finally:
        over.set()
        looking.join()


def test_a_build_that_hangs_after_its_client_has_gone_ends_and_its_slot_comes_back(
    api: Api, pool: str, client: Client, tmp_path: Path
) -> None:
    command = client.build_command(context(tmp_path / "context", HANGS_ON), "--no-cache")
    with build_of(command, tmp_path) as build:
        build.reach_its_long_step()
        build.process.kill()
        build.process.wait(timeout=10)

    def is_over() -> bool:
        probe(api, pool)
        return client.ask("debug", "histories").count("STARTED") == 1

    with running_build(client, tmp_path / "beside") as other:
        assert client.ask("debug", "histories").count("STARTED") == 2
        with a_build(client, tmp_path / "following") as following:
            waiting = lambda: status(api, "tidy", pool)["waiting"]  # noqa: E731
            eventually(lambda: waiting() == 1, within=60, what="the next one waits for a slot")
            eventually(is_over, within=300, what="only the other build runs")
            ends_well(following)
        (pod,) = pods_of(api, "tidy", pool)
        other.end(pod["status"]["podIP"])
    tells(api, pool, "a step has ended and hangs: its output is held by sleep")
    tells(api, pool, "failed a step that hung: its output was held by sleep")
    eventually(lambda: not leftovers(api, pool), within=60, what="nothing is left", every=1)
