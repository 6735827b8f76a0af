"""Managed caches as tests need them: what builds export to and import from, and ways to harm them.

A build whose steps make noise shows whether they ran, for no two of them make the same.
"""

from __future__ import annotations

import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from buildpool.core.api import Reason
from cluster import Api, at_most, eventually
from e2e.clients import BASE, RELEASE, Client, RunningBuild, client_of
from e2e.operators import operators
from e2e.pools import address_of, is_leaving, serving

BLOBS: Final = "/var/lib/registry/docker/registry/v2/blobs/sha256"
REPOSITORIES: Final = "/var/lib/registry/docker/registry/v2/repositories"
_TRANSFER: Final = re.compile(
    r"(?P<digest>sha256:\w{64}) (?P<here>[\d.]+)[kM]?B / (?P<size>[\d.]+)MB"
)


def managed(size: str, *, storage_class: str | None = None) -> dict[str, Any]:
    """``spec.cache`` with a registry of the pool's own."""
    storage = {"size": size} | ({"storageClassName": storage_class} if storage_class else {})
    return {"registry": {"managed": {"storage": storage}}}


@dataclass(frozen=True, slots=True)
class ManagedCache:
    """The managed cache of one pool."""

    api: Api
    pool: str
    namespace: str

    @property
    def name(self) -> str:
        """What the cache's own objects are called."""
        return f"{self.pool}-cache"

    @property
    def service(self) -> str:
        """The host name of registry and keeper."""
        return f"{self.name}.{self.namespace}.svc"

    @property
    def selector(self) -> str:
        """The labels of the cache's objects."""
        return f"app.kubernetes.io/component=cache,buildpool.dev/pool={self.pool}"

    def imports(self, repository: str) -> list[str]:
        """The options of a build that imports a cache."""
        return ["--import-cache", f"type=registry,ref={self.service}:5000/{repository}:main"]

    def exports(self, repository: str) -> list[str]:
        """The options of a build that exports one; without compression, to spend no time on it."""
        ref = f"type=registry,ref={self.service}:5000/{repository}:main"
        return ["--export-cache", f"{ref},mode=max,ignore-error=true,compression=uncompressed"]

    def builder(self, index: int, folder: Path) -> Client:
        """The pool's client at one of its builders."""
        pod = eventually(
            lambda: serving(self.api, f"{self.pool}-builder-{index}", self.namespace),
            within=60,
            what=f"builder {index} of {self.pool} serves",
        )
        return client_of(self.api, self.pool, self.namespace, folder).at(address_of(pod))

    def pods(self) -> list[dict[str, Any]]:
        """The pods of the registry, leaving ones included."""
        return self.api.list("pods", self.namespace, self.selector)

    def pod(self) -> dict[str, Any]:
        """The pod of the registry that is Ready and stays."""
        pod: dict[str, Any] = eventually(
            lambda: next((p for p in self.pods() if ready_since(p) and not is_leaving(p)), None),
            within=60,
            what=f"{self.name} is Ready",
        )
        return pod

    def restarts(self) -> int:
        """How often the registry was started again in its present pods."""
        return sum(
            container["restartCount"]
            for pod in self.pods()
            for container in pod["status"].get("containerStatuses", ())
            if container["name"] == "registry"
        )

    def requests_held(self, index: int) -> int:
        """How many requests for layers a builder's guard has held until the registry was there."""
        guard = (f"deployment/{self.pool}-builder-{index}", "-c", "cache-guard")
        log = self.api.must("logs", "-n", self.namespace, *guard)
        return len(re.findall(r"/blobs/\S+ was held for [\d.]+ s and then answered", log))

    @contextmanager
    def crash(self) -> Iterator[None]:
        """Ends the registry at once, as a bug in it would; it is up again after the block."""
        pod, before = self.pod()["metadata"]["name"], self.restarts()
        container = ("-n", self.namespace, "-c", "registry")
        # A program that is process 1 gets only signals it handles; Go dies of this one.
        self.api.kubectl("exec", pod, *container, "--", "kill", "-QUIT", "1")
        yield
        eventually(lambda: self.restarts() > before, within=150, what="it is restarted", every=0.5)
        self.pod()

    def run(self, command: str) -> str:
        """Runs a shell command beside the registry's files."""
        pod = self.pod()["metadata"]["name"]
        inside = ("exec", pod, "-n", self.namespace, "-c", "registry", "--", "sh", "-ec", command)
        return self.api.must(*inside)

    def condition(self) -> dict[str, Any]:
        """What the pool says of its cache."""
        return self.api.condition(self.pool, self.namespace, "CacheReady")

    def tells(self, reason: Reason, *words: str, within: float) -> None:
        """Waits until the pool gives this reason, in a message with these words."""
        seen: list[dict[str, Any]] = []

        def is_told() -> bool:
            seen.append(self.condition())
            return seen[-1].get("reason") == reason and all(w in seen[-1]["message"] for w in words)

        try:
            eventually(is_told, within=within, what=f"{self.pool} tells {reason}", every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}; it tells {seen[-1]}") from None
        assert seen[-1]["status"] == str(reason is Reason.CACHE_ANSWERS)

    def repositories(self) -> list[str]:
        """The repositories that have a cache of the tag ``main``."""
        links = f"{REPOSITORIES}/*/_manifests/tags/main/current/link"
        found = self.run(f"ls {links} 2>/dev/null || true").split()
        return [link.removeprefix(f"{REPOSITORIES}/").partition("/")[0] for link in found]

    def blobs(self, repository: str) -> dict[str, int]:
        """The files of the blobs that a repository has, with their sizes."""
        digests = self.run(f"ls {REPOSITORIES}/{repository}/_layers/sha256").split()
        files = " ".join(f"{BLOBS}/{digest[:2]}/{digest}/data" for digest in digests)
        lines = (line.split() for line in self.run(f"stat -c '%n %s' {files}").splitlines())
        return {file: int(size) for file, size in lines}

    def age(self, repository: str, unused: timedelta) -> None:
        """Makes a cache look as if it was used and uploaded so long ago."""
        then = int((datetime.now(UTC) - unused).timestamp())
        files = " ".join(self.blobs(repository))
        links = f"find {REPOSITORIES}/{repository} -name link"
        self.run(f"touch -d @{then} {files}; {links} | xargs touch -d @{then}")

    def metric(self, name: str) -> float:
        """What the operator tells Prometheus of the cache: ``reclaimed_bytes_total``, say."""
        (pod,) = operators(self.api)
        page = f"http://{pod['status']['podIP']}:8080/metrics"
        with urllib.request.urlopen(page, timeout=10) as answer:
            text: str = answer.read().decode()
        labels = f'{{namespace="{self.namespace}",pool="{self.pool}"}}'
        found = re.search(re.escape(f"buildpool_cache_{name}{labels}") + r" (\S+)", text)
        assert found, text
        return float(found[1])


