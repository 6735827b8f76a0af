"""One bounded look at the registry of a cache: is it one, may we read, may we write, has it room.

Raises nothing for anything that a network can do. It writes the two bytes that the OCI image format
calls the empty blob, which are one and the same however often they are written. To begin an upload
and to cancel it looks cleaner and is not: the distribution registry 3.1 then keeps a folder for
each, for ever, and wants the right to delete.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from yarl import URL

from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.observed.cache import CacheReport, CacheTarget
from buildpool.core.observed.dockerconfig import DOCKER_HUB
from buildpool.core.observed.usage import Usage
from buildpool.core.words import Finding
from buildpool.preflight import tls, wire
from buildpool.preflight.addresses import Reach
from buildpool.preflight.challenge import best
from buildpool.preflight.judging import (
    check_base,
    check_read,
    check_stored,
    check_write,
    place,
    refused_below,
)
from buildpool.preflight.login import Visitor
from buildpool.preflight.urls import url_of, with_query
from buildpool.preflight.values import Peer, PreflightFailure, RegistryAnswer
from buildpool.preflight.wire import Wire

LIMIT: Final = timedelta(seconds=10)
"""How long one look may take, all questions together."""
PLACEHOLDER: Final = naming.PREFLIGHT
"""The repository that is tried where any will do, and the tag that is looked for."""
REFUSALS: Final = frozenset({Reason.CREDENTIALS_REFUSED, Reason.WRITE_REFUSED})
"""What a registry says, too, that has no repositories below others."""
NOTHING: Final = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""The digest of ``{}``."""
EVERYWHERE_ELSE: Final = Reach()
"""Everywhere but where no registry can be."""


async def inspect(
    target: CacheTarget,
    *,
    write: bool = True,
    limit: timedelta = LIMIT,
    reach: Reach = EVERYWHERE_ELSE,
) -> CacheReport:
    """What is the matter with a registry, if anything; and what its keeper says, if it has one.

    ``write=False`` leaves the right to write untried, for those who ask often. ``reach`` says at
    which addresses nobody is asked.
    """
    peer = _registry(target)
    try:
        context = await asyncio.to_thread(tls.make_context, peer, target.trust, target.pair)
    except PreflightFailure as failure:
        return CacheReport(failure.trouble)
    async with (
        wire.opened(context, target.trust, target.pair, limit=limit, reach=reach) as opened,
        asyncio.TaskGroup() as both,
    ):
        registry = both.create_task(_look(opened, peer, target, write=write))
        keeper = both.create_task(_ask_keeper(opened, target.keeper))
    usage, silence = keeper.result()
    return CacheReport(registry.result() or silence, usage)


async def _look(
    opened: Wire, peer: Peer, target: CacheTarget, *, write: bool
) -> Finding[Reason] | None:
    try:
        await _steps(opened, peer, target, write=write)
    except PreflightFailure as failure:
        return failure.trouble
    return None


async def _steps(opened: Wire, peer: Peer, target: CacheTarget, *, write: bool) -> None:
    base = _base(peer, target)
    repository = "/".join(filter(None, (target.repository, target.below))) or PLACEHOLDER
    visitor = Visitor(opened, peer, repository, target.credentials)

    answer = await visitor.ask("GET", base)
    if answer.status == 400:
        await _explain_400(opened, peer, base, answer)
    check_base(peer, answer, best(answer.challenges), visitor.user, http=target.http)

    try:
        await _try(visitor, peer, base, repository, write=write)
    except PreflightFailure as failure:
        if not target.below or failure.reason not in REFUSALS:
            raise
        whole = Visitor(opened, peer, target.repository, target.credentials)
        await _try(whole, peer, base, target.repository, write=write)
        raise refused_below(peer, target.repository, repository) from failure


