"""The rim: asks the API server through the user's own kubectl.

So contexts, proxies, and programs that log the user in work as they do for kubectl itself.
"""

from __future__ import annotations

import codecs
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from buildpool.client.parsing import (
    Seen,
    cluster_in,
    date_in,
    is_namespace,
    parsed,
    path_in,
    pool_in,
    pools_in,
)
from buildpool.client.refusals import Hearing, no_cluster, no_kubectl, no_pool, refusal
from buildpool.client.values import Cluster
from buildpool.core import naming
from buildpool.core.api.pool import NAME_RULE
from buildpool.core.errors import BuildpoolError, NotFoundError
from buildpool.core.naming import PoolKey

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod finds about the identity that it has."""
_MOST_BYTES: Final = 64 * 2**20
"""Of one answer: many times a page of the largest pools."""
_LISTENS_ON_SECONDS: Final = 5.0
"""For errors, after kubectl has ended."""
_PAGE: Final = 200
"""Pools that are asked for at once."""
_API: Final = f"/apis/{naming.API_VERSION}"
_MOST_PAGES: Final = 200
"""That a list has: an answer without an end is none."""
_MOST_SECONDS: Final = 300.0
"""For one answer, which a user may have to log in for.

Not by a flag: in a pod without a kubeconfig, kubectl uses the pod's identity only if it has none.
"""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The user's kubectl."""

    program: str
    most_seconds: float = _MOST_SECONDS
    """How long an answer may take."""

    @classmethod
    def found(cls) -> Kubectl:
        """The one on the PATH."""
        program = shutil.which("kubectl")
        if program is None:
            raise no_kubectl()
        return cls(program)

    def cluster(self, *, namespace: str, context: str, kubeconfig: str) -> Cluster:
        """The cluster that flags name; without any, the current one, or that of this pod."""
        if namespace and not is_namespace(namespace):
            raise BuildpoolError(
                f"{namespace!r} is no name of a namespace: use at most 63 lower-case letters, "
                "digits and hyphens inside"
            )
        file = str(Path(kubeconfig).absolute()) if kubeconfig else ""
        flags = Cluster("", context, file).flags
        code, out, err = self._run(*flags, "config", "view", "--minify", "-o", "json")
        if code == 0:
            found = cluster_in(out, namespace=namespace, kubeconfig=file)
            if found.context:
                return found
        if not flags and is_in_a_pod():
            return Cluster(namespace or _own_namespace())
        raise no_cluster(err)

    def pool(self, cluster: Cluster, name: str) -> Seen:
        """One pool."""
        if not NAME_RULE.holds(name):
            raise BuildpoolError(f"{name!r} is no name of a pool: {NAME_RULE.remedy}")
        key = PoolKey(cluster.namespace, name)
        path = f"{_API}/namespaces/{key.namespace}/{naming.PLURAL}/{name}"
        try:
            found = pool_in(self.get(cluster, path, f"{naming.KIND} {name}"))
        except NotFoundError:
            raise no_pool(key) from None
        if found.pool.key != key:  # names of files and arguments of programs follow from it
            raise BuildpoolError(f"{naming.KIND} {name} cannot be read: the answer is another one")
        return found

    def pools(self, cluster: Cluster, *, everywhere: bool) -> list[Seen]:
        """All pools of the namespace, or of all namespaces."""
        where = "" if everywhere else f"/namespaces/{cluster.namespace}"
        found: list[Seen] = []
        more = ""
        for _ in range(_MOST_PAGES):
            query = f"?limit={_PAGE}" + (f"&continue={quote(more)}" if more else "")
            what = f"all {naming.KIND}s"
            page, more = pools_in(self.get(cluster, f"{_API}{where}/{naming.PLURAL}{query}", what))
            found += page
            if not more:
                return found
        raise BuildpoolError(f"the list of {naming.KIND}s does not end; ask for one namespace")

    def get(self, cluster: Cluster, path: str, what: str) -> dict[str, Any]:
        """An object by its path; a KubernetesError that names ``what``."""
        base = self._base(cluster)
        code, out, err = self._run(*cluster.flags, "get", "--raw", f"{base}{path}")
        if code != 0:
            raise refusal(err, what=what, namespace=cluster.namespace)
        return parsed(out, what)

    def _base(self, cluster: Cluster) -> str:
        """What has to stand before a path: that of the server's URL, which older kubectls drop."""
        base = path_in(cluster.server)
        if not base:
            return ""
        code, out, _ = self._run(*cluster.flags, "get", "--raw", f"{base}/version")
        return base if code == 0 and b'"gitVersion"' in out else ""

    def may(self, cluster: Cluster, verb: str, resource: str, namespace: str) -> bool:
        """Whether the user has a right in a namespace; True, too, if nobody can tell."""
        kind, _, part = resource.partition("/")  # which kubectl would take for a name
        asked = ("auth", "can-i", verb, kind, f"--subresource={part}", "-n", namespace)
        _, out, _ = self._run(*cluster.flags, *asked)
        return out.strip() != b"no"

    def server_time(self, cluster: Cluster) -> datetime | None:
        """The API server's clock, to the second; None: it does not say."""
        # Only what kubectl notes of its work has the header of the answer.
        command = [self.program, *cluster.flags, "get", "--raw=/version", "-v=8"]
        try:
            done = subprocess.run(  # noqa: S603 - no shell
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=self.most_seconds,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return date_in(done.stderr.decode(errors="replace"))

    def annotate(self, cluster: Cluster, pool: PoolKey, annotation: str) -> None:
        """Sets an annotation of a pool."""
        kind = f"{naming.PLURAL}.{naming.VERSION}.{naming.GROUP}"
        flags = (*cluster.flags, "-n", pool.namespace)
        code, _, err = self._run(*flags, "annotate", "--overwrite", kind, pool.name, annotation)
        if code != 0:
            what = f"{naming.KIND} {pool.name}"
            raise refusal(err, what=what, namespace=pool.namespace, doing="change")

    def _run(self, *arguments: str) -> tuple[int, bytes, str]:
        """Exit code, what it printed, and the errors it told. What else it says, the user sees."""
        try:
            process = subprocess.Popen(  # noqa: S603 - no shell
                [self.program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise BuildpoolError(f"kubectl cannot be run: {error.strerror}") from None
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        assert process.stderr is not None  # noqa: S101 - likewise
        heard = Hearing()
        # What kubectl has started may live on and keep the pipe open: it is not waited for long.
        listener = threading.Thread(target=_listen, args=(process.stderr, heard), daemon=True)
        listener.start()
        clock = threading.Timer(self.most_seconds, process.kill)
        clock.daemon = True
        clock.start()
        try:
            out = process.stdout.read(_MOST_BYTES + 1)
            if len(out) > _MOST_BYTES:
                raise BuildpoolError("the API server's answer is too large; ask for one namespace")
            if process.wait() == -signal.SIGKILL:
                raise BuildpoolError(f"kubectl was ended: no answer within {self.most_seconds:g} s")
            listener.join(_LISTENS_ON_SECONDS)
        finally:
            clock.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        return process.returncode, out, "\n".join(heard.errors)


def reached(*, namespace: str, context: str, kubeconfig: str) -> tuple[Kubectl, Cluster]:
    """The user's kubectl, and the cluster that flags name."""
    kubectl = Kubectl.found()
    return kubectl, kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)


def _listen(stream: IO[bytes], heard: Hearing) -> None:
    """Passes on what a program that logs the user in has to say, as it says it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with stream:
        while chunk := os.read(stream.fileno(), 65536):
            sys.stderr.write(heard.hear(decoder.decode(chunk)))
            sys.stderr.flush()
    sys.stderr.write(heard.end())
    sys.stderr.flush()


def _own_namespace() -> str:
    """The namespace of this pod."""
    try:
        found = (_ACCOUNT / "namespace").read_text().strip()
    except (OSError, ValueError):
        found = ""
    if not is_namespace(found):
        raise BuildpoolError("the namespace of this pod is not known; name one by -n")
    return found


def is_in_a_pod() -> bool:
    """Whether this is a pod with an identity of its own, which reaches Services."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_ACCOUNT / "token").exists()
