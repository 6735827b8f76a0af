"""``version``: of this program, of the operator, and of the BuildKit of connected pools."""

from __future__ import annotations

from buildpool import __version__
from buildpool.client.buildx import Buildx
from buildpool.client.kubectl import Kubectl
from buildpool.client.looking import check_is_usable, connections
from buildpool.client.nodes import NodeReport
from buildpool.client.parsing import operators_in
from buildpool.client.reports import PoolVersion, Versions, version_text
from buildpool.client.values import Cluster, Connection, Structure
from buildpool.core.errors import BuildpoolError

_OPERATORS = "deployments?labelSelector=app.kubernetes.io/name=buildpool"


def versions(*, namespace: str, context: str, kubeconfig: str, form: Structure | None) -> str:
    """All versions, as text; what cannot be asked is unknown, and why."""
    there = list(connections())
    try:
        kubectl = Kubectl.found()
        cluster = kubectl.cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
        operators, why = _operators(kubectl, cluster, there), ""
    except BuildpoolError as error:
        operators, why = {}, str(error)
    pools = [each for connection in there for each in _pools(connection)]
    return version_text(Versions(__version__, operators, why, tuple(pools)), form)


def _operators(kubectl: Kubectl, cluster: Cluster, there: list[Connection]) -> dict[str, str]:
    """The versions of operators, by namespace: of all, or where a gateway is that is known.

    BuildpoolError: none can be read.
    """
    known = sorted({n.target.namespace for c in there for n in c.nodes if n.target is not None})
    refused: BuildpoolError | None = None
    for where in ("", *(f"/namespaces/{name}" for name in known)):
        try:
            listed = kubectl.get(cluster, f"/apis/apps/v1{where}/{_OPERATORS}", "the operator")
        except BuildpoolError as error:
            refused = refused or error
            continue
        if found := operators_in(listed):
            return found
    raise refused or BuildpoolError("no operator is found")


def _pools(connection: Connection) -> list[PoolVersion]:
    try:
        buildx = Buildx.found()
        check_is_usable(buildx, connection)
        found = buildx.inspect(connection.name)
    except BuildpoolError as error:
        return [PoolVersion(node.pool, "", str(error)) for node in connection.nodes]
    return [
        PoolVersion(node.pool, said.version, said.error or "it does not run")
        for node in connection.nodes
        for said in [found.get(node.name, NodeReport())]
    ]
