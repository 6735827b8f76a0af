"""Builds that went with their builder: told with their names and the cause, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from buildpool.core.api import EventReason
from buildpool.core.api.events import EventType
from buildpool.core.objects.refs import Object
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.reporting.losses import Sight, look
from samples import NOW, a_pod
from unit.passes import MINUTE, says, told, told_story
from unit.passes import READY as IS_READY

OOM = {"exitCode": 137, "reason": "OOMKilled"}
TAINT = "Taint manager: deleting due to NoExecute taint"


def a_look(*pods: tuple[Object, tuple[str, ...] | None]) -> Observation:
    """Pods, and what their daemons say that runs; None: they do not answer."""
    loads = {
        pod["metadata"]["uid"]: Load(tuple(RunningBuild(ref, NOW) for ref in sorted(refs)), NOW)
        for pod, refs in pods
        if refs is not None
    }
    return Observation(pods=tuple(pod for pod, _ in pods), loads=loads)


class Watch:
    """Looks, one after the other; each tells what was lost since the one before."""

    def __init__(self) -> None:
        self.sights: Mapping[str, Sight] = {}

    def see(self, *pods: tuple[Object, tuple[str, ...] | None]) -> list[str]:
        """Pods as they are now; the messages of the Events."""
        self.sights, events = look(self.sights, a_look(*pods))
        for event in events:
            assert (event.type, event.reason) == (EventType.WARNING, EventReason.BUILDS_LOST)
        return [event.message for event in events]


def busy(*refs: str) -> Watch:
    """A watch that has seen a builder with these builds."""
    watch = Watch()
    assert watch.see((a_pod(), refs)) == []
    return watch


def leaving(condition: Mapping[str, str] | None = None, **overrides: Any) -> Object:
    """A pod that is told to go, with another condition of Kubernetes'."""
    pod = a_pod(terminating=True, **overrides)
    pod["status"]["conditions"] += [dict(condition)] if condition else []
    return pod


def disrupted(reason: str, message: str = TAINT) -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


# --- lost ----------------------------------------------------------------------------------------


def test_a_daemon_that_ran_out_of_memory_is_told_with_its_builds_and_the_remedy() -> None:
    watch = busy("b", "a")
    (message,) = watch.see((a_pod(running=False, ended=OOM, restarts=1), None))
    assert message == (
        "ci-builder-0 has lost builds a, b: its daemon ran out of memory (OOMKilled); raise"
        " builders.resources.limits.memory."
    )


def test_a_daemon_that_ended_otherwise_is_told_with_its_exit_code() -> None:
    watch = busy("a")
    ended = {"exitCode": 2, "reason": "Error"}
    (message,) = watch.see((a_pod(ended=ended, restarts=1), ()))
    assert message == (
        "ci-builder-0 has lost builds a: its daemon ended with exit code 2 (Error);"
        " read its log with kubectl logs --previous."
    )


def test_an_evicted_pod_is_told_in_the_words_of_the_kubelet() -> None:
    pod = a_pod(phase="Failed", running=False)
    pod["status"] |= {"reason": "Evicted", "message": "Usage of EmptyDir volume exceeds 20Gi."}
    (message,) = busy("a").see((pod, None))
    assert message.startswith("ci-builder-0 has lost builds a: its pod was evicted: Usage of Empty")


def test_what_a_daemon_said_before_its_pod_failed_is_lost_once() -> None:
    watch = busy("a")
    pod = a_pod(phase="Failed", running=False)
    assert len(watch.see((pod, ("a",)))) == 1
    assert watch.see((pod, ("a",))) == []
    assert watch.see((pod, None)) == []


def test_a_pod_that_failed_without_a_word_is_told_all_the_same() -> None:
    (message,) = busy("a").see((a_pod(phase="Failed", running=False), None))
    assert message.endswith("its pod has failed: nobody says why.")


def test_a_pod_that_vanished_without_having_been_told_to_go_is_told() -> None:
    assert busy("a").see() == [
        "ci-builder-0 has lost builds a: its pod is gone, by force or with its node."
    ]


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "DeletionByPodGC"])
def test_a_pod_whose_node_is_lost_is_told_at_once(reason: str) -> None:
    watch = busy("a")
    pod = leaving(disrupted(reason), ready=False)
    assert watch.see((pod, None)) == [f"ci-builder-0 has lost builds a: its node is lost: {TAINT}."]
    assert watch.see((pod, None)) == [], "once"
    assert watch.see() == []


def test_a_taint_that_drains_a_node_that_lives_loses_nothing() -> None:
    watch = busy("a")
    pod = leaving(disrupted("DeletionByTaintManager"), ready=True)
    assert watch.see((pod, ("a",))) == []
    assert watch.see() == [], "its daemon let them end"


def test_a_pod_that_drains_and_then_loses_its_node_is_told() -> None:
    watch = busy("a")
    assert watch.see((leaving(), None)) == []
    (message,) = watch.see((leaving(disrupted("DeletionByTaintManager"), ready=False), None))
    assert "has lost builds a: its node is lost" in message


