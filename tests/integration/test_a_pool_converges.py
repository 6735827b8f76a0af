"""A pool becomes what its spec says, whatever is done to its objects; idle, it costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cluster import Api, OperatorProcess, a_pool, at_rest, eventually, looks_again
from integration.webhooks import a_webhook

KINDS = "deployments,services,configmaps,secrets,poddisruptionbudgets,networkpolicies"


def children(api: Api, pool: str, namespace: str) -> dict[str, dict[str, Any]]:
    """The objects of a pool in its namespace, by kind and name."""
    found = api.list(KINDS, namespace, f"buildpool.dev/pool={pool}")
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in found}


def created(api: Api, namespace: str, **spec: Any) -> dict[str, dict[str, Any]]:
    """Applies a pool named ci and waits until all its objects are there."""
    api.apply(a_pool("ci", namespace, **spec))
    eventually(
        lambda: api.condition("ci", namespace, "CertificatesReady").get("status") == "True",
        within=30,  # some tests have only just started the operator
        what="the pool is carried out",
    )
    return children(api, "ci", namespace)


def test_a_pool_gets_its_objects(
    installed: Api, operator: OperatorProcess, namespace: str, authority_of: Any
) -> None:
    objects = created(installed, namespace, scaling={"min": 2}, access={"clients": [{"name": "a"}]})
    assert sorted(objects) == [
        "ConfigMap/ci-builder",
        "Deployment/ci-builder-0",
        "Deployment/ci-builder-1",
        "PodDisruptionBudget/ci-busy",
        "Secret/ci-builder",
        "Secret/ci-client-a",
        "Service/ci",
    ]
    assert authority_of("ci", namespace) is not None
    pool = installed.get("bkp", "ci", namespace)
    assert pool is not None
    assert pool["status"]["ready"] == "0/2"
    assert pool["status"]["endpoint"] == f"tcp://ci.{namespace}.svc:1234"
    assert pool["metadata"]["finalizers"] == ["buildpool.dev/drain"]
    assert "annotations" not in pool["metadata"] or not [
        key for key in pool["metadata"]["annotations"] if key.startswith("kopf")
    ]


def test_a_deleted_child_comes_back_at_once(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    """But for a builder: in its stead comes another one, perhaps with another number."""
    before = created(installed, namespace)
    for name, obj in before.items():
        kind, _, plain = name.partition("/")
        if kind == "Deployment":
            continue
        installed.must("delete", kind, plain, "-n", namespace, "--wait=true")
        gone = obj["metadata"]["uid"]
        eventually(
            lambda k=kind, p=plain, u=gone: (
                (found := installed.get(k, p, namespace)) and found["metadata"]["uid"] != u
            ),
            within=2 + 0.5,  # kubectl itself takes a part of a second
            what=f"{name} is there again",
        )
    # Its certificate is another one, and so is the builder in the end.
    old = one_builder(installed, namespace, but=before["Deployment/ci-builder-0"], within=10)
    installed.must("delete", "deployment", old["metadata"]["name"], "-n", namespace)
    one_builder(installed, namespace, but=old, within=2.5)
    assert len(children(installed, "ci", namespace)) == len(before)


def one_builder(api: Api, namespace: str, *, but: dict[str, Any], within: float) -> dict[str, Any]:
    """The pool's builder, as soon as there is exactly one, and not that one."""

    def found() -> dict[str, Any] | None:
        first, *others = api.list("deployments", namespace) or [but]
        is_new = first["metadata"]["uid"] != but["metadata"]["uid"]
        return first if is_new and not others else None

    builder: dict[str, Any] = eventually(found, within=within, what="one builder, and a new one")
    return builder


