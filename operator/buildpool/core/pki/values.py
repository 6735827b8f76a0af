"""What the other modules of this package pass around.

Values only, no decisions. The repr of a value never shows a private key nor a certificate: values
end up in logs and tracebacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from buildpool.core.words import Word

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a certificate reaches back before its issue, for nodes whose clock is behind."""

AUTHORITY_SKEW: Final = timedelta(days=1)
"""How much further an authority reaches back: one that is not valid yet shuts everybody out."""

MAX_COMMON_NAME_CHARACTERS: Final = 64
"""X.520's limit of a common name. Subject alternative names, which matter, have no such limit."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: bytes = field(repr=False)
    """PEM, the leaf first."""
    key: bytes = field(repr=False)
    """PEM, PKCS#8, not encrypted."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one party of a TLS connection needs: its own pair, and whom it trusts."""

    pair: KeyPair
    trust: bytes = field(repr=False)
    """PEM, one or more authorities: two while one takes over from the other."""


class AuthorityPhase(Word):
    """Where the replacement of an authority is."""

    STEADY = "Steady", "One authority signs and is trusted; none is being replaced."
    INTRODUCING = (
        "Introducing",
        "A new authority is trusted beside the present one, which still signs.",
    )
    REPLACING = (
        "Replacing",
        "The new authority signs; the one before is still trusted, and its key is gone.",
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """Who vouches for the parties of a pool: one authority, or two while one takes over."""

    signer: KeyPair
    """The one that signs."""
    upcoming: KeyPair | None = None
    """The one that is to sign next: trusted already, and has signed nothing."""
    previous: bytes | None = field(default=None, repr=False)
    """The certificate, PEM, of the one that signed before: still trusted. Its key is gone."""
    since: datetime | None = None
    """Since when every Secret of the pool follows the present phase; None until then, and when no
    replacement goes on."""

    @property
    def phase(self) -> AuthorityPhase:
        """Where its replacement is."""
        if self.previous is not None:
            return AuthorityPhase.REPLACING
        return AuthorityPhase.STEADY if self.upcoming is None else AuthorityPhase.INTRODUCING

    @property
    def trust(self) -> bytes:
        """All that are to be trusted, PEM, the signer first: what belongs into every bundle."""
        upcoming = None if self.upcoming is None else self.upcoming.certificate
        parts = (self.signer.certificate, upcoming, self.previous)
        return b"".join(part.rstrip() + b"\n" for part in parts if part is not None)


class Use(StrEnum):
    """Which end of a connection a certificate is good for. Never both."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A certificate that is wanted."""

    use: Use
    common_name: str
    """For people. Cut to its first 64 characters in the certificate."""
    lifetime: timedelta
    """Counted from the moment of issue, in whole seconds. Cut where the authority ends."""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    patient_names: str = ""
    """How DNS names begin that wait for the next certificate: that they are others is no reason to
    issue one. Empty: none wait."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says about itself. Public knowledge: it can be logged and shown."""

    common_name: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    uris: tuple[str, ...]
    uses: tuple[str, ...]
    """Extended key usages: a ``Use`` where we have a name for it, otherwise the dotted OID."""
    serial: int
    fingerprint: str
    """SHA-256 of the DER encoding, lower-case hexadecimal, no colons."""
    subject_key_id: str | None
    authority_key_id: str | None
    """The subject key id of the issuer. Both lower-case hexadecimal."""
    key_matches: bool
    """Whether the private key of the pair belongs to this certificate."""


def short_name(common_name: str) -> str:
    """The part of a common name that a certificate can hold."""
    return common_name[:MAX_COMMON_NAME_CHARACTERS]
