"""Authorities and certificates of pools: issue them, read them, decide when new ones are needed.

Pure: key generation and serial numbers inside ``cryptography`` are the only randomness, and the
time is always an argument. It never stores, sends or logs anything: Secrets are kept elsewhere.

    values    what is passed around; no repr shows a key
    issuing   authority -> certificate
    reading   PEM -> facts; the one place where foreign exceptions become CertificateError
    renewal   facts + what is wanted + now -> why a new one is needed, or None
    rotation  authority + circumstances + now -> its next step, and what becomes of it
"""

from __future__ import annotations

from buildpool.core.pki.issuing import issue, issue_authority
from buildpool.core.pki.reading import read
from buildpool.core.pki.renewal import (
    CertificateReason,
    begins,
    ends,
    issued_at,
    renew_at,
    why_new_authority,
    why_reissue,
    why_retrust,
)
from buildpool.core.pki.rotation import (
    Change,
    Circumstances,
    Step,
    carried_out,
    deadlines,
    follows,
    next_step,
)
from buildpool.core.pki.values import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateRequest,
    Facts,
    KeyPair,
    Use,
)

__all__ = [
    "Authority",
    "AuthorityPhase",
    "Bundle",
    "CertificateReason",
    "CertificateRequest",
    "Change",
    "Circumstances",
    "Facts",
    "KeyPair",
    "Step",
    "Use",
    "begins",
    "carried_out",
    "deadlines",
    "ends",
    "follows",
    "issue",
    "issue_authority",
    "issued_at",
    "next_step",
    "read",
    "renew_at",
    "why_new_authority",
    "why_reissue",
    "why_retrust",
]
