from __future__ import annotations

from typing import Any

import pytest

from buildpool.core.api import Reason
from buildpool.core.objects.pods import is_ready
from buildpool.core.objects.refs import Object
from buildpool.core.reporting.diagnosis import diagnose
from buildpool.core.words import Finding
from samples import IMAGE, a_pod

CRASH_LOOP = (
    "CrashLoopBackOff",
    "back-off 10s restarting failed container=buildkitd pod=ci-builder-0-7c9d8b6f5d-x2x7k_builds",
)


def refused(message: str) -> Object:
    """A builder's Deployment whose pod the API server does not let in."""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    return {"status": {"conditions": [condition | {"message": message}]}}


def ended(code: int, said: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "message": said}


# What happened: the Deployment and the pods as the API shows them, then reason and remedy.
CASES: dict[str, tuple[Object | None, list[Object], Reason, str]] = {
    "Pod Security refuses the pod": (
        refused(
            'pods "ci-builder-0-868c54bf5f-c2dnv" is forbidden: violates PodSecurity '
            '"baseline:latest": forbidden AppArmor profile (container "buildkitd" must not set '
            'AppArmor profile type to "Unconfined")'
        ),
        [],
        Reason.POD_REFUSED,
        "label the namespace pod-security.kubernetes.io/enforce=privileged",
    ),
    "the quota is used up": (
        refused(
            'pods "ci-builder-0-65bbb5d676-lshc9" is forbidden: exceeded quota: compute, '
            "requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1"
        ),
        [],
        Reason.POD_REFUSED,
        "raise the quota or lower builders.resources",
    ),
    "the quota wants resources to be said": (
        refused(
            'pods "ci-builder-0-8479bddfc-2v6wt" is forbidden: failed quota: compute: must '
            "specify requests.cpu for: buildkitd"
        ),
        [],
        Reason.POD_REFUSED,
        "set requests and limits of all that the quota asks for in builders.resources",
    ),
    "there is no such service account": (
        refused(
            'pods "ci-builder-0-5bfd689879-" is forbidden: error looking up service account '
            'builds/builder: serviceaccount "builder" not found'
        ),
        [],
        Reason.POD_REFUSED,
        "create it or correct builders.serviceAccountName",
    ),
    "there is no such priority": (
        refused(
            'pods "ci-builder-0-ff9674d9f-" is forbidden: no PriorityClass with name high was found'
        ),
        [],
        Reason.POD_REFUSED,
        "create it or correct builders.priorityClassName",
    ),
    "there is no such runtime": (
        refused(
            'pods "ci-builder-0-755fdf5fc4-" is forbidden: pod rejected: RuntimeClass "gvisor" '
            "not found"
        ),
        [],
        Reason.POD_REFUSED,
        "create it or correct builders.runtimeClassName",
    ),
    "a webhook refuses the pod": (
        refused('admission webhook "validate.kyverno.svc-fail" denied the request'),
        [],
        Reason.POD_REFUSED,
        "ask whoever runs the admission policies of the cluster",
    ),
    "no node has room": (
        None,
        [a_pod(unschedulable="0/3 nodes are available: 3 Insufficient cpu.")],
        Reason.UNSCHEDULABLE,
        "3 Insufficient cpu; lower builders.resources",
    ),
    "there is no node at all": (
        None,
        [a_pod(unschedulable="no nodes available to schedule pods")],
        Reason.UNSCHEDULABLE,
        "no nodes available to schedule pods; lower builders.resources",
    ),
    "no node has the architecture": (
        None,
        [
            a_pod(
                unschedulable="0/2 nodes are available: 2 node(s) didn't match Pod's node "
                "affinity/selector."
            )
        ],
        Reason.UNSCHEDULABLE,
        "correct builders.architecture, nodeSelector",
    ),
    "nobody provides the volume": (
        None,
        [
            a_pod(
                unschedulable="0/1 nodes are available: pod has unbound immediate "
                "PersistentVolumeClaims."
            )
        ],
        Reason.UNSCHEDULABLE,
        "correct builders.storage.volumeClaim or the StorageClass",
    ),
    "the image does not exist": (
        None,
        [
            a_pod(
                waiting=(
                    "ErrImagePull",
                    'rpc error: code = NotFound desc = failed to pull image "r/b:v9": not found',
                )
            )
        ],
        Reason.IMAGE_PULL_FAILED,
        f"image {IMAGE} cannot be pulled (ErrImagePull)",
    ),
    "the registry wants credentials": (
        None,
        [a_pod(waiting=("ImagePullBackOff", 'Back-off pulling image "r/b:v9"'))],
        Reason.IMAGE_PULL_FAILED,
        "give builders.imagePullSecrets if the registry asks for credentials",
    ),
    "the image may not be pulled and is not there": (
        None,
        [a_pod(waiting=("ErrImageNeverPull", "Container image is not present with pull policy"))],
        Reason.IMAGE_PULL_FAILED,
        "correct builders.image",
    ),
    "the image of the first container is missing, too": (
        None,
        [a_pod(init=True, waiting=("ErrImagePull", "not found"))],
        Reason.IMAGE_PULL_FAILED,
        "correct builders.image",
    ),
    "a Secret of env is missing": (
        None,
        [a_pod(waiting=("CreateContainerConfigError", 'secret "proxy" not found'))],
        Reason.SECRET_NOT_FOUND,
        'secret "proxy" not found; correct builders.env or builders.tracing, or create it',
    ),
    "a Secret of env lacks the key": (
        None,
        [
            a_pod(
                waiting=(
                    "CreateContainerConfigError",
                    "couldn't find key url in Secret builds/proxy",
                )
            )
        ],
        Reason.SECRET_NOT_FOUND,
        "couldn't find key url in Secret builds/proxy",
    ),
    "a ConfigMap of env is missing": (
        None,
        [a_pod(waiting=("CreateContainerConfigError", 'configmap "proxy" not found'))],
        Reason.CONFIG_MAP_NOT_FOUND,
        'configmap "proxy" not found',
    ),
    "a ConfigMap of env lacks the key": (
        None,
        [
            a_pod(
                waiting=(
                    "CreateContainerConfigError",
                    "couldn't find key url in ConfigMap builds/proxy",
                )
            )
        ],
        Reason.CONFIG_MAP_NOT_FOUND,
        "couldn't find key url in ConfigMap builds/proxy",
    ),
    "the runtime cannot make the container": (
        None,
        [a_pod(waiting=("CreateContainerError", "context deadline exceeded"))],
        Reason.BUILDER_CRASHING,
        "the container cannot be created: context deadline exceeded",
    ),
    "the daemon ends again and again": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(1, "buildkitd: starting\nbuildkitd: unknown flag: --oops\n"),
                restarts=7,
            )
        ],
        Reason.BUILDER_CRASHING,
        "its daemon ended with exit code 1 (Error), 7 restarts: buildkitd: unknown flag: --oops; ",
    ),
    "it starts again, but not for the first time": (
        None,
        [a_pod(ended=ended(1, "oops"), restarts=1)],
        Reason.BUILDER_CRASHING,
        "1 restart: oops",
    ),
    "it ends without a word": (
        None,
        [a_pod(waiting=CRASH_LOOP, ended=ended(2))],
        Reason.BUILDER_CRASHING,
        "it said nothing",
    ),
    "it ends well, again and again": (
        None,
        [a_pod(waiting=CRASH_LOOP, ended=ended(0, reason="Completed"), restarts=3)],
        Reason.BUILDER_CRASHING,
        "ended with exit code 0 (Completed), 3 restarts: it said nothing; read its log",
    ),
    "it ends under rootlesskit, which has the last word": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(
                    1,
                    "buildkitd: invalid snapshotter\nmain.main.func3\n\tmain.go:399\n"
                    "[rootlesskit:child ] error: command [buildkitd] exited: exit status 1\n"
                    "[rootlesskit:parent] error: child exited: exit status 1\n",
                ),
            )
        ],
        Reason.BUILDER_CRASHING,
        "restarts: buildkitd: invalid snapshotter; ",
    ),
    "it runs out of memory": (
        None,
        [a_pod(waiting=CRASH_LOOP, ended=ended(137, reason="OOMKilled"))],
        Reason.BUILDER_CRASHING,
        "raise builders.resources.limits.memory",
    ),
    "the node forbids user namespaces": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(
                    1,
                    "[rootlesskit:parent] error: failed to start the child: fork/exec "
                    "/proc/self/exe: no space left on device; "
                    "user.max_user_namespaces needs to be set",
                ),
            )
        ],
        Reason.BUILDER_CRASHING,
        "raise sysctl user.max_user_namespaces",
    ),
    "AppArmor forbids user namespaces": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(
                    1,
                    "[rootlesskit:parent] error: permission denied: "
                    "kernel.apparmor_restrict_unprivileged_userns",
                ),
            )
        ],
        Reason.BUILDER_CRASHING,
        "set sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "users cannot be mapped": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(
                    1,
                    "[rootlesskit:parent] error: failed to setup UID/GID map: newuidmap 17 "
                    "[0 1000 1 1 100000 65536] failed: newuidmap: write to uid_map failed: "
                    "Operation not permitted",
                ),
            )
        ],
        Reason.BUILDER_CRASHING,
        "allow privilege escalation, or use builders.security: UserNamespace",
    ),
    "two daemons share a volume": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(
                    1,
                    "buildkitd: could not lock /home/user/.local/share/buildkit/buildkitd.lock, "
                    "another instance running?",
                ),
            )
        ],
        Reason.BUILDER_CRASHING,
        "give each builder its own",
    ),
    "the volume is full": (
        None,
        [
            a_pod(
                waiting=CRASH_LOOP,
                ended=ended(1, "buildkitd: write history.db: no space left on device"),
            )
        ],
        Reason.BUILDER_CRASHING,
        "raise builders.storage",
    ),
    "giving the volume to its user fails": (
        None,
        [a_pod(init=True, waiting=CRASH_LOOP, ended=ended(1, "chown: Operation not permitted"))],
        Reason.BUILDER_CRASHING,
        "container volume-owner ended",
    ),
    "the successor of a serving pod cannot be pulled": (
        None,
        [a_pod(suffix="a"), a_pod(suffix="b", waiting=("ErrImagePull", "not found"))],
        Reason.IMAGE_PULL_FAILED,
        "cannot be pulled",
    ),
    "a refusal goes before what the old pod says": (
        refused('exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2"'),
        [a_pod(waiting=CRASH_LOOP, ended=ended(1))],
        Reason.POD_REFUSED,
        "raise the quota",
    ),
}


