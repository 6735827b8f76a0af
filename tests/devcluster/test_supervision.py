"""What is decided about components, settings and volumes, without any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster.box import cgroup_mounts
from devcluster.control import Report
from devcluster.lifecycle import GIVES_UP_AFTER, find_hopeless
from devcluster.prerequisites import parse_packages
from devcluster.provisioner import is_released, volume_for, wants_volume
from devcluster.supervisor import LAST_PAUSE_SECONDS, pause_before_restart


def a_report(**overrides: Any) -> Report:
    values: dict[str, Any] = {
        "name": "etcd",
        "kind": "daemon",
        "state": "ready",
        "seconds": 1.0,
        "pid": 2,
        "restarts": 0,
        "memory": 0,
        "patience": 60.0,
    }
    return Report(**(values | overrides))


def a_claim(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "data", "namespace": "default", "uid": "u-1"},
        "spec": {
            "storageClassName": "standard",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
        "status": {"phase": "Pending"},
    }


@pytest.mark.parametrize(
    ("sentence", "overrides", "hopeless"),
    [
        ("ready is fine, however often it was started", {"restarts": 99}, False),
        ("starting is fine for a while", {"state": "starting", "seconds": 59}, False),
        ("starting for longer than its patience", {"state": "starting", "seconds": 61}, True),
        ("waiting for another, however long", {"state": "waiting", "seconds": 999}, False),
        (
            "dying no more often than before we waited",
            {"name": "frail", "state": "pausing", "restarts": GIVES_UP_AFTER},
            False,
        ),
        ("dying again and again", {"state": "pausing", "restarts": GIVES_UP_AFTER}, True),
    ],
)
def test_up_gives_up_on_a_component_that_is(
    sentence: str, overrides: dict[str, Any], hopeless: bool
) -> None:
    report = a_report(**overrides)
    restarts_before = {"frail": GIVES_UP_AFTER}
    assert find_hopeless([a_report(), report], restarts_before) == (report if hopeless else None)


def test_pauses_between_restarts_grow_to_a_limit() -> None:
    pauses = [pause_before_restart(failures) for failures in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == LAST_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("sentence", "claim", "wanted"),
    [
        ("a new claim of our class", a_claim(), True),
        ("a claim of another class", a_claim(storageClassName="other"), False),
        ("a claim that names its volume", a_claim(volumeName="mine"), False),
        ("a bound claim", {**a_claim(), "status": {"phase": "Bound"}}, False),
    ],
)
def test_a_volume_is_made_for(sentence: str, claim: dict[str, Any], wanted: bool) -> None:
    assert wants_volume(claim) is wanted


def test_only_a_released_volume_of_ours_is_removed() -> None:
    volume = volume_for(a_claim(), Path("/volumes"))
    assert volume["spec"]["hostPath"]["path"] == "/volumes/pvc-u-1"
    assert not is_released(volume | {"status": {"phase": "Bound"}})
    assert is_released(volume | {"status": {"phase": "Released"}})
    foreign = volume | {"metadata": {"name": "x"}, "status": {"phase": "Released"}}
    assert not is_released(foreign)


def test_all_cgroup_mounts_are_found_and_no_other() -> None:
    mountinfo = (
        "24 1 0:22 / /proc rw,relatime shared:1 - proc proc rw\n"
        "30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
        "31 29 0:27 / /sys/fs/cgroup/unified rw,relatime shared:3 master:2 - cgroup2 cgroup2 rw\n"
    )
    assert cgroup_mounts(mountinfo) == ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified")


def test_the_list_of_packages_may_hold_comments() -> None:
    assert parse_packages("# why\n\ngit\nuidmap  # newuidmap\n") == ("git", "uidmap")