def test_an_edited_child_is_put_right_at_once(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    args = "{.spec.template.spec.containers[0].args}"
    path = ["get", "deployment", "ci-builder-0", "-n", namespace, "-o", f"jsonpath={args}"]
    right = installed.must(*path)
    edit = '[{"op":"replace","path":"/spec/template/spec/containers/0/args","value":["--debug"]}]'
    name = "ci-builder-0"
    installed.must("patch", "deployment", name, "-n", namespace, "--type=json", "-p", edit)
    eventually(lambda: installed.must(*path) == right, within=2.5, what="the args are ours again")
    eventually(
        lambda: "RepairedDrift" in installed.reasons("ci", namespace), within=2, what="an Event"
    )


def test_somebody_elses_annotation_on_a_child_is_left_alone(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    installed.must("annotate", "service", "ci", "-n", namespace, "example.com/note=mine")
    installed.must("annotate", "bkp", "ci", "-n", namespace, "example.com/note=mine")
    looks_again(installed, operator, "ci", namespace)
    service = installed.get("service", "ci", namespace)
    assert service is not None
    assert service["metadata"]["annotations"]["example.com/note"] == "mine"


def test_an_idle_pool_is_never_written_to(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, scaling={"min": 2})

    def versions() -> dict[str, str]:
        objects = children(installed, "ci", namespace)
        pool = installed.get("bkp", "ci", namespace)
        assert pool is not None
        return {n: o["metadata"]["resourceVersion"] for n, o in objects.items()} | {
            "pool": pool["metadata"]["resourceVersion"]
        }

    before = at_rest(versions)  # the Deployments' own controllers have had their say
    looks_again(installed, operator, "ci", namespace)
    assert versions() == before


def test_a_pool_that_refers_to_a_secret_of_its_own_is_left_alone_too(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    bundle = {"secret": {"name": "ci-client-default", "key": "ca.crt"}}
    registries = [{"host": "registry.example:5000", "caBundle": bundle}]
    created(installed, namespace, registries=registries)
    looks_again(installed, operator, "ci", namespace)
    secret = installed.get("secret", "ci-client-default", namespace)
    looks_again(installed, operator, "ci", namespace)
    assert installed.get("secret", "ci-client-default", namespace) == secret


def test_a_client_that_is_removed_loses_its_secret(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace, access={"clients": [{"name": "a"}, {"name": "b"}]})
    installed.apply(a_pool("ci", namespace, access={"clients": [{"name": "b"}]}))
    eventually(
        lambda: installed.get("secret", "ci-client-a", namespace) is None,
        within=5,
        what="the Secret of client a is gone",
    )
    assert installed.get("secret", "ci-client-b", namespace) is not None


def test_a_name_that_is_taken_is_a_condition_and_nothing_is_touched(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    data = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "1"}}
    installed.apply({**data, "metadata": {"name": "ci-builder", "namespace": namespace}})
    installed.apply(a_pool("ci", namespace))
    condition = eventually(
        lambda: (
            (c := installed.condition("ci", namespace, "Ready"))
            and c["reason"] == "NameConflict"
            and c
        ),
        within=5,
        what="NameConflict",
    )
    assert f"ConfigMap {namespace}/ci-builder" in condition["message"]
    assert installed.list("deployments", namespace) == []
    theirs = installed.get("configmap", "ci-builder", namespace)
    assert theirs is not None
    assert theirs["data"] == {"mine": "1"}
    installed.must("delete", "configmap", "ci-builder", "-n", namespace)
    eventually(
        lambda: installed.get("deployment", "ci-builder-0", namespace),
        within=15,
        what="the pool is carried out once the name is free",
    )


@pytest.mark.parametrize(
    ("affinity", "said"),
    [
        (
            {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "nodeSelectorTerms",
        ),
        ({"nodeAfinity": {}}, "nodeAfinity"),
        ({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": "x"}}, "expected"),
    ],
    ids=["incomplete", "misspelt", "of another type"],
)
def test_an_object_the_cluster_refuses_is_explained(
    installed: Api, operator: OperatorProcess, namespace: str, affinity: dict[str, Any], said: str
) -> None:
    installed.apply(a_pool("ci", namespace, builders={"affinity": affinity}))
    condition = eventually(
        lambda: (
            (c := installed.condition("ci", namespace, "Ready"))
            and c["reason"] == "ObjectRefused"
            and c
        ),
        within=5,
        what="ObjectRefused",
    )
    assert said in condition["message"]


def test_an_invalid_spec_is_a_condition_and_the_last_good_state_stays(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    created(installed, namespace)
    installed.apply(a_pool("ci", namespace, builders={"config": "[wroker.oci]\nx = 1"}))
    condition = eventually(
        lambda: (
            (c := installed.condition("ci", namespace, "Accepted")) and c["status"] == "False" and c
        ),
        within=5,
        what="Accepted=False",
    )
    assert "spec.builders.config" in condition["message"]
    assert "wroker" in condition["message"]
    assert installed.get("deployment", "ci-builder-0", namespace) is not None
    installed.apply(a_pool("ci", namespace))
    eventually(
        lambda: installed.condition("ci", namespace, "Accepted")["status"] == "True",
        within=5,
        what="the spec is accepted again",
    )


def test_a_missing_secret_is_named_and_its_arrival_noticed(
    installed: Api, operator: OperatorProcess, namespace: str
) -> None:
    registries = [{"host": "registry.example:5000", "caBundle": {"secret": {"name": "their-ca"}}}]
    installed.apply(a_pool("ci", namespace, registries=registries))
    ready = lambda: installed.condition("ci", namespace, "Ready")  # noqa: E731
    eventually(lambda: ready().get("reason") == "SecretNotFound", within=5, what="SecretNotFound")
    assert f"Secret {namespace}/their-ca" in ready()["message"]
    secret = ["create", "secret", "generic", "their-ca", "-n", namespace]
    installed.must(*secret, "--from-literal=ca.crt=x")
    eventually(lambda: ready()["reason"] != "SecretNotFound", within=5, what="the Secret is seen")


def test_what_the_cluster_itself_changes_is_told_once_and_left_alone(
    installed: Api, operator: OperatorProcess, namespace: str, devcluster: list[str]
) -> None:
    """An admission webhook that adds a toleration: writing it away again would never end."""
    item = {"key": "example.com/added", "operator": "Exists"}
    path = "/spec/template/spec/tolerations/-"
    with a_webhook(installed, namespace, lambda _: [{"op": "add", "path": path, "value": item}]):
        tolerations = [{"key": "example.com/ours", "operator": "Exists"}]
        probe = a_deployment(namespace, tolerations)
        eventually(
            lambda: "example.com/added" in dry_run(installed, probe),
            within=30,
            what="the API server knows the webhook",
        )
        created(installed, namespace, builders={"tolerations": tolerations})
        eventually(
            lambda: "Overruled" in installed.reasons("ci", namespace), within=30, what="an Event"
        )

        def version() -> str:
            deployment = installed.get("deployment", "ci-builder-0", namespace)
            assert deployment is not None
            found: str = deployment["metadata"]["resourceVersion"]
            return found

        before = at_rest(version)
        looks_again(installed, operator, "ci", namespace)
        assert version() == before
        assert "RepairedDrift" not in installed.reasons("ci", namespace)


def a_deployment(namespace: str, tolerations: list[dict[str, Any]]) -> dict[str, Any]:
    labels = {"app": "probe"}
    container = {"name": "probe", "image": "registry.example/probe"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "tolerations": tolerations},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def dry_run(api: Api, obj: dict[str, Any]) -> str:
    """What the cluster would make of an object."""
    create = ("create", "--dry-run=server", "-o", "yaml", "-f", "-")
    return api.kubectl(*create, stdin=yaml.safe_dump(obj)).stdout
