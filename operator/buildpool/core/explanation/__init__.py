"""Why a pool has the size it has, and what it will do next, in words for its users.

Pure: from the pool's own spec and status, so that nobody needs more than the right to read it. It
repeats what the operator has decided and never decides anew; what the status does not say is not
guessed.

sections  what is said, from the most urgent to the least
size      why so many builders, and when there will be more or fewer
layout    how it looks in a terminal
"""

from __future__ import annotations

from buildpool.core.explanation.sections import explain

__all__ = ["explain"]
