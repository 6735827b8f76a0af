"""Whether a BuildKit cache can be kept in a registry, and if not, exactly why.

One bounded look: ``inspect``. Network trouble is an answer here, never an exception. No message
and no repr holds a password, a token or a key.

    values      whom is asked, what came back, what went wrong; pure
    urls        foreign text -> a URL that can be used, or none; pure
    addresses   where a name leads, and whether anybody is asked there
    challenge   WWW-Authenticate -> how to authenticate; pure
    judging     what an answer means; pure
    tls         contexts, and what goes wrong with certificates
    wire        one request; the one place where network errors become findings
    login       asks again with a password or a token where the registry wants it
    probe       the steps, in their order
"""

from __future__ import annotations

from buildpool.preflight.addresses import Network, Reach
from buildpool.preflight.probe import inspect

__all__ = ["Network", "Reach", "inspect"]
