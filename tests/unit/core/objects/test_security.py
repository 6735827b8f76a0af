"""What is lost of the rights of a pod is seen, wherever it is lost, and nothing else is."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.objects.refs import JSON, Object
from buildpool.core.objects.security import OF_POD, lost_security, security_of
from memory_cluster import settled
from samples import a_pool

SECURITY = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.booleans(),
        "runAsUser": st.integers(0, 70000),
        "runAsNonRoot": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "readOnlyRootFilesystem": st.booleans(),
        "seccompProfile": st.sampled_from([{"type": "Unconfined"}, {"type": "RuntimeDefault"}]),
        "appArmorProfile": st.sampled_from([{"type": "Unconfined"}, {"type": "RuntimeDefault"}]),
        "capabilities": st.sampled_from([{"drop": ["ALL"]}, {"drop": ["ALL"], "add": ["CHOWN"]}]),
    },
)


@st.composite
def deployments(draw: st.DrawFn) -> Object:
    """Deployments with rights of all kinds."""
    pod: Object = {"serviceAccountName": "default", "nodeSelector": {"a": "b"}}
    for kind, names in (("containers", ["daemon", "other"]), ("initContainers", ["first"])):
        pod[kind] = [
            {"name": name, "image": "an/image", "securityContext": draw(SECURITY)} for name in names
        ]
    if draw(st.booleans()):
        pod["hostUsers"] = draw(st.booleans())
    if draw(st.booleans()):
        pod["securityContext"] = draw(SECURITY)
    return {"kind": "Deployment", "spec": {"replicas": 1, "template": {"spec": pod}}}


def leaves(value: JSON, *path: Any) -> list[tuple[Any, ...]]:
    """The paths of all values that are neither maps nor lists."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return [path]
    return [leaf for key, inner in items for leaf in leaves(inner, *path, key)]


@given(deployments(), st.data())
def test_exactly_what_is_lost_of_the_rights_of_a_pod_is_seen(
    wanted: Object, data: st.DataObject
) -> None:
    stored = copy.deepcopy(wanted)
    path = data.draw(st.sampled_from(leaves(wanted)))
    # Whatever is cut: the value itself, or any map or item that it stands in.
    path = path[: data.draw(st.integers(4, len(path)))] if len(path) > 4 else path
    inner: Any = stored
    for key in path[:-1]:
        inner = inner[key]
    # Its name is how a container is known: without it there is none.
    about_rights = bool(
        any(key in OF_POD for key in path)
        or path[-1] == "name"
        or leaves_under(wanted, path) & {*OF_POD}
    )
    del inner[path[-1]]
    lost = lost_security(stored, wanted)
    if not about_rights:
        assert lost == ()
    elif any(leaf for leaf in leaves(security_of(wanted)) if leaf[: len(path)] == path):
        assert lost


def leaves_under(wanted: Object, path: tuple[Any, ...]) -> set[Any]:
    """All keys of what stands at a path."""
    return {key for leaf in leaves(wanted) if leaf[: len(path)] == path for key in leaf}


@given(deployments())
def test_what_is_stored_as_it_is_wanted_has_lost_nothing(wanted: Object) -> None:
    stored = copy.deepcopy(wanted)
    stored["spec"]["replicas"] = 0
    stored["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst"}
    assert lost_security(stored, wanted) == ()


def test_all_that_a_builder_says_of_its_rights_is_kept() -> None:
    for security in ("Rootless", "UserNamespace"):
        cluster = settled(a_pool(builders={"security": security}))
        deployment = cluster["Deployment/ci-builder-0"]
        pod = security_of(deployment)["spec"]["template"]["spec"]
        assert pod.get("hostUsers") is (False if security == "UserNamespace" else None)
        for kind in ("containers", "initContainers"):
            names = [c["name"] for c in deployment["spec"]["template"]["spec"][kind]]
            assert [container["name"] for container in pod[kind]] == names, "each says something"
