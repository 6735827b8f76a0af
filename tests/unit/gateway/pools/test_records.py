"""Where the records of builds are found, whatever the daemons of a pool say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import BuildEventKind
from buildpool.buildkit.history_requests import by_ref
from buildpool.buildkit.solve_requests import frame
from buildpool.gateway.pools import records as module
from buildpool.gateway.pools.records import BuildRecords, Listing
from daemons import a_record, an_event, field

EVERYTHING = bytes((3 << 3, 1))


def named(number: int) -> str:
    """The digest of some content."""
    return f"sha256:{number:064x}"


def an_event_with(ref: str, *digests: str) -> bytes:
    """The end of a build with these results."""
    results = b"".join(field(9, field(1, digest.encode())) for digest in digests)
    return field(1, BuildEventKind.COMPLETE) + field(2, a_record(ref) + results)


class Daemons:
    """What the daemons of a pool answer, whatever they are asked."""

    def __init__(self, **answers: tuple[bytes, ...]) -> None:
        self.answers = answers
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, request: bytes) -> Mapping[str, tuple[bytes, ...]]:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.answers


async def test_a_record_is_where_a_daemon_tells_of_it() -> None:
    """BuildKit tells of builds that run beside it, whatever the filter."""
    other = an_event(BuildEventKind.STARTED, "other")
    daemons = Daemons(a=(other, b"\xff"), b=(other, an_event(BuildEventKind.COMPLETE, "mine")))
    found = BuildRecords(daemons)
    assert await found.find("mine") == "b"
    assert await found.find("nobodys") == ""
    assert daemons.asked == [by_ref("mine"), by_ref("nobodys")]


async def test_nobody_is_asked_for_what_no_filter_can_name() -> None:
    daemons = Daemons(a=(an_event(BuildEventKind.COMPLETE, "a,status==error"),))
    assert await BuildRecords(daemons).find("a,status==error") == ""
    assert await BuildRecords(daemons).find("") == ""
    assert daemons.asked == []


async def test_what_the_others_have_is_added_to_the_list_of_the_one_with_the_most() -> None:
    one, two, three = (an_event(BuildEventKind.COMPLETE, ref) for ref in ("one", "two", "three"))
    records = BuildRecords(Daemons(a=(one,), b=(two, three), c=()))
    assert await records.gather("x", EVERYTHING) == Listing("b", frame(one))
    assert await BuildRecords(Daemons(a=(), b=())).gather("x", EVERYTHING) == Listing()
    assert await BuildRecords(Daemons()).gather("x", EVERYTHING) == Listing()


async def test_no_list_is_longer_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (an_event(BuildEventKind.COMPLETE, ref) for ref in ("one", "two"))
    monkeypatch.setattr(module, "MAX_LISTED_BYTES", len(one))
    records = BuildRecords(Daemons(a=(one, two), b=(one,), c=(two,)))
    assert await records.gather("x", EVERYTHING) == Listing("a", frame(one))


async def test_content_is_read_where_it_is() -> None:
    records = BuildRecords(
        Daemons(
            a=(an_event_with("one", named(1)), an_event_with("two", named(2))),
            b=(an_event_with("three", named(3)),),
        )
    )
    assert records.holder_of("x", named(1)) == "", "nothing was told yet"
    await records.gather("x", EVERYTHING)
    assert records.holder_of("x", named(3)) == "b"
    assert records.holder_of("x", named(9)) == "b", "it lies within what was read last"
    assert records.holder_of("x", named(2)) == "a"
    assert records.holder_of("another", named(3)) == ""
    records.reads("x", "b")
    assert records.holder_of("x", named(9)) == "b"
    records.forget("x")
    assert records.holder_of("x", named(3)) == ""


async def test_what_connections_have_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READERS", 2)
    monkeypatch.setattr(module, "MAX_DIGESTS", 1)
    records = BuildRecords(Daemons(a=(an_event_with("one", named(1), named(2)),), b=()))
    await records.gather("x", EVERYTHING)
    records.reads("x", "")
    assert records.holder_of("x", named(2)) == ""
    assert records.holder_of("x", named(1)) == "a"
    records.reads("y", "b")
    records.reads("z", "b")
    assert records.holder_of("x", named(1)) == "", "the oldest is forgotten"


async def test_few_questions_go_to_all_daemons_at_once() -> None:
    daemons = Daemons(a=())
    records = BuildRecords(daemons)
    await asyncio.gather(
        *(records.find(f"ref{n}") for n in range(9)),
        *(records.gather(f"{n}", EVERYTHING) for n in range(9)),
    )
    assert len(daemons.asked) == 18
    assert daemons.most_at_once == module.AT_ONCE


@given(answers=st.dictionaries(st.text(min_size=1), st.lists(st.binary(max_size=80)).map(tuple)))
def test_whatever_daemons_answer_a_client_gets_a_list(
    answers: dict[str, tuple[bytes, ...]],
) -> None:
    async def run() -> None:
        records = BuildRecords(Daemons(**answers))
        await records.find("ref")
        listing = await records.gather("x", EVERYTHING)
        assert (listing.builder in answers) is any(answers.values())
        records.holder_of("x", named(1))

    asyncio.run(run())