def test_each_builder_is_told_by_itself() -> None:
    watch = Watch()
    first, second = a_pod("ci-builder-0"), a_pod("ci-builder-1")
    watch.see((first, ("a",)), (second, ("b",)), (a_pod("ci-builder-2"), ("c",)))
    messages = watch.see((a_pod("ci-builder-2"), ("c",)))
    assert [message.partition(":")[0] for message in messages] == [
        "ci-builder-0 has lost builds a",
        "ci-builder-1 has lost builds b",
    ]


# --- what ran, where nobody answers any more -----------------------------------------------------


def test_a_daemon_that_stops_answering_and_then_restarts_keeps_its_builds() -> None:
    watch = busy("a")
    for _ in range(3):
        assert watch.see((a_pod(), None)) == [], "it may be just slow"
    (message,) = watch.see((a_pod(restarts=1, ended=OOM), None))
    assert "has lost builds a: " in message


def test_a_loss_is_told_once_and_later_ones_again() -> None:
    watch = busy("a")
    dead = a_pod(restarts=1, ended=OOM, running=False)
    assert len(watch.see((dead, None))) == 1
    assert watch.see((dead, None)) == []
    back = a_pod(restarts=1, ended=OOM)
    assert watch.see((back, ("b",))) == []
    assert watch.see((back, None)) == []
    (message,) = watch.see((a_pod(restarts=2, ended=OOM), None))
    assert "has lost builds b: " in message


def test_builds_that_ended_before_are_not_lost() -> None:
    watch = busy("a", "b")
    watch.see((a_pod(), ("b",)))
    (message,) = watch.see()
    assert "has lost builds b: " in message


def test_the_builds_of_a_new_daemon_are_not_those_of_the_dead_one() -> None:
    watch = busy("a")
    pod = a_pod(restarts=1, ended=OOM)
    assert len(watch.see((pod, ("b",)))) == 1
    (message,) = watch.see()
    assert "has lost builds b: " in message


# --- not lost ------------------------------------------------------------------------------------


def test_a_pod_that_drains_and_goes_has_finished_its_builds() -> None:
    watch = busy("a")
    assert watch.see((leaving(), None)) == []
    assert watch.see((leaving(), None)) == []
    assert watch.see() == []


def test_a_pod_that_is_evicted_by_a_drain_still_finishes_its_builds() -> None:
    watch = busy("a")
    pod = leaving(disrupted("EvictionByEvictionAPI", "Eviction API: evicting"))
    assert watch.see((pod, None)) == []
    assert watch.see() == []


QUIET_ENDS: dict[str, tuple[tuple[Object, tuple[str, ...] | None], ...]] = {
    "it is gone": (),
    "it has failed": ((a_pod(phase="Failed", running=False), None),),
    "its daemon has restarted": ((a_pod(restarts=1, ended=OOM), None),),
    "its node is lost": ((leaving(disrupted("DeletionByPodGC")), None),),
}


@pytest.mark.parametrize("pods", QUIET_ENDS.values(), ids=QUIET_ENDS)
def test_an_idle_builder_loses_nothing(
    pods: tuple[tuple[Object, tuple[str, ...] | None], ...],
) -> None:
    assert busy().see(*pods) == []


def test_nothing_is_told_of_what_was_never_seen() -> None:
    watch = Watch()
    assert watch.see((a_pod(phase="Failed"), None)) == []
    assert watch.see((a_pod(restarts=7, ended=OOM), None)) == []
    assert watch.see() == []
    assert watch.sights == {}


# --- as part of a pass ---------------------------------------------------------------------------


def test_a_builder_that_runs_out_of_memory_costs_builds_and_comes_back() -> None:
    story = told_story(replicas=1)
    story.start(0, "image", "tests")
    story.look()
    status = story.pod(0)["status"]
    status["conditions"][3]["status"] = "False"
    status["containerStatuses"][0] |= {
        "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": OOM},
    }
    story.finish(0)
    verdict = story.look()
    assert told(verdict) == [
        (EventType.WARNING, "BuildsLost"),
        (EventType.WARNING, "BuilderCrashing"),
    ]
    (message,) = story.heard(EventReason.BUILDS_LOST)
    assert message.startswith("ci-builder-0 has lost builds image, tests: ")
    verdict = story.settle()
    assert says(verdict, IS_READY) == ("True", "Ready")
    assert len(story.heard(EventReason.BUILDS_LOST)) == 1


def test_a_builder_that_is_replaced_and_drains_loses_nothing() -> None:
    story = told_story(replicas=1, builders={"image": "r.example/buildkit:v1"})
    story.start(0, "x")
    story.change(replicas=1, builders={"image": "r.example/buildkit:v2"})
    story.settle()
    story.wait(10 * MINUTE)
    story.finish(0)
    story.settle()
    assert story.names() == ["ci-builder-1"]
    assert story.heard(EventReason.BUILDS_LOST) == []
