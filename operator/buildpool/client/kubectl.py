"""The rim: asks the API server through the user's own kubectl.

So contexts, proxies, and programs that log the user in work as they do for kubectl itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from buildpool.client.parsing import Seen, cluster_in, is_namespace, parsed, pool_in, pools_in
from buildpool.client.refusals import no_cluster, no_kubectl, no_pool, refusal
from buildpool.client.values import Cluster
from buildpool.core import naming
from buildpool.core.api.pool import NAME_RULE
from buildpool.core.errors import BuildpoolError, NotFoundError
from buildpool.core.naming import PoolKey

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod finds about the identity that it has."""
_MOST_BYTES: Final = 64 * 2**20
"""Of one answer: many times a page of the largest pools."""
_PAGE: Final = 200
"""Pools that are asked for at once."""
_API: Final = f"/apis/{naming.API_VERSION}"
_ERRORS: Final = re.compile(
    r"error: |Error from server |Unable to connect |The connection to the |[EFW]\d{4} "
)
"""How lines begin by which kubectl says what went wrong; others are said to the user at once."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The user's kubectl."""

    program: str

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
            return Cluster(namespace or (_ACCOUNT / "namespace").read_text().strip())
        raise no_cluster(err)

    def pool(self, cluster: Cluster, name: str) -> Seen:
        """One pool."""
        if not NAME_RULE.holds(name):
            raise BuildpoolError(f"{name!r} is no name of a pool: {NAME_RULE.remedy}")
        path = f"{_API}/namespaces/{cluster.namespace}/{naming.PLURAL}/{name}"
        try:
            return pool_in(self.get(cluster, path, f"{naming.KIND} {name}"))
        except NotFoundError:
            raise no_pool(PoolKey(cluster.namespace, name)) from None

    def pools(self, cluster: Cluster, *, everywhere: bool) -> list[Seen]:
        """All pools of the namespace, or of all namespaces."""
        where = "" if everywhere else f"/namespaces/{cluster.namespace}"
        found: list[Seen] = []
        more = ""
        while True:
            query = f"?limit={_PAGE}" + (f"&continue={quote(more)}" if more else "")
            what = f"all {naming.KIND}s"
            page, more = pools_in(self.get(cluster, f"{_API}{where}/{naming.PLURAL}{query}", what))
            found += page
            if not more:
                return found

    def get(self, cluster: Cluster, path: str, what: str) -> dict[str, Any]:
        """An object by its path; a KubernetesError that names ``what``."""
        flags = (*cluster.flags, "--request-timeout=30s")
        code, out, err = self._run(*flags, "get", "--raw", path)
        if code != 0:
            raise refusal(err, what=what, namespace=cluster.namespace)
        return parsed(out, what)

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
        with subprocess.Popen(  # noqa: S603 - no shell
            [self.program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            assert process.stderr is not None  # noqa: S101 - likewise
            errors: list[str] = []
            listener = threading.Thread(target=_listen, args=(process.stderr, errors))
            listener.start()
            out = process.stdout.read(_MOST_BYTES + 1)
            if len(out) > _MOST_BYTES:
                process.kill()
            listener.join()
        if len(out) > _MOST_BYTES:
            raise BuildpoolError("the API server's answer is too large; ask for one namespace")
        return process.returncode, out, "\n".join(errors)


def _listen(stream: Any, errors: list[str]) -> None:
    """Keeps errors, and passes on what a program that logs the user in has to say."""
    for raw in stream:
        line = raw.decode(errors="replace").rstrip("\n")
        if errors or _ERRORS.match(line):
            errors.append(line)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def is_in_a_pod() -> bool:
    """Whether this is a pod with an identity of its own, which reaches Services."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_ACCOUNT / "token").exists()
