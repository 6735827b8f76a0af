"""What tests ask of plans: short names for what is to be done."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from buildpool.core.api import EventReason, Pool
from buildpool.core.objects.refs import Object
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.issuances import Issuance, issuances
from buildpool.core.planning.plan import Plan
from samples import NOW, a_situation, planned

PERSISTENT: Final = {"storage": {"volumeClaim": {"size": "10Gi"}}}


def image(tag: str, **builders: Any) -> dict[str, Any]:
    """``spec.builders`` with this image."""
    return {"image": f"r.example/buildkit:{tag}", **builders}


def asked(pool: Pool, observation: Observation, now: datetime = NOW) -> Plan:
    """The plan."""
    return planned(pool, observation, now=now)[1]


def ordered(pool: Pool, observation: Observation, now: datetime = NOW) -> tuple[Issuance, ...]:
    """What a pass asks to be issued first."""
    return tuple(issuances(a_situation(pool, observation, now=now)))


def applied(todo: Plan) -> list[str]:
    """What is written, as ``Kind/name``."""
    return [f"{change.ref.kind}/{change.ref.name}" for change in todo.apply]


def deleted(todo: Plan) -> list[str]:
    """What is removed, as ``Kind/name``."""
    return [f"{deletion.ref.kind}/{deletion.ref.name}" for deletion in todo.delete]


def created(todo: Plan) -> list[str]:
    """The names of new builders."""
    return [c.ref.name for c in todo.apply if c.reason is EventReason.CREATED_BUILDER]


def retired(todo: Plan) -> list[str]:
    """The names of builders that are to take no more builds."""
    return [m.ref.name for m in todo.mark if m.reason is EventReason.RETIRED_BUILDER]


def restored(todo: Plan) -> list[str]:
    """The names of builders that are to take builds again."""
    return [m.ref.name for m in todo.mark if m.reason is EventReason.RESTORED_BUILDER]


def removed(todo: Plan) -> list[str]:
    """The names of builders that go."""
    return [d.ref.name for d in todo.delete if d.reason is EventReason.REMOVED_BUILDER]


def turnover(todo: Plan) -> tuple[list[str], list[str], list[str]]:
    """The builders that come, retire and go."""
    return created(todo), retired(todo), removed(todo)


def container(deployment: Object) -> Object:
    """The first container of its pod."""
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found
