"""What the answers of a registry mean. Pure.

A check raises PreflightFailure, or lets the answer pass.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from buildpool.core.api import Reason
from buildpool.preflight.challenge import Challenge
from buildpool.preflight.values import Peer, PreflightFailure, RegistryAnswer, plain

NO_CREDENTIALS: Final = "name a Secret with a user for it in cache.registry.credentials"
WRONG_CREDENTIALS: Final = "correct the Secret that cache.registry.credentials names"
_HINTS: Final = {
    500: "look at its log: its disk may be full",
    507: "its disk is full: make room",
    429: "raise its rate limit, or name credentials with a higher one",
}
_BEHIND: Final = "look at what stands before it, and whether the registry behind that runs"


def check_base(
    peer: Peer, answer: RegistryAnswer, way: Challenge | None, user: str | None, *, http: bool
) -> None:
    """``/v2/``: whether it is a registry at all, and knows the user where it takes passwords."""
    if answer.status == 401 and way is not None:
        if way.scheme == "basic":
            raise refused(peer, user)
        return  # a token is good for a repository, not necessarily for this
    check_order(peer, answer, http=http)
    if answer.status == 401:
        raise PreflightFailure(
            Reason.NO_REGISTRY,
            f"{peer.name} answers 401 and takes neither a password nor a token",
            f"correct {peer.written_in}, or let it authenticate by Basic or Bearer",
        )
    if answer.status == 403 and not answer.is_page:
        raise refused(peer, user)
    if answer.status != 200 or answer.is_page:
        raise PreflightFailure(
            Reason.NO_REGISTRY,
            f"{peer.name} is no registry: /v2/ answers {answer}",
            f"correct {peer.written_in}",
        )


def check_read(peer: Peer, answer: RegistryAnswer, repository: str, user: str | None) -> None:
    """A manifest that need not exist: whether the user may read the repository."""
    if answer.status in (401, 403):
        if user is None:
            raise refused(peer, None, doing=f"reading {repository}")
        raise PreflightFailure(
            Reason.CREDENTIALS_REFUSED,
            f"{peer.name} does not let user {user} read {repository}",
            f"grant the user the right to read and write it, or {WRONG_CREDENTIALS}",
        )
    if answer.status == 429 or answer.status >= 500:
        check_order(peer, answer)


def check_write(peer: Peer, answer: RegistryAnswer, repository: str, user: str | None) -> None:
    """The beginning of an upload: whether the user may write to the repository."""
    status = answer.status
    if status == 202:
        return
    if status == 405 or (400 <= status < 600 and answer.says_read_only):
        raise PreflightFailure(
            Reason.WRITE_REFUSED,
            f"{peer.name} is read-only: a write to {repository} is answered with {answer}",
            f"end its read-only or pull-through mode, or name another in {peer.written_in}",
        )
    check_order(peer, answer)
    if status in (401, 403) and user is None:
        raise refused(peer, None, doing=f"a write to {repository}")
    if status in (401, 403):
        raise PreflightFailure(
            Reason.WRITE_REFUSED,
            f"{peer.name} lets user {user} read {repository}, but not write",
            f"grant the user the right to write, or {WRONG_CREDENTIALS}",
        )
    if status == 404:
        raise PreflightFailure(
            Reason.WRITE_REFUSED,
            f"{peer.name} does not know the repository {repository} ({answer})",
            "create it, or grant the user the right to create it",
        )
    raise PreflightFailure(
        Reason.WRITE_REFUSED if status >= 400 else Reason.NO_REGISTRY,
        f"{peer.name} answers {answer} where an upload to {repository} should begin",
        f"correct {peer.written_in}",
    )


def check_stored(peer: Peer, answer: RegistryAnswer, repository: str, user: str | None) -> None:
    """The end of an upload: whether what was written is there now."""
    if answer.status in (201, 204):
        return
    if answer.status in (400, 404, 416):
        raise PreflightFailure(
            Reason.REGISTRY_UNREACHABLE,
            f"{peer.name} begins an upload to {repository} and cannot end it: {answer}",
            "look at its log; several replicas need one storage and one http.secret",
        )
    check_write(peer, answer, repository, user)


def check_order(peer: Peer, answer: RegistryAnswer, *, http: bool = False) -> None:
    """Whether what stands at the address works, and does not send elsewhere."""
    status = answer.status
    if status == 429 or status >= 500:
        raise PreflightFailure(
            Reason.REGISTRY_UNREACHABLE,
            f"{peer.name} answers {answer}",
            _HINTS.get(status, _BEHIND),
        )
    if 300 <= status < 400:
        where = place(answer.location)
        to_tls = http and where.startswith("https://") and where.endswith("/v2/")
        raise PreflightFailure(
            Reason.NO_REGISTRY,
            f"{peer.name} answers {status} and sends to {where}",
            peer.use(http=False) if to_tls else f"correct {peer.written_in}",
        )


def refused(peer: Peer, user: str | None, *, doing: str = "") -> PreflightFailure:
    """The user is not accepted, or there is none."""
    if user is None:
        what = f"{peer.name} asks for credentials{' for ' * bool(doing)}{doing} and there are none"
        return PreflightFailure(Reason.CREDENTIALS_REFUSED, what, NO_CREDENTIALS)
    return PreflightFailure(
        Reason.CREDENTIALS_REFUSED, f"{peer.name} refuses user {user}", WRONG_CREDENTIALS
    )


def refused_below(peer: Peer, repository: str, tried: str) -> PreflightFailure:
    """A repository can be used, and those below it, in which caches lie, cannot."""
    return PreflightFailure(
        Reason.WRITE_REFUSED,
        f"{peer.name} takes caches in {repository}, but refuses {tried}: every project has a "
        f"repository of its own below {peer.written_in}",
        "set cache.registry.layout: Tags, or let the first write to a repository create it",
    )


def place(location: str | None) -> str:
    """Where a redirect goes, without what may be secret in its query or user."""
    try:
        parts = urlsplit(location or "")
    except ValueError:
        return "nowhere"
    host = parts.netloc.rpartition("@")[2]
    scheme = f"{parts.scheme}://" if host and parts.scheme else ""
    return plain(f"{scheme}{host}{parts.path}") or "nowhere"
