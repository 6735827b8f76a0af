"""How many builders a pool shall have, which are new, which retire, which go: pure decisions.

values   what goes in and what comes out
size     how many: from the builds that run, damped
choice   which: new ones, retired ones, replaced ones, removed ones
"""

from __future__ import annotations

from buildpool.core.scaling.choice import decide
from buildpool.core.scaling.values import (
    FRESH,
    NOTICE,
    SETTLE,
    Builder,
    Calm,
    Decision,
    LastDecision,
    Retirement,
)

__all__ = [
    "FRESH",
    "NOTICE",
    "SETTLE",
    "Builder",
    "Calm",
    "Decision",
    "LastDecision",
    "Retirement",
    "decide",
]