async def _try(visitor: Visitor, peer: Peer, base: URL, repository: str, *, write: bool) -> None:
    """Whether one repository can be read, and written."""
    manifest = base / repository / "manifests" / PLACEHOLDER
    read = await visitor.ask("HEAD", manifest)
    # Some registries hide so what is not there yet, and what is written to is there.
    is_hidden = write and read.status in (401, 403)
    if not is_hidden:
        check_read(peer, read, repository, visitor.user)
    if not write:
        return
    try:
        await _write(visitor, peer, base, repository)
    except PreflightFailure:
        check_read(peer, read, repository, visitor.user)
        raise
    if is_hidden:
        check_read(peer, await visitor.ask("HEAD", manifest), repository, visitor.user)


async def _write(visitor: Visitor, peer: Peer, base: URL, repository: str) -> None:
    answer = await visitor.ask("POST", base / repository / "blobs" / "uploads" / "")
    check_write(peer, answer, repository, visitor.user)
    upload = _upload(peer, base, answer.location)
    if upload is not None:
        answer = await visitor.ask("PUT", upload, body=b"{}")
        check_stored(peer, answer, repository, visitor.user)


async def _explain_400(opened: Wire, peer: Peer, base: URL, answer: RegistryAnswer) -> None:
    """How web servers complain of what is wrong below HTTP."""
    if base.scheme == "http" and await opened.speaks_tls(base):
        raise wire.wants_tls(peer)
    if b"SSL certificate" in answer.body:
        raise tls.certificate_wanted(peer, str(answer), has_pair=opened.has_pair)


def _upload(peer: Peer, base: URL, location: str | None) -> URL | None:
    """Where an upload goes on; None: to somebody else, who is not asked by us."""
    upload = url_of(location, base=base) if location else None
    if upload is None:
        raise PreflightFailure(
            Reason.NO_REGISTRY,
            f"{peer.name} begins an upload and does not say where it goes on",
            f"correct {peer.written_in}",
        )
    if base.scheme == "https" and upload.scheme == "http":
        raise PreflightFailure(
            Reason.REGISTRY_NOT_TRUSTED,
            f"{peer.name} sends uploads on without TLS, to {place(location)}",
            "let the proxy before it set X-Forwarded-Proto, or set http.host in its configuration",
        )
    if upload.origin() != base.origin():
        return None
    return with_query(upload, digest=NOTHING)


async def _ask_keeper(
    opened: Wire, host: str | None
) -> tuple[Usage | None, Finding[Reason] | None]:
    if host is None:
        return None, None
    peer = Peer(f"keeper {host} of the managed cache", "the Service of the managed cache", None)
    try:
        answer = await opened.ask(peer, "GET", _url("https", host, peer) / "status")
        raw = answer.json()
        if answer.status != 200 or not isinstance(raw, dict):
            what = f"{peer.name} does not tell of its disk: it answers {answer}"
            return None, Finding(Reason.REGISTRY_UNREACHABLE, f"{what}; look at its log")
        return Usage.read(raw), None
    except TypeError:
        what = f"{peer.name} tells of its disk in another way than this operator knows"
        return None, Finding(Reason.REGISTRY_UNREACHABLE, f"{what}; let both be of one version")
    except PreflightFailure as failure:
        return None, Finding(Reason.REGISTRY_UNREACHABLE, f"{failure.what}; {failure.remedy}")


def _registry(target: CacheTarget) -> Peer:
    if target.keeper is not None:
        return Peer(f"managed cache {target.host}", "the Service of the managed cache", None)
    return Peer(f"registry {target.host}", "cache.registry.ref", target.host)


def _base(peer: Peer, target: CacheTarget) -> URL:
    host = "registry-1.docker.io" if target.host in DOCKER_HUB else target.host
    return _url("http" if target.http else "https", host, peer) / "v2" / ""


def _url(scheme: str, host: str, peer: Peer) -> URL:
    url = url_of(f"{scheme}://{host}")
    if url is None:
        raise PreflightFailure(
            Reason.REGISTRY_NOT_FOUND,
            f"{peer.name} has no address of the form host or host:port",
            f"correct {peer.written_in}",
        )
    return url.origin()
