"""The one place where what the API server or the network says becomes one of our exceptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from kubernetes.aio.config import ConfigException

from buildpool.core.errors import (
    ConflictError,
    KubernetesError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from buildpool.core.objects.refs import Object, text_at

_BY_STATUS: dict[int, type[KubernetesError]] = {
    400: RefusedError,
    401: UnavailableError,  # a token on its way to be renewed
    403: RefusedError,
    404: NotFoundError,
    409: ConflictError,
    422: RefusedError,
}


_NO_SUCH_OBJECT = (
    "failed to create typed patch object",
    "failed to convert new typed object",
    "failed to convert new object",
)
"""How the API server says, with status 500, that what is applied has fields that its kind has not.

In ``managedfields/internal/structuredmerge.go`` of k8s.io/apimachinery, from 1.31 to 1.37.
"""


def error_of(status: int, body: bytes) -> KubernetesError:
    """The exception for an answer that is not a success."""
    kind = _BY_STATUS.get(status, UnavailableError if status >= 429 else RefusedError)
    said = _said(body)
    message = str(said.get("message", ""))
    if status == 500 and message.startswith(_NO_SUCH_OBJECT):
        kind = RefusedError
    error = kind(message or f"HTTP status {status}")
    if isinstance(error, NotFoundError) and _is_absence(said):
        error.name = text_at(said, "details", "name")
    return error


@contextmanager
def network_errors() -> Iterator[None]:
    """Turns what the network does into ``UnavailableError``.

    So are an answer that is no JSON, and a token that cannot be read: both may be well next time.
    """
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError, RecursionError, ConfigException) as error:
        raise UnavailableError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


def _is_absence(said: Object) -> bool:
    return text_at(said, "kind") == "Status" and text_at(said, "reason") == "NotFound"


def _said(body: bytes) -> Object:
    """The answer, empty where it is no mapping."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
