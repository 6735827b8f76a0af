"""Operator and gateway may do what they do and nothing else: rules against the API's audit log.

Runs last in the tier (conftest.py), because the tests before it are what makes them use their
rights. The log is the devcluster's; other clusters are not asked for theirs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, PROJECT, Api, eventually
from devcluster.layout import layout

ACCOUNTS = (OPERATOR_ACCOUNT, f"{OPERATOR_ACCOUNT}-gateway")
OPERATOR, GATEWAY = (f"system:serviceaccount:{OPERATOR_NAMESPACE}:{name}" for name in ACCOUNTS)


class Right(NamedTuple):
    """To do this with that kind of object."""

    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.group and f'.{self.group}'}"


class Request(NamedTuple):
    """A right that was needed, and where."""

    right: Right
    namespace: str | None
    """None: in all of them."""


NEVER_A_REQUEST = {
    # Where the admission plugin OwnerReferencesPermissionEnforcement is on, it looks for it: who
    # makes an owner wait for an object at its deletion has to have a say in its finalizers.
    Right("update", "buildpool.dev", "buildkitpools/finalizers"),
}


@pytest.fixture(scope="module", params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> str:
    """Whose rights are judged."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def rules(account: str) -> dict[str, set[Right]]:
    """What the installation grants the account, by the kind of role that grants it."""
    documents = yaml.safe_load_all((PROJECT / "manifests/kustomize/rbac.yaml").read_text())
    objects = {(o["kind"], o["metadata"]["name"]): o for o in documents}
    granted: dict[str, set[Right]] = {}
    for (kind, _), binding in objects.items():
        if not kind.endswith("Binding"):
            continue
        if account in [subject["name"] for subject in binding["subjects"]]:
            role = objects[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
            granted.setdefault(role["kind"], set()).update(rights_in(role["rules"]))
    return granted


@pytest.fixture(scope="module")
def requests(request: pytest.FixtureRequest, account: str) -> set[Request]:
    """What the account's processes of all tests have needed."""
    if "DEVCLUSTER_NAME" not in os.environ:
        pytest.skip("only the devcluster's audit log is known")
    tier = {item.path.name for item in request.session.items}
    if missing := {file.name for file in Path(__file__).parent.glob("test_*.py")} - tier:
        pytest.skip(f"needs the whole tier; not run: {', '.join(sorted(missing))}")
    log = layout(os.environ["DEVCLUSTER_NAME"], os.environ, Path.home()).audit_log
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{account}"
    return {needed for file in log.parent.glob("audit*.log") for needed in needed_in(file, user)}


def rights_in(rules: list[dict[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        assert "resourceNames" not in rule, "the audit log is not compared by name"
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield from (Right(verb, group, resource) for verb in rule["verbs"])


def needed_in(log: Path, user: str) -> Iterator[Request]:
    # The last line may be in the midst of being written.
    for line in log.read_text().rpartition("\n")[0].splitlines():
        entry = json.loads(line)
        target = entry.get("objectRef", {})
        # Discovery has no resource: every ServiceAccount may discover.
        if entry["user"]["username"] != user or "resource" not in target:
            continue
        parts = (target["resource"], target.get("subresource"))
        resource, group = "/".join(filter(None, parts)), target.get("apiGroup", "")
        yield Request(Right(entry["verb"], group, resource), target.get("namespace"))
        if entry["verb"] == "patch" and entry["responseStatus"].get("code") == 201:
            # An apply of what did not exist: see the last test of this module.
            yield Request(Right("create", group, resource), target.get("namespace"))


def test_nothing_is_asked_for_that_is_not_granted(
    requests: set[Request], rules: dict[str, set[Right]]
) -> None:
    """Not "refused": an API server that has just started refuses what it grants a moment later."""
    everywhere, at_home = rules["ClusterRole"], rules["ClusterRole"] | rules["Role"]
    assert requests
    assert {
        f"{request.right} in {request.namespace or 'all namespaces'}"
        for request in requests
        if request.right not in (at_home if request.namespace == OPERATOR_NAMESPACE else everywhere)
    } == set()


def test_nothing_is_granted_that_is_never_used(
    requests: set[Request], rules: dict[str, set[Right]]
) -> None:
    used = {request.right for request in requests}
    assert set(map(str, rules["ClusterRole"] - used - NEVER_A_REQUEST)) == set()
    used_at_home = {r.right for r in requests if r.namespace == OPERATOR_NAMESPACE}
    assert set(map(str, rules["Role"] - used_at_home)) == set()


def may(api: Api, user: str, verb: str, resource: str, *where: str) -> str:
    """ "yes" or "no"."""
    kind, _, subresource = resource.partition("/")
    question = [verb, kind, f"--as={user}", f"--subresource={subresource}", *where]
    return api.kubectl("auth", "can-i", *question).stdout.strip()


FORBIDDEN = {
    "reads the Secrets of others": ("list", "secrets", "--namespace=kube-system"),
    "watches Secrets, not even its own": ("watch", "secrets", f"--namespace={OPERATOR_NAMESPACE}"),
    "removes a pod": ("delete", "pods", "--all-namespaces"),
    "enters a pod": ("create", "pods/exec", "--all-namespaces"),
    "makes a pool": ("create", "buildkitpools", "--all-namespaces"),
    "changes its own rights": ("patch", "roles", f"--namespace={OPERATOR_NAMESPACE}"),
    "acts as somebody else": ("impersonate", "serviceaccounts", "--all-namespaces"),
}


@pytest.mark.parametrize("question", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_operator_never(installed: Api, question: tuple[str, ...]) -> None:
    assert may(installed, OPERATOR, *question) == "no"


FORBIDDEN_AT_THE_GATEWAY = {
    "reads the Secrets of others": ("list", "secrets", "--namespace=kube-system"),
    "writes a Secret, not even its own": ("patch", "secrets", f"--namespace={OPERATOR_NAMESPACE}"),
    "makes a Secret": ("create", "secrets", f"--namespace={OPERATOR_NAMESPACE}"),
    "changes a pool": ("patch", "buildkitpools", "--all-namespaces"),
    "changes a pod": ("patch", "pods", "--all-namespaces"),
    "removes a pod": ("delete", "pods", "--all-namespaces"),
    "enters a pod": ("create", "pods/exec", "--all-namespaces"),
    "leads": ("patch", "leases", f"--namespace={OPERATOR_NAMESPACE}"),
    "changes its own rights": ("patch", "roles", f"--namespace={OPERATOR_NAMESPACE}"),
    "acts as somebody else": ("impersonate", "serviceaccounts", "--all-namespaces"),
}


@pytest.mark.parametrize(
    "question", FORBIDDEN_AT_THE_GATEWAY.values(), ids=FORBIDDEN_AT_THE_GATEWAY
)
def test_the_gateway_never(installed: Api, question: tuple[str, ...]) -> None:
    assert may(installed, GATEWAY, *question) == "no"


USERS = {
    "a viewer sees pools": ("view", "list", "buildkitpools", "yes"),
    "a viewer sees their status": ("view", "get", "buildkitpools/status", "yes"),
    "a viewer changes no pool": ("view", "patch", "buildkitpools", "no"),
    "a viewer scales no pool": ("view", "patch", "buildkitpools/scale", "no"),
    "an editor makes pools": ("edit", "create", "buildkitpools", "yes"),
    "an editor scales pools": ("edit", "patch", "buildkitpools/scale", "yes"),
    "an editor sees pools": ("edit", "watch", "buildkitpools", "yes"),
    "an editor tells no lies about them": ("edit", "patch", "buildkitpools/status", "no"),
    "an administrator removes pools": ("admin", "deletecollection", "buildkitpools", "yes"),
}


@pytest.mark.parametrize(("role", "verb", "resource", "expected"), USERS.values(), ids=USERS)
def test_of_those_who_have_the_usual_roles(
    installed: Api, namespace: str, role: str, verb: str, resource: str, expected: str
) -> None:
    them = ("them", f"--clusterrole={role}", "--user=them")
    installed.must("create", "rolebinding", *them, at(namespace))
    eventually(
        lambda: may(installed, "them", "list", "buildkitpools", at(namespace)) == "yes",
        within=30,
        what="the API server knows of the role, in which all may see",
    )
    assert may(installed, "them", verb, resource, at(namespace)) == expected


APPLIES = {
    "patch alone does not create": ("patch", "is forbidden"),
    "create alone does not apply": ("create", 'cannot patch resource "configmaps"'),
    "create and patch do": ("create,patch", ""),
}


@pytest.mark.parametrize(("verbs", "refusal"), APPLIES.values(), ids=APPLIES)
def test_an_apply_of_what_is_not_there_needs_two_rights(
    installed: Api, namespace: str, verbs: str, refusal: str
) -> None:
    """The audit log shows a patch and nothing else: so much for the ``create`` in the rules."""
    role = ("they", f"--verb={verbs}", "--resource=configmaps")
    installed.must("create", "role", *role, at(namespace))
    installed.must("create", "rolebinding", "they", "--role=they", "--user=they", at(namespace))
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}
    apply = ("apply", "--server-side", "--as=they", at(namespace), "-f", "-")

    def is_answered() -> bool:
        answer = installed.kubectl(*apply, stdin=yaml.safe_dump(obj))
        return refusal in answer.stderr and (answer.returncode == 0) == (not refusal)

    # The authorizer hears of a new role a moment later.
    eventually(is_answered, within=30, what=refusal or "it is applied")


def at(namespace: str) -> str:
    return f"--namespace={namespace}"
