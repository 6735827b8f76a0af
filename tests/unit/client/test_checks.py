"""The questions of ``doctor``: what is asked, and what a line says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.checks import Answer, Check, Line, answered, shown
from buildpool.client.doctor import clock_error
from buildpool.client.parsing import date_in
from buildpool.core.errors import BuildpoolError

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def bad() -> str:
    raise BuildpoolError("it is closed; open it")


def test_what_depends_on_something_bad_is_not_asked() -> None:
    checks = [
        Check("first", lambda: "fine"),
        Check("door", bad, needs=("first",)),
        Check("room", lambda: "never said", needs=("first", "door")),
        Check("chair", lambda: "never said", needs=("room",)),
        Check("window", lambda: "it is light", needs=("first",)),
    ]
    assert list(answered(checks)) == [
        Line("first", Answer.OK, "fine"),
        Line("door", Answer.WRONG, "it is closed; open it"),
        Line("room", Answer.NOT_ASKED, "not asked: door comes first"),
        Line("chair", Answer.NOT_ASKED, "not asked: room comes first"),
        Line("window", Answer.OK, "it is light"),
    ]


def test_what_was_asked_before_counts() -> None:
    check = Check("room", lambda: "fine", needs=("house",))
    assert [line.answer for line in answered([check], known=["house"])] == [Answer.OK]
    assert [line.answer for line in answered([check])] == [Answer.NOT_ASKED]


@given(text=st.text())
def test_a_line_does_nothing_else_to_a_terminal(text: str) -> None:
    (line,) = answered([Check("door", lambda: text)])
    assert all(each.isprintable() for row in shown(line).split("\n") for each in row)


def test_the_moment_of_an_answer_is_found_in_what_any_kubectl_notes() -> None:
    older = "I1201 12:00:00.1 1 round_trippers.go:463]     Date: Tue, 01 Dec 2026 12:00:00 GMT\n"
    newer = 'I1201 "Response" headers=<\n\tAudit-Id: x\n\tDate: Tue, 01 Dec 2026 12:00:00 GMT\n >'
    assert (date_in(older), date_in(newer)) == (NOON, NOON)
    assert date_in("Date: Tue, 99 Foo 2026 12:00:00 GMT") is None
    assert date_in("") is None


@given(noted=st.text() | st.from_regex(r"Date: \w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d GMT"))
def test_nothing_that_is_noted_breaks_it(noted: str) -> None:
    found = date_in(noted)
    assert found is None or found.tzinfo is not None


def test_a_clock_is_compared_to_the_second() -> None:
    def error(there: float, before: float, after: float) -> float:
        moments = (NOON + timedelta(seconds=each) for each in (there, before, after))
        at, since, until = moments
        return clock_error(at, before=since, after=until).total_seconds()

    assert error(0, 0.5, 0.6) == 0  # a full second is said all through it
    assert error(0, -3, 5) == 0  # a slow answer shows nothing
    assert error(0, 61, 62) == 60
    assert error(100, 0, 1) == -99
