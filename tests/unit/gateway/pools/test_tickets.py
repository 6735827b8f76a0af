"""Tickets of requests that were let in: good once, and no client spends those of another."""

from __future__ import annotations

import pickle

from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.tickets import GOOD_SECONDS, MAX_TICKETS, Admitted, Tickets

CI = PoolKey("builds", "ci")


def test_a_ticket_is_good_once_and_another_is_none() -> None:
    tickets, admitted = Tickets(), Admitted(CI, "ann", HistoryRequest())
    ticket = tickets.issue(admitted)
    assert tickets.take("") is None
    assert tickets.take(ticket[:-1]) is None
    assert tickets.take(ticket) is admitted
    assert tickets.take(ticket) is None


def test_no_client_spends_the_tickets_of_another() -> None:
    tickets, hers = Tickets(), Admitted(CI, "ann")
    first = tickets.issue(hers)
    others = [tickets.issue(Admitted(CI, "bob")) for _ in range(MAX_TICKETS + 1)]
    assert tickets.take(others[0]) is None, "the oldest is good no longer"
    assert tickets.take(others[1]) is not None
    assert tickets.take(first) is hers


def test_nothing_is_kept_of_a_ticket_that_was_used() -> None:
    tickets = Tickets()
    before = len(pickle.dumps(tickets))
    for number in range(100):
        tickets.take(tickets.issue(Admitted(CI, f"client {number}")))
    assert len(pickle.dumps(tickets)) == before


def test_a_ticket_is_good_for_a_while() -> None:
    """Its request may be lost between the answer about it and the router."""
    now = 0.0
    tickets = Tickets(now=lambda: now)
    old = tickets.issue(Admitted(CI, "ann"))
    now = GOOD_SECONDS - 1
    young = tickets.issue(Admitted(CI, "bob"))
    now = GOOD_SECONDS
    assert tickets.take(old) is None
    assert tickets.take(young) is not None
    for number in range(100):
        tickets.issue(Admitted(CI, f"client {number}"))
    now *= 3
    last = tickets.issue(Admitted(CI, "ann"))
    assert len(tickets) == 1, "those that are too old are dropped"
    assert tickets.take(last) is not None