@dataclass(frozen=True, slots=True)
class Noise:
    """What a build makes: layers of noise, of which no two are alike."""

    layers: int
    mebibytes: int
    """Of each layer."""
    salt: str = ""
    """Tells two of the same size apart."""

    @property
    def dockerfile(self) -> str:
        """The build whose cache is exported."""
        return self._dockerfile("")

    @property
    def reading(self) -> str:
        """A build that finds all this in the cache, and reads it."""
        return f"{self.dockerfile}{self._end}"

    @property
    def waiting(self) -> str:
        """The same, but it fetches nothing before it is released.

        It has to run to its gate before it knows that what follows is in the cache: by the content
        of the file that comes out of it.
        """
        wait = f"echo running; nc -l -p {RELEASE} < /dev/null; "
        return f"{self._dockerfile(wait)}{self._end}"

    def stepping(self, steps: int) -> str:
        """The same with so many steps, of which each waits until it is released: see ``gate``."""
        runs = "".join(
            f"RUN echo step {number}; nc -l -p {self.gate(number)} < /dev/null\n"
            for number in range(1, steps + 1)
        )
        return f"{self._dockerfile('', before=runs)}{self._end}"

    @staticmethod
    def gate(step: int) -> int:
        """The port at which a step of ``stepping``, counted from 1, is released."""
        return RELEASE + step

    def _dockerfile(self, wait: str, before: str = "") -> str:
        steps = "".join(
            f"RUN echo {self.salt}; dd if=/dev/urandom of=/noise{number} bs=1M "
            f"count={self.mebibytes}\n"
            for number in range(self.layers)
        )
        gate = f"FROM {BASE} AS gate\n{before}RUN {wait}echo released | tee /released\n"
        return f"{gate}FROM {BASE}\nCOPY --from=gate /released /\n{steps}"

    @property
    def _end(self) -> str:
        return f"RUN echo {uuid4()}; cat /noise* | wc -c\n"

    def is_spared_by(self, progress: str) -> bool:
        """Whether a build that reads it did not have to run any of the steps that make noise.

        BuildKit writes CACHED to such a step, but not always where it has to fetch the layer.
        """
        steps = set(re.findall(r"^#\d+ \[.*if=/dev/urandom", progress, re.MULTILINE))
        assert len(steps) == self.layers, progress
        assert re.search(rf"^#\d+ [\d.]+ {self.layers * self.mebibytes * 2**20}$", progress, re.M)
        return "records out" not in progress

    def on_its_way(self, progress: str) -> set[str]:
        """The layers of it whose transfer has begun and not ended, by digest."""
        states = {
            found["digest"]: found["here"] == found["size"]
            for found in _TRANSFER.finditer(progress)
            if float(found["size"]) > self.mebibytes
        }
        return {digest for digest, is_over in states.items() if not is_over}


