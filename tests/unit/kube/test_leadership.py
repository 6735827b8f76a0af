"""Elections by a clock that is turned on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

import virtual_time
from buildpool.core.errors import ConflictError, UnavailableError
from buildpool.kube.cluster import Cluster
from buildpool.kube.leadership import Election, Sighting, may_claim


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class OneLease:
    """An API server that has one Lease."""

    spec: dict[str, Any] | None = None
    version: int = 0

    def write(self, **spec: Any) -> None:
        self.spec, self.version = {**(self.spec or {}), **spec}, self.version + 1


@dataclass
class Line:
    """One candidate's connection to it; stands in for a ``Cluster``."""

    server: OneLease
    is_silent: bool = False
    seconds: float = 0.0
    """How long an answer takes; a write is done at once."""

    async def get(self, _: object) -> dict[str, Any] | None:
        await self._heard()
        if self.server.spec is None:
            return None
        return {
            "metadata": {"resourceVersion": str(self.server.version)},
            "spec": dict(self.server.spec),
        }

    async def create(self, lease: dict[str, Any]) -> None:
        await self._heard()
        if self.server.spec is not None:
            raise ConflictError("exists")
        self.server.write(**lease["spec"])
        await asyncio.sleep(self.seconds)

    async def patch(self, _: object, change: dict[str, Any]) -> None:
        await self._heard()
        if change["metadata"]["resourceVersion"] != str(self.server.version):
            raise ConflictError("changed")
        self.server.write(**change["spec"])
        await asyncio.sleep(self.seconds)

    async def _heard(self) -> None:
        await asyncio.sleep(3600 if self.is_silent else 0)


def an_election(line: Line, identity: str) -> Election:
    cluster = cast("Cluster", line)
    return Election(cluster, namespace="home", identity=identity, name="lease")


@dataclass
class Candidate:
    """A process that stands for election again and again."""

    line: Line
    name: str
    terms: list[list[float]] = field(default_factory=list)
    """When each began and, if so, ended."""

    async def run(self) -> None:
        election = an_election(self.line, self.name)
        while True:
            await election.lead(self._work, asyncio.Event())

    async def _work(self) -> None:
        self.terms.append([now()])
        try:
            await asyncio.Event().wait()
        finally:
            self.terms[-1].append(now())

    @property
    def leads(self) -> bool:
        return bool(self.terms) and len(self.terms[-1]) == 1


def candidates(server: OneLease, *names: str) -> list[Candidate]:
    return [Candidate(Line(server), name) for name in names]


class Running:
    """Candidates for the length of a block."""

    def __init__(self, *who: Candidate) -> None:
        self._who = who

    async def __aenter__(self) -> None:
        self._tasks = []
        for candidate in self._who:
            self._tasks.append(asyncio.create_task(candidate.run()))
            await asyncio.sleep(0.1)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("answers_take", [0.0, 1.0, 1.9, 3.9])
def test_a_silenced_leader_stops_before_the_other_starts(answers_take: float) -> None:
    """At whatever moment it happens, and however late the last answer to it was."""

    async def scenario(silenced_after: float) -> None:
        one, two = candidates(OneLease(), "one", "two")
        one.line.seconds = answers_take
        async with Running(one, two):
            await asyncio.sleep(silenced_after)
            assert one.leads
            one.line.is_silent = True
            await asyncio.sleep(40)
            assert two.leads
            (began, ended), (took_over,) = one.terms[0], two.terms[0]
            assert began < ended < took_over <= began + silenced_after + 20 + answers_take

    for quarter in range(48):
        virtual_time.run(scenario(8 + quarter / 4))


def test_who_has_lost_it_waits_and_leads_again() -> None:
    async def scenario() -> None:
        one, two = candidates(OneLease(), "one", "two")
        async with Running(one, two):
            one.line.is_silent = True
            await asyncio.sleep(30)
            one.line.is_silent = False
            await asyncio.sleep(60)
            assert (one.leads, two.leads) == (False, True)
            two.line.is_silent = True
            await asyncio.sleep(30)
            assert (one.leads, two.leads) == (True, False)
        assert len(one.terms) == 2

    virtual_time.run(scenario())


