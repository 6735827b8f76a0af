"""What the modules of this package pass around: whom is asked, what came back, what went wrong.

Pure. No repr shows the body of an answer: a token service answers with a secret.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from buildpool.core.api import Reason
from buildpool.core.errors import BuildpoolError
from buildpool.core.words import Finding

MAX_QUOTED_CHARACTERS: Final = 100
"""Characters of a server's own words that a message may quote."""
_CODE: Final = re.compile(r"[A-Z][A-Z_]{1,40}")
_READ_ONLY: Final = re.compile(rb"read[ -]?only", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who is asked: a registry, its token service or its keeper."""

    name: str
    """As sentences begin: ``registry cache.example.com:5000``."""
    written_in: str
    """Where its address comes from, for remedies: ``cache.registry.ref``."""
    entry: str | None
    """Host of the entry in spec.registries that says how it is reached. None: the operator set it
    up itself, together with its certificates."""
    by_realm: bool = False
    """Whether a registry's configuration names it, scheme included: a token service."""
    must_be_public: bool = False
    """Whether it is asked at addresses of the Internet only: a registry there named it, which must
    not learn through the operator what is said within."""

    def use(self, *, http: bool) -> str:
        """What makes it be asked by the other scheme, as a remedy."""
        if self.entry is None or self.by_realm:
            return f"correct {self.written_in}"
        change = "set http: true in" if http else "remove http: true from"
        return f"{change} its entry in spec.registries, host {self.entry}"


@dataclass(frozen=True, slots=True)
class RegistryAnswer:
    """What came back for one request."""

    status: int
    content_type: str = ""
    location: str | None = None
    challenges: tuple[str, ...] = ()
    """Values of WWW-Authenticate, as they came."""
    body: bytes = field(default=b"", repr=False)
    """Its beginning, which is all that is ever needed."""

    @property
    def is_page(self) -> bool:
        """Whether it is for people in front of a browser."""
        return "html" in self.content_type or self.body.lstrip()[:1] == b"<"

    @property
    def codes(self) -> str:
        """The error codes of an OCI registry in it, such as ``DENIED``.

        Their messages are never quoted: a server may echo in them what it was sent.
        """
        raw = self.json()
        errors = raw.get("errors") if isinstance(raw, dict) else None
        codes = [e.get("code") for e in errors or () if isinstance(e, dict)] if errors else []
        return ", ".join(c for c in codes if isinstance(c, str) and _CODE.fullmatch(c))[
            :MAX_QUOTED_CHARACTERS
        ]

    @property
    def says_read_only(self) -> bool:
        """Whether the error speaks of a registry that takes no writes at present."""
        return _READ_ONLY.search(self.body) is not None

    def json(self) -> Any:
        """What the body says; None where it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def __str__(self) -> str:
        kind = f" ({plain(self.content_type)})" if self.content_type else ""
        return f"{self.status}{' ' * bool(self.codes)}{self.codes}{kind}"


class PreflightFailure(BuildpoolError):  # noqa: N818 - a finding, not a fault of ours
    """Something is wrong, and nothing more needs to be asked. Never leaves this package."""

    def __init__(self, reason: Reason, what: str, remedy: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.remedy = remedy

    @property
    def trouble(self) -> Finding[Reason]:
        """The same for those who look at pools."""
        return Finding(self.reason, f"{self.what}; {self.remedy}")


def plain(text: str) -> str:
    """A server's own words, fit to be quoted on one line."""
    return "".join(c for c in text if c.isprintable())[:MAX_QUOTED_CHARACTERS]
