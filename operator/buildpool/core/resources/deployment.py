"""One builder: a Deployment of one pod with a rootless ``buildkitd`` in it.

One Deployment per builder rather than one for all (docs/adr/0004): the idle one can be chosen, it
can keep its volume, and replacing a lost pod is left to Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import CaBundle, Pool, Registry, Security
from buildpool.core.objects.pods import CONTAINER
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Bundle
from buildpool.core.resources import config, guard, scripts, tracing
from buildpool.core.resources.cache import managed_registry
from buildpool.core.resources.common import (
    compute,
    digest,
    fingerprint,
    owned_metadata,
    pulling,
    restricted,
    sealed,
)
from buildpool.core.resources.secret import certificate_volume

GRACE_MARGIN: Final = timedelta(minutes=1)
"""On top of the longest build: for the pause before draining and for the daemon's own exit."""
ROOTLESS_USER: Final = 1000
"""The user of the rootless image; another one would need another image (BuildKit, rootless.md)."""

STATE_DIRECTORY: Final = {
    Security.ROOTLESS: "/home/user/.local/share/buildkit",
    Security.USER_NAMESPACE: "/var/lib/buildkit",
}


def builder_deployment(
    pool: Pool, index: int, *, image: str, certificate: Bundle, revision: str
) -> Object:
    """The Deployment of one builder. Its pod never changes: what changes makes another builder.

    ``image`` is the operator's own, for the guard of a managed cache. ``certificate`` is what the
    builders serve with: the daemon reads it once, so that a new one makes a new revision.
    ``revision`` is that of all builders (``builder_revision``).
    """
    name = naming.builder(pool.key, index)
    labels = {naming.LABEL_BUILDER: name}
    template = _template(pool, index, image=image, certificate=certificate)
    template["metadata"]["annotations"][naming.ANNOTATION_REVISION] = revision
    return sealed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": owned_metadata(
                pool, name, component=naming.COMPONENT_BUILDER, labels=labels
            ),
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {**naming.builder_selector(pool.key), **labels}},
                # Only where somebody else has edited the pod: two pods cannot share one cache.
                "strategy": {"type": "Recreate"}
                if pool.spec.builders.storage.volume_claim is not None
                else {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "template": template,
            },
        }
    )


def builder_revision(pool: Pool, *, image: str, certificate: Bundle) -> str:
    """What a builder of this pool runs, as a fingerprint: the same for all, whatever their number.

    A builder of another revision is to be replaced.
    """
    return fingerprint(_template(pool, 0, image=image, certificate=certificate))


def _template(pool: Pool, index: int, *, image: str, certificate: Bundle) -> Object:
    builders = pool.spec.builders
    inputs = config.daemon_toml(pool).encode() + certificate.trust + certificate.pair.certificate
    return {
        "metadata": {
            "labels": {
                **builders.pod_labels,
                **naming.pool_labels(pool.key),
                **naming.builder_selector(pool.key),
                naming.LABEL_BUILDER: naming.builder(pool.key, index),
                naming.LABEL_SERVING: "true",
            },
            "annotations": dict(builders.pod_annotations),
        },
        "spec": _pod(pool, index, image, digest(inputs)),
    }


def revision_of(deployment: Object) -> str:
    """The revision a builder is meant to run; empty where it is not one of ours."""
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    revision = annotations.get(naming.ANNOTATION_REVISION, "")
    return str(revision)


