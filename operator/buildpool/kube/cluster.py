"""Objects in a cluster, as plain dicts: get, list, apply, delete.

Over the official client's connection and credentials, below its typed models: a pass reads and
writes raw JSON, and the models would cost more than the network. Applies are server-side and
forced: a field we name is ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from buildpool.core import naming
from buildpool.core.errors import NotFoundError, UnavailableError
from buildpool.core.objects.refs import JSON, Object, Ref, ref_of
from buildpool.kube.errors import error_of, network_errors
from buildpool.kube.metrics import RequestMetrics

TIMEOUT_SECONDS: Final = 15.0
"""Seconds for one request. The API server itself gives up after 60."""
ATTEMPTS: Final = 4
"""Tries of a request that the API server puts off with 429 or 503."""
MAX_RETRY_AFTER_SECONDS: Final = 5.0


class _Resource(NamedTuple):
    api: str
    plural: str


RESOURCES: Final = {
    "BuildKitPool": _Resource(f"apis/{naming.API_VERSION}", naming.PLURAL),
    "ConfigMap": _Resource("api/v1", "configmaps"),
    "Deployment": _Resource("apis/apps/v1", "deployments"),
    "ReplicaSet": _Resource("apis/apps/v1", "replicasets"),
    "Event": _Resource("api/v1", "events"),
    "Lease": _Resource("apis/coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": _Resource("apis/networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": _Resource("api/v1", "persistentvolumeclaims"),
    "Pod": _Resource("api/v1", "pods"),
    "PodDisruptionBudget": _Resource("apis/policy/v1", "poddisruptionbudgets"),
    "PodMetrics": _Resource("apis/metrics.k8s.io/v1beta1", "pods"),
    "Secret": _Resource("api/v1", "secrets"),
    "Service": _Resource("api/v1", "services"),
}
"""Every kind this operator touches. All are namespaced."""


class Cluster:
    """One API server, seen with one identity."""

    def __init__(self, api: ApiClient, metrics: RequestMetrics) -> None:
        self._api = api
        self._metrics = metrics
        self._limits: set[asyncio.Timeout] = set()
        """Of the requests that are under way."""
        self._is_cut = False
        self._may_ask: Callable[[], bool] = lambda: True

    def only_while(self, may_ask: Callable[[], bool]) -> None:
        """From now on, no request is sent unless this holds at that very moment.

        Whoever tries gets an ``UnavailableError``.
        """
        self._may_ask = may_ask

    def cut(self) -> None:
        """Breaks off all requests that are under way; none is sent from now on.

        Whoever waits for one, or still tries, gets an ``UnavailableError``.
        """
        self._is_cut = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0.0)

    async def get(self, ref: Ref) -> Object | None:
        """The object, or None where the API server says that there is none of this name.

        Any other 404 says nothing of it: a proxy answers so, or who does not serve its kind now.
        No object has a name that would be another path: others may write it as that of an owner.
        """
        if ref.name in ("", ".", "..") or set(ref.name) & set("/%"):
            return None
        try:
            found: Object = await self._request("GET", ref)
        except NotFoundError as error:
            if error.name != ref.name:
                raise UnavailableError(f"{ref} is not served: {error}") from error
            return None
        return found

    async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        """The objects of a kind with these labels; the newest state, not a cache's.

        In all namespaces where ``namespace`` is empty.
        """
        _, items = await self.listed(kind, namespace, labels)
        return items

    async def listed(
        self, kind: str, namespace: str, labels: dict[str, str]
    ) -> tuple[str, list[Object]]:
        """The same, after the version of what was listed, from which a watch goes on."""
        query = {"labelSelector": naming.format_selector(labels)}
        answer = await self._request("GET", Ref(kind, namespace, ""), query)
        resource = RESOURCES[kind]
        # Items of a list come without the kind that every single object has.
        head = {"apiVersion": resource.api.partition("/")[2], "kind": kind}
        return answer["metadata"]["resourceVersion"], [{**head, **i} for i in answer["items"]]

    async def watched(
        self,
        kind: str,
        namespace: str,
        labels: dict[str, str],
        *,
        version: str,
        duration: int,
        inactivity: float,
    ) -> AsyncIterator[bytes]:
        """What a watch says, in pieces of any size; it ends after ``duration`` seconds.

        Raises UnavailableError where it says nothing for ``inactivity`` seconds.
        """
        query = {
            "labelSelector": naming.format_selector(labels),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(duration),
        }
        url = f"{self._api.configuration.host}/{_path(Ref(kind, namespace, ''), '')}"
        url += f"?{urlencode(query)}"
        headers = {"Accept": "application/json"}
        # Nobody but this may use its connection: a request that is broken off in the midst ends it.
        with network_errors():
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], url, "GET", None)
            async with asyncio.timeout(inactivity) as limit:
                answer = await self._api.call_api(
                    "GET", url, headers, None, _request_timeout=duration + inactivity
                )
                try:
                    if answer.status >= 300:
                        raise error_of(answer.status, await answer.read())  # type: ignore[no-untyped-call]
                    async for chunk in answer.response.content.iter_any():
                        limit.reschedule(asyncio.get_running_loop().time() + inactivity)
                        yield chunk
                finally:
                    answer.response.close()

    async def apply(
        self,
        obj: Object,
        *,
        subresource: str = "",
        manager: str = naming.FIELD_MANAGER,
        dry_run: bool = False,
    ) -> Object:
        """Makes the fields of ``obj`` so, and only these; creates the object if need be.

        Returns it as it is stored; with ``dry_run``, as it would be, and nothing is stored.
        """
        query = {"fieldManager": manager, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        content = "application/apply-patch+yaml"
        applied: Object = await self._request(
            "PATCH", ref_of(obj), query, subresource=subresource, body=obj, content=content
        )
        return applied

    async def create(self, obj: Object) -> None:
        """A new object; ``ConflictError`` where the name is taken."""
        await self._request("POST", ref_of(obj)._replace(name=""), body=obj)

    async def patch(self, ref: Ref, change: JSON, *, subresource: str = "") -> None:
        """A JSON merge patch: for the few fields that cannot be applied, such as finalizers."""
        content = "application/merge-patch+json"
        await self._request("PATCH", ref, subresource=subresource, body=change, content=content)

    async def delete(self, ref: Ref, *, uid: str, version: str | None = None) -> None:
        """Removes this very object, not a successor of the same name. Gone already is fine.

        With a ``version``: only if nobody has changed it since; ``ConflictError`` otherwise.
        """
        conditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        options = {"preconditions": conditions, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", ref, body=options)
        except NotFoundError:
            return

    async def _request(
        self,
        method: str,
        ref: Ref,
        query: dict[str, str] | None = None,
        *,
        subresource: str = "",
        body: JSON = None,
        content: str = "application/json",
    ) -> JSON:
        url = f"{self._api.configuration.host}/{_path(ref, subresource)}"
        if query:
            url += f"?{urlencode(query)}"
        for attempt in range(1, ATTEMPTS + 1):
            with self._metrics.request(method, ref.kind) as answer:
                status, data, retry_after = await self._send(method, url, body, content)
                answer.code = str(status)
            if status not in (429, 503) or attempt == ATTEMPTS:
                break
            await asyncio.sleep(min(retry_after or 2.0 ** (attempt - 2), MAX_RETRY_AFTER_SECONDS))
        if status >= 300:
            raise error_of(status, data)
        with network_errors():
            return json.loads(data)

    async def _send(
        self, method: str, url: str, body: JSON, content: str
    ) -> tuple[int, bytes, float | None]:
        headers = {"Accept": "application/json", "Content-Type": content}
        with network_errors():  # the token is a file
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
            if self._is_cut:
                raise UnavailableError("the connection was cut")
            if not self._may_ask():
                raise UnavailableError("this process may lead no longer")
            async with asyncio.timeout(TIMEOUT_SECONDS) as limit:
                self._limits.add(limit)
                try:
                    response = await self._api.call_api(
                        method, url, headers, body, _request_timeout=TIMEOUT_SECONDS
                    )
                    data: bytes = await response.read()  # type: ignore[no-untyped-call]
                finally:
                    self._limits.discard(limit)
        after = response.headers.get("Retry-After", "")
        return response.status, data, float(after) if after.isdigit() else None


@asynccontextmanager
async def connect(metrics: RequestMetrics) -> AsyncIterator[Cluster]:
    """The cluster this process runs in, or the one of the user's kubeconfig."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    # A proxy comes from the kubeconfig only, as it does for Kopf's watches: aiohttp would look into
    # the environment and ~/.netrc for each request anew, in a thread.
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api:
        yield Cluster(api, metrics)


def _path(ref: Ref, subresource: str) -> str:
    resource = RESOURCES[ref.kind]
    within = ("namespaces", ref.namespace) if ref.namespace else ()
    parts = (resource.api, *within, resource.plural, quote(ref.name, safe=":"), subresource)
    return "/".join(part for part in parts if part)