def test_who_finds_anothers_name_stops_at_once() -> None:
    """As after a sleep of the whole machine, in which its own clock stood still."""

    async def scenario() -> None:
        server = OneLease()
        (one,) = candidates(server, "one")
        async with Running(one):
            await asyncio.sleep(10)
            server.write(holderIdentity="two")
            await asyncio.sleep(4)
            assert not one.leads

    virtual_time.run(scenario())


def test_a_leader_that_was_stopped_is_respected_no_longer_before_another_may_start() -> None:
    """Whatever it was about to do as it wakes, before it has looked at the Lease."""

    async def scenario(stopped_after: float) -> None:
        server = OneLease()
        line = Line(server)
        election = an_election(line, "one")
        assert not election.is_respected(), "before it leads"
        leads = asyncio.create_task(election.lead(asyncio.Event().wait, asyncio.Event()))
        await asyncio.sleep(stopped_after)
        seen = Sighting(dict(server.spec or {}), now())
        assert election.is_respected()
        line.is_silent = True  # it renews nothing any more, as one that is stopped
        while election.is_respected():
            assert not may_claim(seen, "two", now=now())
            await asyncio.sleep(0.1)
        await leads

    async def ends(*, by_itself: bool) -> None:
        server, stop = OneLease(), asyncio.Event()
        election = an_election(Line(server), "one")
        leads = asyncio.create_task(election.lead(stop.wait, asyncio.Event()))
        await asyncio.sleep(5)
        assert election.is_respected()
        if by_itself:
            stop.set()
        else:
            server.write(holderIdentity="two")
        await leads
        assert not election.is_respected()

    for by_itself in (True, False):
        virtual_time.run(ends(by_itself=by_itself))

    for quarter in range(32):
        virtual_time.run(scenario(0.25 + quarter / 4))


def test_one_failed_renewal_costs_nothing() -> None:
    async def scenario() -> None:
        one, two = candidates(OneLease(), "one", "two")
        async with Running(one, two):
            await asyncio.sleep(9)
            one.line.is_silent = True
            await asyncio.sleep(5)
            one.line.is_silent = False
            await asyncio.sleep(60)
            assert one.leads
            assert not two.terms

    virtual_time.run(scenario())


def test_work_that_ends_leaves_the_lease_to_others() -> None:
    async def scenario() -> None:
        server = OneLease()
        election = an_election(Line(server), "one")

        async def broken() -> None:
            await asyncio.sleep(5)
            raise UnavailableError("no watches")

        with pytest.raises(UnavailableError, match="no watches"):
            await election.lead(broken, asyncio.Event())
        assert server.spec is not None
        assert server.spec["holderIdentity"] == ""

    virtual_time.run(scenario())


def test_anothers_lease_is_not_released() -> None:
    async def scenario() -> None:
        server = OneLease()
        election = an_election(Line(server), "one")

        async def overtaken() -> None:
            server.write(holderIdentity="two")

        await election.lead(overtaken, asyncio.Event())
        assert server.spec is not None
        assert server.spec["holderIdentity"] == "two"

    virtual_time.run(scenario())


def test_waiting_ends_when_asked_to() -> None:
    async def scenario() -> None:
        line, stop = Line(OneLease(), is_silent=True), asyncio.Event()
        election = an_election(line, "one")
        asyncio.get_running_loop().call_later(1, stop.set)

        async def never() -> None:
            raise AssertionError

        async with asyncio.timeout(5):
            await election.lead(never, stop)

    virtual_time.run(scenario())


@pytest.mark.parametrize("date", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_dates_in_a_lease_are_never_judged(date: str) -> None:
    """A clock that jumps, here or there, neither keeps nor frees a Lease."""
    spec = {"holderIdentity": "two", "leaseDurationSeconds": 15, "renewTime": date}
    assert not may_claim(Sighting(spec, since=100.0), "one", now=114.9)
    assert may_claim(Sighting(spec, since=100.0), "one", now=115.0)
