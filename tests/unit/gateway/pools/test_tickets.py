"""Tickets of requests that were let in: good once, and no client spends those of another."""

from __future__ import annotations

import pickle

from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.tickets import MAX_TICKETS, Admitted, Tickets

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