def _pod(pool: Pool, index: int, image: str, inputs: str) -> Object:
    builders = pool.spec.builders
    grace = builders.max_build_duration + GRACE_MARGIN
    pod: Object = {
        # Never absent: the API server keeps the last name in a second field and restores it.
        "serviceAccountName": builders.service_account_name or "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(grace.total_seconds()),
        "nodeSelector": {
            "kubernetes.io/arch": builders.architecture.value,
            **builders.node_selector,
        },
        "containers": [_container(pool)],
        "volumes": _volumes(pool, index),
    }
    if builders.security is Security.USER_NAMESPACE:
        pod["hostUsers"] = False
    if not _has_process_sandbox(pool):
        # The pod's first process reaps what steps have left; rootlesskit, the daemon's, does not.
        pod["shareProcessNamespace"] = True
    pod["initContainers"] = list(_first_containers(pool, image, inputs))
    optional: Object = {
        "priorityClassName": builders.priority_class_name,
        "runtimeClassName": builders.runtime_class_name,
        "affinity": deepcopy(builders.affinity),
        "imagePullSecrets": [secret.to_dict() for secret in builders.image_pull_secrets],
        "tolerations": [toleration.to_dict() for toleration in builders.tolerations],
        "topologySpreadConstraints": [
            {
                **constraint.to_dict(),
                "labelSelector": {"matchLabels": naming.builder_selector(pool.key)},
            }
            for constraint in builders.topology_spread_constraints
        ],
    }
    return pod | {field: value for field, value in optional.items() if value}


def _first_containers(pool: Pool, image: str, inputs: str) -> Iterator[Object]:
    """What runs before the daemon, or beside it from the start, in this order."""
    yield _inputs(pool, inputs)
    if pool.spec.builders.storage.volume_claim is not None:
        if pool.spec.builders.security is Security.ROOTLESS:
            yield _volume_owner(pool)
        yield _volume_free(pool)
    if (managed := managed_registry(pool)) is not None:
        yield guard.guard_container(pool, managed, image, _certificates())


