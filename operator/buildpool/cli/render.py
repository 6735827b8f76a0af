"""``buildpool render``: what a pool would consist of, as YAML, without a cluster.

Every mistake in what is handed in is a ``BuildpoolError`` that says where it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from buildpool.core import naming
from buildpool.core.api import Pool, parse_pool
from buildpool.core.errors import BuildpoolError
from buildpool.core.naming import Installation
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.plan import planned
from buildpool.core.planning.situation import Situation
from buildpool.process import utc_now

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def text_of(file: Path) -> str:
    """What a file holds, or, for ``-``, standard input."""
    try:
        return (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode()
    except OSError as error:
        raise BuildpoolError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildpoolError(f"{file} is no UTF-8 text: {error}") from error


def rendered(text: str, *, namespace: str, operator: Installation) -> str:
    """The objects of all pools in a manifest; ``namespace`` is that of pools that name none."""
    for name in (namespace, operator.namespace):
        _check_namespace(name)
    pools = [_pool(each, namespace) for each in _objects(text) if each.get("kind") == naming.KIND]
    if not pools:
        raise BuildpoolError(f"the manifest holds no {naming.KIND}")
    return "".join(_rendered(pool, operator) for pool in pools)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a manifest, as the API server would get them: as JSON."""
    for number, document in enumerate(_documents(text), 1):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise BuildpoolError(f"document {number} is no object: it has no fields")
        yield document


def _documents(text: str) -> list[Any]:
    try:
        documents = list(yaml.safe_load_all(text))
        # A date is a text in Kubernetes. What has no JSON (an endless value, half a character, an
        # object within itself) cannot be sent.
        dumped = json.dumps(
            documents,
            default=lambda value: value.isoformat(),
            allow_nan=False,
            ensure_ascii=False,
        ).encode()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BuildpoolError(f"the manifest is no YAML: {error.problem}{where}") from error
    except Exception as error:
        # The parser meets some texts with whatever Python raises.
        raise BuildpoolError(f"the manifest is no YAML of an object: {error}") from error
    found: list[Any] = json.loads(dumped)
    return found


def _pool(obj: dict[str, Any], namespace: str) -> Pool:
    """The pool as it would be created: without what only the API server writes."""
    given = obj.get("metadata")
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise BuildpoolError(f"metadata.name: a {naming.KIND} has no name; give it one")
    uid = given.get("uid")
    metadata = {
        "name": given["name"],
        "namespace": _check_namespace(given.get("namespace") or namespace),
        "uid": uid if isinstance(uid, str) else "",
    }
    return parse_pool({"metadata": metadata, "spec": obj.get("spec")}, is_stored=False)


def _check_namespace(name: object) -> str:
    if not (isinstance(name, str) and _NAMESPACE.fullmatch(name)):
        raise BuildpoolError(
            f"{name!r} is no name of a namespace: use at most 63 lower-case letters, digits and "
            "hyphens inside"
        )
    return name


def _rendered(pool: Pool, operator: Installation) -> str:
    """The objects of a pool that is applied to an empty cluster now."""
    _, plan = planned(Situation(pool, Observation(), operator, utc_now()))
    objects = [change.object for change in plan.apply]
    if not pool.uid:
        # An owner that was never created has no uid, and an API server takes no reference without.
        for each in objects:
            each["metadata"].pop("ownerReferences", None)
    return "".join("---\n" + yaml.safe_dump(each, sort_keys=False) for each in objects)
