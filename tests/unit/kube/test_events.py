from __future__ import annotations

from buildpool.core.api import EventReason, Reason
from buildpool.core.api.events import Event, EventType
from buildpool.kube.events import together


def an_event(
    reason: Reason | EventReason, message: str, kind: EventType = EventType.NORMAL
) -> Event:
    return Event(kind, reason, message)


def test_what_was_done_for_one_reason_is_one_event() -> None:
    created, issued = EventReason.CREATED_BUILDER, EventReason.ISSUED_CERTIFICATE
    done = [an_event(issued, "A."), an_event(created, "B."), an_event(issued, "C.")]
    assert together(done) == (an_event(issued, "A. C."), an_event(created, "B."))


def test_a_warning_does_not_hide_in_good_news() -> None:
    good = an_event(Reason.READY, "All serve.")
    bad = an_event(Reason.READY, "None serves.", EventType.WARNING)
    assert together([good, bad]) == (good, bad)


def test_nothing_to_tell_is_no_event() -> None:
    assert together([]) == ()
