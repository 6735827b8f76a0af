"""Where the records of builds are found, whatever the daemons of a pool say."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from buildpool.buildkit import (
    BuildEvent,
    BuildEventKind,
    DaemonAccess,
    DaemonError,
    DaemonRefusedError,
)
from buildpool.buildkit.history import read_event
from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.buildkit.watcher import Target
from buildpool.core.naming import PoolKey
from buildpool.core.pki import KeyPair
from buildpool.gateway.pools import fleet
from buildpool.gateway.pools import records as module
from buildpool.gateway.pools.fleet import Fleet
from buildpool.gateway.pools.records import BuildRecords, NoAnswer
from daemons import STARTED, Silent, a_record, an_event, field

EVERYTHING = HistoryRequest()
COMPLETE = BuildEventKind.COMPLETE


def named(number: int) -> str:
    """The digest of some content."""
    return f"sha256:{number:064x}"


def ended(ref: str, *digests: str, after: float = 0) -> BuildEvent:
    """The end of a build with these results, so many seconds after the others."""
    results = b"".join(field(9, field(1, digest.encode())) for digest in digests)
    record = a_record(ref, STARTED + timedelta(seconds=after)) + results
    return read_event(field(1, COMPLETE) + field(2, record))


class Keeper(Silent):
    """A daemon that keeps records of builds."""

    def __init__(self, *events: BuildEvent, content: tuple[str, ...] = ()) -> None:
        self.kept = list(events)
        self.content = content
        self.trouble: DaemonError | None = None
        self.is_hung = False
        self.asked: list[bytes] = []
        self.is_closed = False
        self.at_once = self.most_at_once = 0

    async def records(self, request: bytes) -> tuple[BuildEvent, ...]:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await (asyncio.Event().wait() if self.is_hung else asyncio.sleep(0))
        self.at_once -= 1
        if self.trouble is not None:
            raise self.trouble
        return tuple(self.kept)

    async def has_content(self, digest: str) -> bool:
        self.asked.append(digest.encode())
        await (asyncio.Event().wait() if self.is_hung else asyncio.sleep(0))
        return digest in self.content

    async def close(self) -> None:
        self.is_closed = True


def records_of(**keepers: Keeper | None) -> BuildRecords:
    """Those of a pool with these daemons."""
    return BuildRecords(Fleet(PoolKey("builds", "ci"), lambda: keepers, no_other))


def no_other(*_: object) -> Keeper:
    raise AssertionError("nobody drains")


def refs(events: list[BuildEvent]) -> list[str]:
    return [event.build.ref for event in events]


async def test_a_record_is_where_a_daemon_tells_of_it() -> None:
    """BuildKit tells of builds that run beside it, whatever the filter."""
    other = read_event(an_event(BuildEventKind.STARTED, "other"))
    a, b = Keeper(other), Keeper(other, ended("mine"))
    found = records_of(a=a, b=b)
    assert await found.find("mine") == "b"
    assert await found.find("mine") == "b", "it is remembered"
    assert b.asked == [HistoryRequest(ref="mine").for_daemon()]
    assert await found.find("nobodys") == ""
    assert await found.find("") == ""


async def test_the_records_of_all_are_listed_as_those_of_one() -> None:
    a = Keeper(ended("b", after=2), ended("d", after=4))
    b = Keeper(ended("a", after=1), ended("c", after=3))
    found = records_of(a=a, b=b, c=Keeper())
    assert refs(await found.listed(EVERYTHING)) == ["a", "b", "c", "d"]
    assert refs(await found.listed(HistoryRequest(limit=3))) == ["d", "c", "b"]
    assert refs(await records_of(a=Keeper()).listed(EVERYTHING)) == []


async def test_one_that_does_not_answer_costs_its_own_records_only() -> None:
    broken = Keeper()
    broken.trouble = DaemonError("it is broken")
    found = records_of(a=Keeper(ended("a")), b=broken, c=None)
    assert refs(await found.listed(EVERYTHING)) == ["a"]
    with pytest.raises(NoAnswer):
        await records_of(b=broken, c=None).listed(EVERYTHING)
    with pytest.raises(NoAnswer):
        await records_of().listed(EVERYTHING)


async def test_a_daemon_that_has_not_answered_is_not_waited_for_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Keeper(ended("b"))
    broken.trouble = DaemonError("it does not answer within 3 s")
    found = records_of(a=Keeper(ended("a")), b=broken)
    for _ in range(3):
        assert refs(await found.listed(EVERYTHING)) == ["a"]
    assert len(broken.asked) == 1
    alone = records_of(b=broken)
    for _ in range(2):
        with pytest.raises(NoAnswer):
            await alone.listed(EVERYTHING)
    assert len(broken.asked) == 3, "nobody else can answer"
    broken.trouble = None
    assert refs(await found.listed(HistoryRequest(ref="b"), runs_on="b")) == ["b"]
    monkeypatch.setattr(fleet, "SILENT_SECONDS", 0.0)
    broken.trouble = DaemonError("once more")
    await found.listed(HistoryRequest(ref="b"), runs_on="b")
    broken.trouble = None
    assert refs(await found.listed(EVERYTHING)) == ["a", "b"], "it was asked, and answers"


async def test_what_a_daemon_refuses_is_refused() -> None:
    keeper = Keeper()
    keeper.trouble = DaemonRefusedError("invalid limit -1")
    with pytest.raises(DaemonRefusedError, match="invalid limit"):
        await records_of(a=keeper).listed(EVERYTHING)


async def test_nobody_waits_for_the_others_once_a_record_is_found() -> None:
    hung = Keeper()
    hung.is_hung = True
    found = records_of(a=hung, b=Keeper(ended("mine", named(1)), content=(named(2),)))
    assert await found.find("mine") == "b"
    assert refs(await found.listed(HistoryRequest(ref="mine"))) == ["mine"]
    assert await found.holder_of(named(2)) == "b"


async def test_the_builder_of_a_build_is_asked_alone() -> None:
    a, b = Keeper(), Keeper(ended("mine"))
    found = records_of(a=a, b=b)
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="b")) == ["mine"]
    assert a.asked == []
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="a")) == ["mine"]
    assert refs(await found.listed(HistoryRequest(ref="mine"), runs_on="gone")) == ["mine"]


async def test_no_daemon_speaks_for_the_builds_of_another() -> None:
    """A step that breaks out of its sandbox speaks for its daemon."""
    watched = {"liar": Keeper(ended("mine", named(1))), "b": Keeper(ended("mine", named(2)))}
    found = records_of(**watched)
    found.built("mine", "b")
    assert [e.message for e in await found.listed(EVERYTHING)] == [watched["b"].kept[0].message]
    with found.listeners.listen("ann", "") as listener:
        found.tell("liar", ended("mine"))
        found.tell("b", ended("mine", named(9)))
        assert named(9).encode() in (await listener.next()).message
    assert await found.find("mine") == "b"


async def test_records_on_a_volume_are_those_of_the_pod_that_has_it_now() -> None:
    found = records_of(new=Keeper(ended("mine")))
    found.built("mine", "old")
    assert await found.find("mine") == "new"
    assert refs(await found.listed(EVERYTHING)) == ["mine"]


async def test_builders_that_drain_are_asked_and_no_connection_to_them_is_left() -> None:
    leaving = Keeper(ended("mine"), content=(named(1),))
    access = DaemonAccess(b"", KeyPair(b"", b""))
    found = BuildRecords(Fleet(PoolKey("builds", "ci"), dict, lambda *_: leaving))
    found.fleet.leaving = {"a": Target("10.0.0.1:1234", access)}
    assert refs(await found.listed(EVERYTHING)) == ["mine"]
    assert leaving.is_closed
    assert await found.find("mine") == "a"
    assert await found.holder_of(named(1)) == "a"


async def test_no_list_is_longer_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = ended("one"), ended("two")
    monkeypatch.setattr(module, "MAX_LISTED_BYTES", len(one.message))
    assert refs(await records_of(a=Keeper(two), b=Keeper(one)).listed(EVERYTHING)) == ["one"]


async def test_content_is_read_where_it_is() -> None:
    a = Keeper(ended("one", named(1)), content=(named(1),))
    b = Keeper(ended("three", named(3)), content=(named(3), named(4)))
    found = records_of(a=a, b=b)
    await found.listed(EVERYTHING)
    assert await found.holder_of(named(3)) == "b"
    assert await found.holder_of(named(1)) == "a"
    assert b.asked == [EVERYTHING.for_daemon()], "it is known from the records"
    assert await found.holder_of(named(4)) == "b", "it lies within other content"
    assert await found.holder_of(named(9)) == ""
    found.forget(named(4))
    assert b.asked.count(named(4).encode()) == 1
    assert await found.holder_of(named(4)) == "b"
    assert b.asked.count(named(4).encode()) == 2


@pytest.mark.parametrize("digest", ["", "sha256:x", named(1)[:-1], "../etc"])
async def test_nobody_is_asked_for_what_is_no_digest(digest: str) -> None:
    a = Keeper(content=(digest,))
    assert await records_of(a=a).holder_of(digest) == ""
    assert a.asked == []


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    monkeypatch.setattr(module, "MAX_DIGESTS", 1)
    found = records_of(a=Keeper(ended("one", named(1), named(2)), ended("two")))
    await found.listed(EVERYTHING)
    names = ("one", named(1), named(2), "two")
    assert [found.holder_known(name) for name in names] == ["", "a", "", "a"]


async def test_few_questions_go_to_all_daemons_at_once() -> None:
    keeper = Keeper()
    found = records_of(a=keeper)
    await asyncio.gather(*(found.find(f"ref{n}") for n in range(9)))
    await asyncio.gather(*(found.listed(EVERYTHING) for n in range(9)))
    assert len(keeper.asked) == 18
    assert keeper.most_at_once == module.AT_ONCE
