"""What keeps a pod from its node and is stored weaker is seen; what is stricter is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from buildpool.core.objects.refs import Object
from buildpool.core.objects.security import lost_rights
from memory_cluster import settled
from samples import a_pool, any_json


def deployment(security: Object, **pod: Any) -> Object:
    """A Deployment whose only container has these rights."""
    container = {"name": "daemon", "securityContext": security}
    template = {"spec": {"containers": [container], **pod}}
    return {"kind": "Deployment", "spec": {"replicas": 1, "template": template}}


WEAKER: dict[str, tuple[Object, Object]] = {
    "it may be root": ({"runAsNonRoot": True}, {"runAsNonRoot": False}),
    "it may be root, as it is left out": ({"runAsNonRoot": True}, {}),
    "it is root": ({"runAsUser": 1000}, {"runAsUser": 0}),
    "it is whom its image says": ({"runAsUser": 1000}, {}),
    "it may write": ({"readOnlyRootFilesystem": True}, {"readOnlyRootFilesystem": False}),
    "it may gain rights": ({"allowPrivilegeEscalation": False}, {}),
    "it is privileged": ({"privileged": False}, {"privileged": True}),
    "it may call all": (
        {"seccompProfile": {"type": "RuntimeDefault"}},
        {"seccompProfile": {"type": "Unconfined"}},
    ),
    "nothing confines it": ({"appArmorProfile": {"type": "RuntimeDefault"}}, {}),
    "it keeps what was dropped": (
        {"capabilities": {"drop": ["ALL"]}},
        {"capabilities": {"drop": ["NET_RAW"]}},
    ),
    "it drops nothing": ({"capabilities": {"drop": ["ALL"]}}, {}),
    "it is privileged where nothing was said": ({}, {"privileged": True}),
    "it sees all of the kernel's files": ({}, {"procMount": "Unmasked"}),
    "it gets more where nothing was said": ({}, {"capabilities": {"add": ["SYS_ADMIN"]}}),
    "it gets more": (
        {"capabilities": {"drop": ["ALL"], "add": ["SETUID"]}},
        {"capabilities": {"drop": ["ALL"], "add": ["SETUID", "SYS_ADMIN"]}},
    ),
}
NO_WEAKER: dict[str, tuple[Object, Object]] = {
    "another user": ({"runAsUser": 1000}, {"runAsUser": 70000}),
    "another group": ({"fsGroup": 1000}, {"fsGroup": 70000}),
    "more is dropped": (
        {"capabilities": {"drop": ["ALL"], "add": ["SETUID"]}},
        {"capabilities": {"drop": ["ALL", "NET_RAW"]}},
    ),
    "all is dropped": (
        {"capabilities": {"drop": ["NET_RAW"]}},
        {"capabilities": {"drop": ["ALL"]}},
    ),
    "another profile": (
        {"seccompProfile": {"type": "RuntimeDefault"}},
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}},
    ),
    "a profile at all": ({"seccompProfile": {"type": "Unconfined"}}, {}),
    "more for who has all": (
        {"privileged": True},
        {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}},
    ),
    "root, where the image says whom": ({}, {"runAsUser": 0}),
    "it may not write any more": ({}, {"readOnlyRootFilesystem": True}),
}


@pytest.mark.parametrize(("wanted", "stored"), WEAKER.values(), ids=WEAKER)
@pytest.mark.parametrize("place", ["container", "init container", "pod"])
def test_what_is_stored_weaker_is_lost(place: str, wanted: Object, stored: Object) -> None:
    def placed(security: Object) -> Object:
        if place == "pod":
            return deployment({}, securityContext=security)
        if place == "container":
            return deployment(security)
        return deployment({}, initContainers=[{"name": "first", "securityContext": security}])

    (lost,) = lost_rights(placed(stored), placed(wanted))
    assert lost.path.startswith("spec.template.spec.")
    assert "securityContext" in lost.path


OF_POD: dict[str, tuple[Object, Object]] = {
    "it may be root": ({"runAsNonRoot": True}, {"runAsNonRoot": False}),
    "it is root": ({"runAsUser": 1000}, {"runAsUser": 0}),
    "it may call all": (
        {"seccompProfile": {"type": "RuntimeDefault"}},
        {"seccompProfile": {"type": "Unconfined"}},
    ),
    "nothing confines it": (
        {"appArmorProfile": {"type": "RuntimeDefault"}},
        {"appArmorProfile": {"type": "Unconfined"}},
    ),
}


@pytest.mark.parametrize(("of_pod", "of_container"), OF_POD.values(), ids=OF_POD)
def test_what_a_pod_says_counts_for_a_container_that_is_stored_otherwise(
    of_pod: Object, of_container: Object
) -> None:
    wanted = deployment({}, securityContext=of_pod)
    (lost,) = lost_rights(deployment(of_container, securityContext=of_pod), wanted)
    assert lost.path.startswith("spec.template.spec.containers[daemon].securityContext.")
    assert lost_rights(deployment({"runAsGroup": 7}, securityContext=of_pod), wanted) == ()


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"])
def test_what_a_pod_shares_and_was_not_to_share_is_lost(field: str) -> None:
    (lost,) = lost_rights(deployment({}, **{field: True}), deployment({}))
    assert lost == (f"spec.template.spec.{field}", True)
    assert lost_rights(deployment({}, **{field: False}), deployment({})) == ()
    assert lost_rights(deployment({}, **{field: True}), deployment({}, **{field: True})) == ()


@pytest.mark.parametrize(("wanted", "stored"), NO_WEAKER.values(), ids=NO_WEAKER)
def test_what_is_stored_otherwise_but_no_weaker_is_not_lost(wanted: Object, stored: Object) -> None:
    assert lost_rights(deployment(stored), deployment(wanted)) == ()


def test_a_user_namespace_that_is_left_out_or_refused_is_lost() -> None:
    wanted = deployment({"privileged": True}, hostUsers=False)
    for stored in (deployment({"privileged": True}), deployment({}, hostUsers=True)):
        assert [lost.path for lost in lost_rights(stored, wanted)] == [
            "spec.template.spec.hostUsers"
        ]


def test_a_token_of_the_cluster_that_the_pod_was_not_to_have_is_lost() -> None:
    wanted = deployment({}, automountServiceAccountToken=False)
    for stored in (deployment({}), deployment({}, automountServiceAccountToken=True)):
        (lost,) = lost_rights(stored, wanted)
        assert lost.path == "spec.template.spec.automountServiceAccountToken"


@pytest.mark.parametrize("security", ["Rootless", "UserNamespace"])
def test_all_that_a_builder_and_a_cache_say_of_their_rights_counts(security: str) -> None:
    pool = a_pool(builders={"security": security}, cache={"registry": {"managed": {}}})
    cluster = settled(pool)
    for name in ("ci-builder-0", "ci-cache"):
        wanted = cluster[f"Deployment/{name}"]
        assert lost_rights(wanted, wanted) == ()
        pod = wanted["spec"]["template"]["spec"]
        places = [pod, *pod["containers"], *pod.get("initContainers", ())]
        assert any("securityContext" in place for place in places)
        stored = copy.deepcopy(wanted)
        pod = stored["spec"]["template"]["spec"]
        pod.pop("hostUsers", None)
        for place in (pod, *pod["containers"], *pod.get("initContainers", ())):
            place.pop("securityContext", None)
        assert lost_rights(stored, wanted)


@given(any_json)
def test_whatever_is_stored_nothing_raises(stored: Any) -> None:
    wanted = deployment({"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}})
    assert lost_rights({"spec": {"template": {"spec": stored}}}, wanted)
