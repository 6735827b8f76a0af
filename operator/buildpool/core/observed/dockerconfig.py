"""The credentials for one registry out of a docker configuration, as Secrets hold it.

Pure. Never quotes what it could not read, not even through a chained exception.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from buildpool.core.observed.cache import Credentials

DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""The names of one registry: docker writes its credentials under the second one."""


def parse_credentials(data: bytes, host: str) -> Credentials | None:
    """The user for a registry in a ``.dockerconfigjson``; None where it has no entry for the host.

    Raises ValueError, in words for people, where the configuration or the entry cannot be used.
    """
    auths = _auths(data)
    entry = next((auths[key] for key in _candidates(auths, host)), None)
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise ValueError(f"the entry for {host} is not an object")
    auth, username, password = (entry.get(key) for key in ("auth", "username", "password"))
    if auth:
        username, password = _decode(auth, host)
    if not (isinstance(username, str) and isinstance(password, str) and username and password):
        token = " but an identity token, which cannot be used here" * bool(
            entry.get("identitytoken")
        )
        raise ValueError(f"the entry for {host} has no username and password{token}")
    try:
        return Credentials(username, password)
    except ValueError as error:
        raise ValueError(f"in the entry for {host}, {error}") from None


def _auths(data: bytes) -> Mapping[str, Any]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(auths, dict):
        raise ValueError('it has no object "auths"')
    return auths


def _candidates(auths: Mapping[str, Any], host: str) -> Iterator[str]:
    """The keys that mean this host, the plainest spelling first."""
    wanted = _hostname(host)
    names = DOCKER_HUB if wanted in DOCKER_HUB else {wanted}
    yield from (key for key in auths if key == host)
    yield from (key for key in auths if key != host and _hostname(key) in names)


def _hostname(key: str) -> str:
    """``https://host:port/v1/`` is ``host:port``, as docker itself reads its keys."""
    return key.lower().removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode(auth: Any, host: str) -> tuple[str, str]:
    try:
        packed = "".join(auth.split())
        text = b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode()
    except (AttributeError, binascii.Error, ValueError):
        raise ValueError(f"auth of the entry for {host} is not base64 of user:password") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise ValueError(f"auth of the entry for {host} is not base64 of user:password")
    return username, password.rstrip("\0")