def _container(pool: Pool) -> Object:
    builders = pool.spec.builders
    socket = config.SOCKET[builders.security]
    drain = scripts.drain(socket, naming.PORT, unset=tracing.names(pool))
    container: Object = {
        "name": CONTAINER,
        "image": builders.resolved_image,
        "args": ["--config", f"{config.CONFIG}/{config.FILE}"],
        "ports": [{"name": "buildkit", "containerPort": naming.PORT, "protocol": "TCP"}],
        "securityContext": _security_context(builders.security),
        # Fast to Ready, then rarely. And no liveness probe: a daemon slow under load is a busy one,
        # and killing it would kill its builds; one that dies is restarted anyway.
        "startupProbe": _probe(pool, socket, period=1, timeout=5, failures=120),
        "readinessProbe": _probe(pool, socket, period=15, timeout=10, failures=3, cleans_up=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", drain]}}},
        "volumeMounts": _mounts(pool),
    }
    optional: Object = {
        "env": tracing.environment(pool),
        **compute(builders.resources),
        **pulling(pool),
    }
    return container | {field: value for field, value in optional.items() if value}


def _probe(
    pool: Pool, socket: str, *, period: int, timeout: int, failures: int, cleans_up: bool = False
) -> Object:
    unset = [word for name in tracing.names(pool) for word in ("-u", name)]
    without = ["env", *unset] if unset else []
    ask = ["buildctl", "--addr", socket, "debug", "info"]
    if cleans_up and not _has_process_sandbox(pool):
        ask = ["sh", "-c", scripts.clean_up(ask)]
    return {
        "exec": {"command": [*without, *ask]},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _has_process_sandbox(pool: Pool) -> bool:
    """Whether the kernel itself ends what a step leaves behind."""
    return pool.spec.builders.security is not Security.ROOTLESS


def _security_context(security: Security) -> Object:
    if security is Security.USER_NAMESPACE:
        # Privileged inside its own user namespace only: root there is nobody on the node.
        return {"privileged": True}
    return {
        # RUN steps unshare and mount: the default profiles forbid both, even without any privilege.
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
        "runAsUser": ROOTLESS_USER,
        "runAsGroup": ROOTLESS_USER,
        "runAsNonRoot": True,
    }


def _certificates() -> Object:
    return {"name": "certificates", "mountPath": config.CERTIFICATES, "readOnly": True}


def _config() -> Object:
    return {"name": "config", "mountPath": config.CONFIG, "readOnly": True}


def _mounts(pool: Pool) -> list[Object]:
    mounts: list[Object] = [
        {"name": "state", "mountPath": STATE_DIRECTORY[pool.spec.builders.security]},
        _certificates(),
        _config(),
    ]
    for number, (registry, _) in enumerate(_trusting(pool)):
        path = config.registry_directory(registry.host)
        mounts.append({"name": f"registry-{number}", "mountPath": path, "readOnly": True})
    if managed_registry(pool) is not None:
        mounts.append(guard.guard_mount())
    return mounts


def _volumes(pool: Pool, index: int) -> list[Object]:
    storage = pool.spec.builders.storage
    state: Object
    if storage.volume_claim is not None:
        state = {"persistentVolumeClaim": {"claimName": naming.builder_volume(pool.key, index)}}
    else:
        state = {"emptyDir": {"sizeLimit": storage.size}}
    volumes: list[Object] = [
        {"name": "state", **state},
        # Readable by user 1000 without fsGroup: that would set the group bit on the state volume,
        # BuildKit's snapshots would inherit it, and so would the images built from them.
        certificate_volume("certificates", naming.builder_certificate(pool.key), mode=0o444),
        {"name": "config", "configMap": {"name": naming.builder_config(pool.key)}},
    ]
    for number, (_, bundle) in enumerate(_trusting(pool)):
        # Whole volumes, not subPath: only these follow a change of the source, and BuildKit reads a
        # CA again at every use.
        volumes.append({"name": f"registry-{number}", **_ca_source(bundle)})
    if managed_registry(pool) is not None:
        volumes.append(guard.guard_volume(pool))
    return volumes


def _trusting(pool: Pool) -> list[tuple[Registry, CaBundle]]:
    """The registries with a CA of their own, numbered by the caller: a host names no volume."""
    return [(r, r.ca_bundle) for r in pool.spec.registries if r.ca_bundle is not None]


def _ca_source(bundle: CaBundle) -> Object:
    if bundle.kind == "Secret":
        return {"secret": {"secretName": bundle.source.name}}
    return {"configMap": {"name": bundle.source.name}}


def _inputs(pool: Pool, expected: str) -> Object:
    """See ``scripts.inputs``."""
    files = (
        f"{config.CONFIG}/{config.FILE}",
        f"{config.CERTIFICATES}/ca.pem",
        f"{config.CERTIFICATES}/cert.pem",
    )
    script = scripts.inputs(files, expected)
    if pool.spec.builders.security is Security.USER_NAMESPACE:
        script = scripts.nobody_on_its_node() + script
    container = _init_container(pool, "inputs", ["sh", "-c", script], restricted())
    container["volumeMounts"] = [_certificates(), _config()]
    return container


def _volume_owner(pool: Pool) -> Object:
    """Gives a new volume to the rootless user: storage drivers hand it out as root's."""
    command = ["chown", f"{ROOTLESS_USER}:{ROOTLESS_USER}", STATE_DIRECTORY[Security.ROOTLESS]]
    rights = {
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    return _init_container(pool, "volume-owner", command, rights)


def _volume_free(pool: Pool) -> Object:
    """Waits until the predecessor has left the volume: it may drain for hours, on this very node.

    A daemon that finds the lock taken would end, again and again, and then be restarted late.
    """
    wait = scripts.volume_free(f"{STATE_DIRECTORY[pool.spec.builders.security]}/buildkitd.lock")
    rights = _security_context(pool.spec.builders.security)
    return _init_container(pool, "volume-free", ["sh", "-c", wait], rights)


def _init_container(pool: Pool, name: str, command: list[str], rights: Object) -> Object:
    builders = pool.spec.builders
    return {
        "name": name,
        "image": builders.resolved_image,
        "command": command,
        "securityContext": rights,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "state", "mountPath": STATE_DIRECTORY[builders.security]}],
        # A quota wants to know of every container. It costs nothing: these run before the daemon.
        **compute(builders.resources),
        **pulling(pool),
    }
