"""Who gets the next free slot: fair between clients, first come first served within one.

The client that holds the fewest slots for its weight is next: one that holds none is never behind
one that holds some. Between equals, who was served less for its weight: with a single slot, clients
take turns, however many builds one of them has waiting. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Waiting:
    """A connection without a slot."""

    connection: str
    client: str
    """Whose it is: the client's identity."""
    since: datetime
    order: int
    """Its place in the order of arrival: clocks can stand still, or go back."""


class Turns:
    """How much each client was served, in turns of one build divided by its weight.

    Who comes, or comes back, begins where the others are: to have been away saves up nothing.
    """

    def __init__(self) -> None:
        self._now = Fraction(0)
        self._next: dict[str, Fraction] = {}

    def of(self, client: str) -> Fraction:
        """When it is this client's turn; the lowest is next."""
        return max(self._next.get(client, self._now), self._now)

    def take(self, client: str, weight: int) -> None:
        """A client is served."""
        self._now = self.of(client)
        self._next[client] = self._now + Fraction(1, weight)


def next_in_line(
    waiting: Iterable[Waiting],
    *,
    held: Mapping[str, int],
    turns: Turns,
    weights: Mapping[str, int],
) -> Waiting | None:
    """Who gets the next slot; None where nobody waits.

    ``held``: slots by client; ``weights`` likewise, 1 where absent.
    """
    heads: dict[str, Waiting] = {}
    for each in waiting:
        head = heads.get(each.client)
        if head is None or each.order < head.order:
            heads[each.client] = each

    def share(head: Waiting) -> tuple[Fraction, Fraction, int]:
        client = head.client
        return Fraction(held.get(client, 0), weights.get(client, 1)), turns.of(client), head.order

    return min(heads.values(), key=share, default=None)
