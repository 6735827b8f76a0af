"""What the API server and kubectl say, as values: the one door from their JSON. Pure.

All of it is hostile until it is parsed: anyone who can write a pool can write anything into it.
Certificates have a door of their own (``certificates``). What cannot be read is a
``BuildpoolError`` that names the object.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from buildpool.client.values import Cluster, Target
from buildpool.core import naming
from buildpool.core.api import Pool, identify_pool, parse_pool
from buildpool.core.errors import BuildpoolError, InvalidSpecError
from buildpool.core.objects.refs import text_at

_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_VERSION: Final = "app.kubernetes.io/version"
_COMPONENT: Final = "app.kubernetes.io/component"
_SERVICE_NAME: Final = re.compile(rf"({_LABEL})\.({_LABEL})\.svc(\.[a-z0-9.-]+)?")


def is_namespace(name: object) -> bool:
    """Whether a namespace can be called so."""
    return isinstance(name, str) and re.fullmatch(_LABEL, name) is not None


def parsed(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object; a BuildpoolError that says what is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BuildpoolError(f"{what} cannot be read: the API server's answer is no JSON object")
    return found


def cluster_in(text: str | bytes, *, namespace: str, kubeconfig: str) -> Cluster:
    """The cluster of a kubeconfig with one context, as ``kubectl config view --minify`` prints it.

    ``namespace`` is what the user named; empty: that of the context counts.
    """
    config = parsed(text, "the kubeconfig")
    name = config.get("current-context")
    contexts = config.get("contexts")
    first = contexts[0] if isinstance(contexts, list) and contexts else {}
    context = first.get("context") if isinstance(first, dict) else {}
    own = context.get("namespace") if isinstance(context, dict) else ""
    return Cluster(
        namespace=namespace or (own if is_namespace(own) else "") or "default",
        context=name if isinstance(name, str) else "",
        kubeconfig=kubeconfig,
        server=_server_in(config.get("clusters")),
    )


def _server_in(clusters: object) -> str:
    """The URL of the first API server of a kubeconfig; empty: there is none."""
    first = clusters[0] if isinstance(clusters, list) and clusters else {}
    cluster = first.get("cluster") if isinstance(first, dict) else {}
    server = cluster.get("server") if isinstance(cluster, dict) else ""
    return server if isinstance(server, str) else ""


def date_in(noted: str) -> datetime | None:
    """The moment of an answer, out of what kubectl notes of it; None: it does not say."""
    found = _DATE.search(noted)
    try:
        return parsedate_to_datetime(found[1]) if found else None
    except ValueError:
        return None


_DATE: Final = re.compile(r"\bDate: (\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d GMT)", re.ASCII)


def path_in(url: str) -> str:
    """The path of a URL, without a slash at its end; empty: it has none."""
    try:
        return urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool, and what is wrong with its spec."""

    pool: Pool
    refusal: InvalidSpecError | None
    """Why its spec cannot be carried out; that of ``pool`` then says nothing."""
    raw: dict[str, Any]
    """The object as the API server gave it."""

    def annotation(self, name: str) -> str:
        """An annotation of it; empty where there is none that is a text."""
        return text_at(self.raw, "metadata", "annotations", name)


def pool_in(obj: dict[str, Any]) -> Seen:
    """The pool in an object; a BuildpoolError for what is none."""
    checked = {**_checked(obj), "spec": obj.get("spec"), "status": obj.get("status")}
    if not isinstance(checked["status"], dict):
        checked["status"] = None
    try:
        return Seen(parse_pool(checked), None, obj)
    except InvalidSpecError as error:
        return Seen(identify_pool(checked), error, obj)


def pools_in(found: dict[str, Any]) -> tuple[list[Seen], str]:
    """The pools of one page of a list, and what to ask the next page by; empty: there is none."""
    items, metadata = found.get("items"), found.get("metadata")
    if not isinstance(items, list) or not isinstance(metadata, dict):
        raise BuildpoolError(f"the list of {naming.KIND}s cannot be read")
    more = metadata.get("continue") or ""
    pools = [pool_in(item) for item in items if isinstance(item, dict)]
    return pools, more if isinstance(more, str) else ""


def _checked(obj: dict[str, Any]) -> dict[str, Any]:
    """The metadata that a pool is known by, each of the type that it has to be."""
    metadata = obj.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    name, namespace = given.get("name"), given.get("namespace")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not is_namespace(namespace):
        raise BuildpoolError(f"a {naming.KIND} cannot be read: it has no name")
    uid, generation = given.get("uid"), given.get("generation")
    warm = text_at(given, "annotations", naming.ANNOTATION_WARM)
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid if isinstance(uid, str) else "",
            "generation": generation if isinstance(generation, int) else 0,
            "annotations": {naming.ANNOTATION_WARM: warm} if warm else {},
            "creationTimestamp": _moment(given.get("creationTimestamp")),
            "deletionTimestamp": _moment(given.get("deletionTimestamp")),
        }
    }


def _moment(text: object) -> str | None:
    """A moment that has a time zone; None for all else."""
    try:
        is_one = isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return None
    return str(text) if is_one else None


def gateway_in(service: dict[str, Any]) -> Target | None:
    """The gateway's Service that a pool's Service is another name of; None where it is none."""
    spec = service.get("spec")
    name = spec.get("externalName") if isinstance(spec, dict) else None
    found = _SERVICE_NAME.fullmatch(name) if isinstance(name, str) else None
    return None if found is None else Target(namespace=found[3], service=found[1])


def target_in(text: str) -> Target:
    """A Service as a user names it: ``namespace/name``."""
    namespace, _, service = text.partition("/")
    if not (is_namespace(namespace) and is_namespace(service)):
        raise BuildpoolError(
            f"--gateway: {text!r} names no Service; write it like "
            "buildpool-system/buildpool-gateway"
        )
    return Target(namespace, service)


def operators_in(found: dict[str, Any]) -> dict[str, str]:
    """The versions of the operators in a list of Deployments, by namespace."""
    items = found.get("items")
    versions: dict[str, str] = {}
    for item in items if isinstance(items, list) else ():
        namespace = text_at(item, "metadata", "namespace")
        version = text_at(item, "metadata", "labels", _VERSION)
        is_operator = text_at(item, "metadata", "labels", _COMPONENT) == "operator"
        if is_operator and namespace and version:
            versions[namespace] = version
    return versions
