"""Every exception this package raises on purpose, as one tree.

    BuildpoolError
    ├── InvalidSpecError          the user's BuildKitPool cannot be carried out
    ├── CertificateError          a certificate, key or bundle cannot be read
    ├── UnreachableError          a registry or keeper cannot answer now (sidecars.guard.upstream)
    ├── UnreadableError           a file of a cache cannot be read now (sidecars.keeper.files)
    ├── PreflightFailure          a check of a pool found something wrong (preflight.values)
    ├── AddressRefused            a registry is where nobody may be asked (preflight.addresses)
    ├── DaemonError               a build daemon does not answer (buildkit.daemon)
    │   ├── DaemonLateError       not in time
    │   └── DaemonRefusedError    it refuses the question
    ├── WireError                 a message of BuildKit cannot be read (buildkit.protobuf)
    ├── NoAnswer                  no builder of a pool answers (gateway.pools.records)
    ├── KubernetesError           the Kubernetes API did not do what we asked
    │   ├── NotFoundError         404
    │   ├── ConflictError         409: somebody else wrote first, or the object is not ours
    │   ├── RefusedError          400, 403, 422, and 500 for a field that does not exist: the same
    │   │                         request will be refused again
    │   └── UnavailableError      429, 5xx, time-outs and broken connections: trying again helps
    └── Refused                   a client of the gateway gets nothing (gateway.slots.refusals)
        ├── Denied                it may not do this
        ├── Unreadable            its message cannot be read
        ├── Exhausted             no slot became free in time, or it asks for too much
        │   ├── NoBuilder         its session can wait no longer, and there is no builder yet
        │   └── SlotLost          it began nothing while its slot was kept
        └── Unavailable           no builder can answer
            ├── NotServed         the pool is gone, or its clients reach it another way
            └── SessionEnded      its session is of no use any more: it has waited for a slot

Foreign exceptions are mapped into this tree in one place (``kube.errors``).
"""

from __future__ import annotations

from dataclasses import dataclass


class BuildpoolError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a spec: where it is, what it is, how to mend it."""

    path: str
    """Dotted path of the field below the object, such as ``spec.builders.image``."""
    message: str
    """What is wrong, in one sentence without a full stop."""
    remedy: str
    """What the user can do about it, in one sentence without a full stop."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.remedy}."


class InvalidSpecError(BuildpoolError):
    """A BuildKitPool that cannot be carried out. Carries all problems found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(" ".join(str(problem) for problem in problems))
        self.problems = problems


class CertificateError(BuildpoolError):
    """A certificate, key or bundle cannot be read. Never quotes the material itself."""


class KubernetesError(BuildpoolError):
    """The Kubernetes API did not do what we asked."""


class NotFoundError(KubernetesError):
    """The object does not exist (404), or what lies at such a path is not served at all."""

    name: str = ""
    """Of the object, where the answer says that this very one does not exist."""


class ConflictError(KubernetesError):
    """Somebody else wrote first, or the object belongs to somebody else (409)."""


class RefusedError(KubernetesError):
    """The request itself is refused and will be again (400, 403, 422; 500 for what is misspelt)."""


class UnavailableError(KubernetesError):
    """The API cannot answer just now (429, 5xx, time-out, broken connection). Try again."""