@pytest.mark.parametrize(("deployment", "pods", "reason", "says"), CASES.values(), ids=CASES)
def test_a_diagnosis_names_the_cause_and_the_remedy(
    deployment: Object | None, pods: list[Object], reason: Reason, says: str
) -> None:
    finding = diagnose(deployment, pods)
    assert finding is not None
    assert finding.reason is reason
    assert says in finding.message
    assert not finding.message.endswith("."), "others put it into a sentence"


NOTHING: dict[str, tuple[Object | None, list[Object]]] = {
    "there is no pod yet": (None, []),
    "there is a Deployment that nobody looked at yet": ({"status": {}}, []),
    "a refusal that is over": (
        {"status": {"conditions": [{"type": "ReplicaFailure", "status": "False"}]}},
        [],
    ),
    "the pod was just made": (None, [{"metadata": {"name": "p"}, "status": {}}]),
    "the image is being pulled": (None, [a_pod(waiting=("ContainerCreating", ""))]),
    "it runs and is not ready yet": (None, [a_pod(ready=False)]),
    "it serves": (None, [a_pod()]),
    "it serves, whatever happened once": (None, [a_pod(ready=True, ended=ended(1), restarts=3)]),
    "it was told to go": (None, [a_pod(terminating=True, waiting=CRASH_LOOP, ended=ended(1))]),
    "it was evicted long ago and has a successor": (
        None,
        [a_pod(suffix="a", phase="Failed", ended=ended(137, "evicted")), a_pod(suffix="b")],
    ),
    "its node was shut down in good order": (
        None,
        [a_pod(phase="Succeeded", ended=ended(1)), a_pod(suffix="b", ready=False)],
    ),
    "it ended well, once": (None, [a_pod(ready=False, ended=ended(0))]),
}


@pytest.mark.parametrize(("deployment", "pods"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_the_matter_when(deployment: Object | None, pods: list[Object]) -> None:
    assert diagnose(deployment, pods) is None


def test_a_long_last_word_is_cut() -> None:
    finding = diagnose(None, [a_pod(waiting=CRASH_LOOP, ended=ended(1, "x" * 4096))])
    assert isinstance(finding, Finding)
    assert len(finding.message) < 500


def test_a_pod_that_is_to_go_is_not_ready() -> None:
    assert is_ready(a_pod())
    assert not is_ready(a_pod(terminating=True))
    assert not is_ready(a_pod(ready=False))
    assert not is_ready({"metadata": {"name": "p"}, "status": {}})
