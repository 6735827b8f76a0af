"""What is read out of a pod, and that nothing which stands in one is more than that."""

from __future__ import annotations

import pytest
from hypothesis import given

from buildpool.core.objects.pods import (
    MAX_SAID_CHARACTERS,
    Cause,
    address_of,
    daemon_of,
    ending_of,
    ending_of_container,
    has_daemon,
    has_ended,
    has_had_daemon,
    is_ready,
    name_of_builder,
    restarts_of,
    serves,
)
from buildpool.core.objects.refs import JSON, Object, component_of
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.reporting.diagnosis import diagnose
from buildpool.core.reporting.losses import look
from endings import ENDINGS, OOM, a_reachable_pod, anything, disrupted, hostile_pods
from samples import NOW, a_pod


@pytest.mark.parametrize(("pod", "words"), ENDINGS.values(), ids=ENDINGS)
def test_an_ending_is_told_with_its_cause_and_the_remedy(pod: Object, words: str) -> None:
    assert str(ending_of(pod, restarts=0)) == words


WELL: dict[str, Object] = {
    "it runs": a_reachable_pod(),
    "its daemon crashed long ago": a_reachable_pod(ended=OOM, restarts=3),
    "no daemon runs in it yet": a_pod(init=True, ready=False),
    "it drains": a_reachable_pod(terminating=True),
    "it is evicted by a drain of its node, and finishes its builds": disrupted(
        a_reachable_pod(terminating=True), "EvictionByEvictionAPI"
    ),
    "it was to go with its node, and the node came back": disrupted(
        a_reachable_pod(), "DeletionByTaintManager", status="False"
    ),
}


@pytest.mark.parametrize("pod", WELL.values(), ids=WELL)
def test_a_pod_that_may_be_well_has_no_ending(pod: Object) -> None:
    assert ending_of(pod) is None
    assert ending_of(pod, restarts=restarts_of(pod)) is None


def test_a_daemon_that_ends_as_its_pod_is_deleted_ends_for_that() -> None:
    pod = a_reachable_pod(terminating=True, running=False, ended={"exitCode": 137})
    ending = ending_of(pod)
    assert ending is not None
    assert ending.cause is Cause.POD_DELETED
    assert str(ending) == "its pod was deleted, and its daemon ended with exit code 137 (Error)"


def test_a_daemon_that_runs_out_of_memory_as_its_pod_drains_is_told_so() -> None:
    pod = a_reachable_pod(terminating=True, running=False, ended=OOM)
    ending = ending_of(pod)
    assert ending is not None
    assert ending.cause is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("name", "ended", "remedy"),
    [
        ("registry", OOM, "raise cache.registry.managed.resources.limits.memory"),
        ("cache-guard", OOM, "read its log with kubectl logs --previous"),
        (
            "registry",
            {"exitCode": 1, "message": "write: no space left on device"},
            "the volume is full: raise cache.registry.managed.storage",
        ),
    ],
)
def test_the_remedy_for_a_container_beside_the_daemon_is_its_own(
    name: str, ended: Object, remedy: str
) -> None:
    status = {"name": name, "state": {"terminated": ended}}
    ending = ending_of_container(status, f"container {name}")
    assert ending is not None
    assert ending.remedy == remedy


def test_a_pod_that_has_ended_neither_runs_a_daemon_nor_is_ready_whatever_its_kubelet_said() -> (
    None
):
    pod = a_pod()
    assert has_daemon(pod)
    assert is_ready(pod)
    pod["status"]["phase"] = "Failed"
    assert not has_daemon(pod)
    assert not is_ready(pod)


# --- pods in which anything stands ----------------------------------------------------------------


def read(pod: Object) -> None:
    """Whatever is read of a pod anywhere."""
    for function in (name_of_builder, address_of, component_of):
        assert isinstance(function(pod), str)
    for function in (serves, has_daemon, has_had_daemon, has_ended, is_ready):
        assert isinstance(function(pod), bool)
    assert isinstance(daemon_of(pod), dict)
    assert isinstance(restarts_of(pod), int)
    for ending in (ending_of(pod), ending_of(pod, restarts=0)):
        said = str(ending)
        assert said.isprintable()
        assert len(said) < 2 * MAX_SAID_CHARACTERS


@given(hostile_pods())
def test_no_pod_raises_whatever_stands_in_it(pod: Object) -> None:
    read(pod)
    diagnose(pod, [pod])


@given(anything)
def test_not_even_what_is_no_pod_raises(value: JSON) -> None:
    read({"metadata": value, "status": value})
    read({"metadata": {"labels": value}, "status": {"conditions": value}})
    read({"status": {"containerStatuses": [value]}})
    read({})


@given(hostile_pods())
def test_an_event_tells_the_ending_of_any_pod(pod: Object) -> None:
    uid = pod["metadata"]["uid"]
    sights, _ = look(
        {},
        Observation(pods=(a_reachable_pod(),), loads={uid: Load((RunningBuild("a", NOW),), NOW)}),
    )
    sights, events = look(sights, Observation(pods=(pod,)))
    for event in events:
        ending = ending_of(pod, restarts=0)
        assert event.message == f"ci-builder-0 has lost builds a: {ending}."
    assert look(sights, Observation(pods=(pod,)))[1] == (), "once"


def test_what_is_lost_with_a_pod_is_told_once_though_its_daemon_is_still_known() -> None:
    loads = {a_reachable_pod()["metadata"]["uid"]: Load((RunningBuild("a", NOW),), NOW)}
    sights, _ = look({}, Observation(pods=(a_reachable_pod(),), loads=loads))
    told = 0
    for _ in range(4):
        pod = disrupted(a_reachable_pod(), "DeletionByTaintManager")
        sights, events = look(sights, Observation(pods=(pod,), loads=loads))
        told += len(events)
    assert told == 1
