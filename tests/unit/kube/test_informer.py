"""A mirror of what an API server says, whatever it says. Time is turned on, not waited for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from buildpool.core.errors import KubernetesError, RefusedError, UnavailableError
from buildpool.core.objects.refs import Object
from buildpool.kube.cluster import Cluster
from buildpool.kube.errors import error_of
from buildpool.kube.informer import LAST_RETRY_SECONDS, Informer
from samples import any_json

Event = Any


def a_pod(name: str, version: str = "1", **metadata: Any) -> Object:
    metadata = {"namespace": "builds", "name": name, "resourceVersion": version, **metadata}
    return {"kind": "Pod", "metadata": metadata}


@dataclass
class Server:
    """Lists what there is, and then says what it is told, watch for watch; then it is silent."""

    there: Sequence[Any] = ()
    watches: list[Iterable[Event] | bytes | Exception] = field(default_factory=list)
    lists: int = 0
    times: list[float] = field(default_factory=list)

    async def listed(self, *_: object) -> tuple[str, list[Any]]:
        self.lists += 1
        return "1", list(self.there)

    async def watched(self, *_: object, **__: object) -> AsyncIterator[bytes]:
        self.times.append(asyncio.get_running_loop().time())
        says = self.watches.pop(0) if self.watches else []
        if isinstance(says, Exception):
            raise says
        yield says if isinstance(says, bytes) else b"".join(map(line, says))
        if not self.watches:
            await asyncio.sleep(1e9)


def line(event: Event) -> bytes:
    return json.dumps(event).encode() + b"\n"


def mirrored(server: Server, *, fails: bool = False, within: float = 60.0) -> list[str]:
    """The names of what is mirrored in the end; ``fails``: whoever is told fails at each."""

    def changed(obj: Object) -> None:
        if fails:
            raise KeyError("labels")

    async def story() -> list[str]:
        informer = Informer(
            cast("Cluster", server), "Pod", "builds", {}, changed, chance=lambda: 0.0
        )
        running = asyncio.create_task(informer.run())
        await asyncio.wait([running], timeout=within)
        assert not running.done(), "it goes on for ever"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return sorted(name for _, name in informer.objects)

    return virtual_time.run(story())


ADDED = {"type": "ADDED", "object": a_pod("b", "2")}


def test_what_is_there_and_what_comes_is_mirrored() -> None:
    gone = {"type": "DELETED", "object": a_pod("a", "3")}
    assert mirrored(Server([a_pod("a")], [[ADDED]])) == ["a", "b"]
    assert mirrored(Server([a_pod("a")], [[ADDED], [gone]])) == ["b"]


@given(item=any_json, event=any_json, metadata=any_json, kind=st.sampled_from(["ADDED", "DELETED"]))
def test_no_object_ends_the_watch_of_the_others(
    item: Any, event: Any, metadata: Any, kind: str
) -> None:
    odd = {"type": kind, "object": {"metadata": metadata}}
    server = Server([item, a_pod("a")], [[event], [odd, {"type": kind, "object": item}], [ADDED]])
    assert {"a", "b"} <= set(mirrored(server))


@pytest.mark.parametrize("noise", [b"no JSON\n", b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"7\n"])
def test_what_is_no_event_is_followed_by_a_new_list(noise: bytes) -> None:
    server = Server([a_pod("a")], [noise, [ADDED]])
    assert mirrored(server) == ["a", "b"]
    assert server.lists == 2


def test_who_fails_at_one_object_is_told_of_the_next(caplog: pytest.LogCaptureFixture) -> None:
    assert mirrored(Server([a_pod("a")], [[ADDED]]), fails=True) == ["a", "b"]
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert all(record.exc_info for record in told)


@pytest.mark.parametrize(
    ("error", "lists"),
    [(UnavailableError("etcd"), 1), (RefusedError("no"), 2), (KeyError("items"), 2)],
    ids=["unavailable", "refused", "a defect"],
)
def test_a_watch_that_fails_is_begun_again(error: Exception, lists: int) -> None:
    server = Server([a_pod("a")], [error, [ADDED]])
    assert mirrored(server) == ["a", "b"]
    assert server.lists == lists


def test_pauses_grow_to_a_limit_while_it_fails() -> None:
    server = Server(watches=[UnavailableError("no")] * 8)
    mirrored(server)
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert gaps[:5] == [0.5, 1.0, 2.0, 4.0, LAST_RETRY_SECONDS]


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() -> None:
    server = Server(watches=[b""] * 1000)
    mirrored(server, within=10.0)
    assert len(server.times) <= 25


@given(status=st.integers(300, 599), body=st.binary() | any_json.map(json.dumps).map(str.encode))
def test_any_answer_of_an_api_server_is_one_of_our_errors(status: int, body: bytes) -> None:
    assert isinstance(error_of(status, body), KubernetesError)


def test_a_deep_answer_of_an_api_server_is_one_of_our_errors() -> None:
    assert "500" in str(error_of(500, b"[" * 100_000))
