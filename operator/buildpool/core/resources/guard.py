"""The guard of the managed cache in a builder's pod: a sidecar between the daemon and the registry.

BuildKit takes layers of a cache only when a build comes to need them, and a layer it cannot get
then fails the build. So what it reads of the managed cache goes by the guard (``sidecars.guard``),
which passes on only what is whole, and waits where the registry is restarting (docs/adr/0014).
"""

from __future__ import annotations

from typing import Any, Final

from buildpool.core import naming
from buildpool.core.api import ManagedRegistry, Pool
from buildpool.core.objects.refs import JSON, Object
from buildpool.core.resources.cache import managed_registry
from buildpool.core.resources.common import compute, pulling, restricted
from buildpool.core.resources.secret import certificate_volume

CONTAINER: Final = "cache-guard"
CERTIFICATES: Final = "/etc/buildpool/cache"
"""Where the certificate lies by which the registry knows builders. Renewed without a new pod: the
daemon and the guard read it again."""
ADDRESS: Final = f"localhost:{naming.GUARD_PORT}"


def guard_container(
    pool: Pool, managed: ManagedRegistry, image: str, server_certificates: Object
) -> Object:
    """The sidecar; ``server_certificates`` is the mount of the builders' own certificate."""
    host, keeper = (
        naming.cache_host(pool.key, port) for port in (naming.CACHE_PORT, naming.KEEPER_PORT)
    )
    container: Object = {
        "name": CONTAINER,
        "image": image,
        # A sidecar: up before the daemon, and until the daemon has drained.
        "restartPolicy": "Always",
        "args": [
            "cache-guard",
            f"--registry={host}",
            f"--keeper={keeper}",
            f"--server-certificates={server_certificates['mountPath']}",
            f"--client-certificates={CERTIFICATES}",
            f"--port={naming.GUARD_PORT}",
        ],
        # It listens once the cache answers, or has had its time: the daemon starts after that.
        "startupProbe": {
            "tcpSocket": {"port": naming.GUARD_PORT},
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        **compute(managed.guard_resources),
        "securityContext": restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [server_certificates, guard_mount()],
    }
    return container | pulling(pool)


def guard_mount() -> Object:
    """The mount of the certificate for the cache, in the daemon's container and the guard's."""
    return {"name": "cache", "mountPath": CERTIFICATES, "readOnly": True}


def guard_volume(pool: Pool) -> Object:
    """The volume with the certificate for the cache."""
    return certificate_volume("cache", naming.cache_client(pool.key), mode=0o444)


def guarded_registries(pool: Pool) -> dict[str, Any]:
    """The daemon's registry blocks by which it reads the managed cache past the guard."""
    if managed_registry(pool) is None:
        return {}
    identity = {
        "ca": [f"{CERTIFICATES}/ca.pem"],
        "keypair": [{"key": f"{CERTIFICATES}/key.pem", "cert": f"{CERTIFICATES}/cert.pem"}],
    }
    return {
        naming.cache_host(pool.key): {"mirrors": [ADDRESS], **identity},
        # BuildKit takes localhost for plain HTTP unless told otherwise.
        ADDRESS: {"http": False, "insecure": False, **identity},
    }


def has_guard(pod: JSON) -> bool:
    """Whether the builds of a pod may be reading the managed cache."""
    return any(
        container["name"] == CONTAINER for container in pod["spec"].get("initContainers", ())
    )
