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

_BY_STATUS: dict[int, type[KubernetesError]] = {
    400: RefusedError,
    401: UnavailableError,  # a token on its way to be renewed
    403: RefusedError,
    404: NotFoundError,
    409: ConflictError,
    422: RefusedError,
}


def error_of(status: int, body: bytes) -> KubernetesError:
    """The exception for an answer that is not a success."""
    kind = _BY_STATUS.get(status, UnavailableError if status >= 429 else RefusedError)
    return kind(_message(body) or f"HTTP status {status}")


@contextmanager
def network_errors() -> Iterator[None]:
    """Turns what the network does into ``UnavailableError``.

    So are an answer that is no JSON, and a token that cannot be read: both may be well next time.
    """
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError, RecursionError, ConfigException) as error:
        raise UnavailableError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


def _message(body: bytes) -> str:
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(status.get("message", "")) if isinstance(status, dict) else ""