@contextmanager
def build_of(command: list[str], folder: Path) -> Iterator[RunningBuild]:
    """A build that goes on beside the test; it has to be over at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    build = RunningBuild(command, folder / "progress.log")
    try:
        yield build
        assert not build.is_running
    finally:
        if build.is_running:
            build.process.kill()
        build.process.wait(timeout=10)


@contextmanager
def a_small_disk(api: Api, namespace: str, *, claim: str) -> Iterator[str]:
    """96 MiB and not a byte more, for one claim; the storage class to be named in it.

    The kubelet makes a tmpfs for a pod, and removes it with the pod; a volume is made of its path.
    """
    name = f"disk-of-{namespace}"
    metadata = {"name": "disk", "namespace": namespace}
    container = {
        "name": "holder",
        "image": BASE,
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
    }
    volume = {"name": "disk", "emptyDir": {"medium": "Memory", "sizeLimit": "96Mi"}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    api.must("wait", "pod/disk", "-n", namespace, "--for=condition=Ready", at_most(60))
    uid = api.must("get", "pod", "disk", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    path = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/disk"
    persistent = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "96Mi"},
        "claimRef": {"namespace": namespace, "name": claim},
        "hostPath": {"path": path, "type": "Directory"},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": name,
    }
    kind = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    api.apply({**kind, "spec": persistent})
    try:
        yield name
    finally:
        # It goes with its claim, and that with its namespace.
        api.must("delete", "pv", name, "--wait=false")


def is_answered(host: str, port: int, path: str, context: ssl.SSLContext) -> bool:
    """Whether a request is answered; if not, a client is turned down by an alert or the end."""
    with (
        socket.create_connection((host, port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        try:
            secured.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return secured.recv(12) == b"HTTP/1.1 200"
        except (ssl.SSLError, ConnectionError):
            return False


def ready_since(pod: dict[str, Any]) -> str | None:
    """When a pod became Ready, to the second, in the order of time; None: it is not."""
    conditions = pod.get("status", {}).get("conditions", [])
    times = (
        c["lastTransitionTime"]
        for c in conditions
        if c["type"] == "Ready" and c["status"] == "True"
    )
    return next(times, None)
