"""Questions in order, and one line for the answer to each. Pure: it calls what it is given.

A question that depends on one whose answer was bad is not asked: its answer would be bad for the
same reason, and would hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from buildpool.client.refusals import one_line
from buildpool.core.errors import BuildpoolError
from buildpool.core.explanation.layout import hung


class Answer(StrEnum):
    """How a question was answered."""

    OK = "ok"
    WRONG = "wrong"
    NOT_ASKED = "-"


@dataclass(frozen=True, slots=True)
class Check:
    """One question."""

    about: str
    """What it is about, in a word or two."""
    ask: Callable[[], str]
    """Says what was found; a BuildpoolError says what is wrong, and its remedy."""
    needs: tuple[str, ...] = ()
    """What other questions are about whose answers have to be good before."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was found."""

    about: str
    answer: Answer
    text: str

    @property
    def is_wrong(self) -> bool:
        """Whether there is something to mend."""
        return self.answer is Answer.WRONG


def answered(checks: Iterable[Check], *, known: Iterable[str] = ()) -> Iterator[Line]:
    """Asks one after the other. ``known``: what good answers are about that there are already."""
    good = set(known)
    for check in checks:
        if missing := next((need for need in check.needs if need not in good), ""):
            yield Line(check.about, Answer.NOT_ASKED, f"not asked: {missing} comes first")
            continue
        try:
            text = check.ask()
        except BuildpoolError as error:
            yield Line(check.about, Answer.WRONG, one_line(str(error)))
        else:
            good.add(check.about)
            yield Line(check.about, Answer.OK, one_line(text))


def shown(line: Line) -> str:
    """The line for a terminal."""
    return "\n".join(hung(f"{line.answer:<7}{line.about:<{_WIDTH_COLUMNS}}", line.text))


_WIDTH_COLUMNS = 14
