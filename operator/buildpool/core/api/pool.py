"""A BuildKitPool as the rest of the program knows it, read from the object Kubernetes holds.

Pure. ``parse_pool`` is the one door from raw JSON to typed values: behind it a pool is valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from buildpool.core import naming
from buildpool.core.api.model import Rule
from buildpool.core.api.spec import PoolSpec
from buildpool.core.api.status import PoolStatus
from buildpool.core.api.validation import problems_of, structural_problems
from buildpool.core.errors import InvalidSpecError
from buildpool.core.naming import PoolKey

_NAME: Final = f"[a-z]([a-z0-9-]{{0,{naming.MAX_POOL_NAME_CHARACTERS - 2}}}[a-z0-9])?"
NAME_RULE: Final = Rule(
    cel=f"self.metadata.name.matches('^{_NAME}$')",
    holds=lambda name: re.fullmatch(_NAME, name) is not None,
    message="the name of a pool must be a DNS label that starts with a letter",
    remedy=f"use at most {naming.MAX_POOL_NAME_CHARACTERS} characters of a-z, 0-9 and -",
)
"""On the object as a whole; its Python twin takes the name."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One BuildKitPool."""

    key: PoolKey
    uid: str
    generation: int
    annotations: Mapping[str, str]
    created: datetime | None
    deletion_timestamp: datetime | None
    spec: PoolSpec
    status: PoolStatus


def parse_pool(obj: Mapping[str, Any], *, is_stored: bool = True) -> Pool:
    """The pool in a raw object; ``InvalidSpecError`` with everything that is wrong with it.

    Unknown fields of one that the API server has stored are those of a newer CRD, for it drops what
    its own does not know: an older operator does without them. In a file they are mistakes. A rule
    that is younger than a stored pool need not keep it from being tended (``Rule.spares_stored``).
    """
    name = obj["metadata"]["name"]
    problems = [] if NAME_RULE.holds(name) else [NAME_RULE.problem("metadata.name")]
    try:
        raw = obj.get("spec") or {}
        spec = PoolSpec.model_validate(raw, extra="ignore" if is_stored else "forbid")
    except ValidationError as error:
        raise InvalidSpecError((*problems, *structural_problems(error))) from None
    problems.extend(problems_of(spec, is_stored=is_stored))
    if problems:
        raise InvalidSpecError(tuple(problems))
    return _assemble(obj, spec)


def identify_pool(obj: Mapping[str, Any]) -> Pool:
    """The pool in a raw object whose spec is of no account: broken, or on its way out.

    Its spec is the default one. Never plan from it.
    """
    return _assemble(obj, PoolSpec())


def _assemble(obj: Mapping[str, Any], spec: PoolSpec) -> Pool:
    metadata = obj["metadata"]
    return Pool(
        key=PoolKey(metadata["namespace"], metadata["name"]),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        annotations=dict(metadata.get("annotations") or {}),
        created=_moment(metadata.get("creationTimestamp")),
        deletion_timestamp=_moment(metadata.get("deletionTimestamp")),
        spec=spec,
        status=PoolStatus.read(obj.get("status")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
