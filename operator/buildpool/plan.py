"""The heart: from a pool and what was seen of its world to what shall be done, and why.

``plan`` is a function of its arguments. It reads no clock, talks to nobody, and twice the same
question gets the same answer. It decides *what*; how the answer is carried out is the controller's
business, and how the result is told to the user is ``verdict``'s.

    conflicts       names the pool needs that belong to somebody else: then nothing is done
    issue           certificates that are needed first; the caller issues them and asks again
    apply, delete   the difference between the objects the pool consists of and those that are there
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool import naming
from buildpool.api import EventReason, Pool
from buildpool.observation import Observation
from buildpool.pki import (
    Bundle,
    CertificateReason,
    CertificateRequest,
    Finding,
    KeyPair,
    Use,
    read,
    renew_at,
    why_new_authority,
    why_reissue,
)
from buildpool.resources import (
    Object,
    Ref,
    authority_secret,
    builder_config,
    builder_deployment,
    builder_volume,
    bundle_of,
    certificate_secret,
    first_difference,
    is_owned,
    is_terminating,
    pair_of,
    pool_service,
    ref_of,
)
from buildpool.resources.objects import was_applied_as

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
RESYNC: Final = timedelta(minutes=10)
"""The longest a pool is left alone: what every watch has missed is found then."""

TROUBLED: Final = timedelta(seconds=10)
"""How soon to look again where a name is taken or an object refused: no watch tells of its end."""


@dataclass(frozen=True, slots=True)
class Issuance:
    """A certificate to be issued before anything else can be planned; no request: an authority."""

    secret: Ref
    request: CertificateRequest | None
    reason: CertificateReason
    message: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An object to be written, and why."""

    object: Object
    reason: EventReason | None
    """What to tell the user; None where it would not interest them."""
    message: str

    @property
    def ref(self) -> Ref:
        """Which object."""
        return ref_of(self.object)


@dataclass(frozen=True, slots=True)
class Delete:
    """An object to be removed, and why."""

    ref: Ref
    uid: str
    reason: EventReason | None
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and when to look again."""

    issue: tuple[Issuance, ...] = ()
    """If not empty, nothing else is planned yet."""
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    conflicts: tuple[Ref, ...] = ()
    """Names the pool needs that belong to somebody else."""
    recheck: timedelta = RESYNC


def plan(pool: Pool, observation: Observation, *, home: str, now: datetime) -> Plan:
    """What to do about a pool.

    ``home`` is the operator's own namespace, where the pool's authority lies.
    """
    live = observation.live
    conflicts = tuple(
        ref for ref in wanted_refs(pool, home=home) if ref in live and not is_owned(live[ref], pool)
    )
    if conflicts:
        return Plan(conflicts=conflicts, recheck=TROUBLED)
    issue = tuple(_issuances(pool, observation, home=home, now=now))
    if issue:
        return Plan(issue=issue)
    desired = tuple(_desired(pool, observation, home=home))
    return Plan(
        apply=_one_builder_at_a_time(tuple(_changes(desired, observation)), live),
        delete=tuple(_leftovers(pool, live, home=home)),
        recheck=_recheck(pool, observation, now=now),
    )


def wanted_refs(pool: Pool, *, home: str) -> tuple[Ref, ...]:
    """The names of all objects the pool shall consist of."""
    key = pool.key
    builders = range(pool.spec.builder_count)
    volumes = builders if pool.spec.builders.storage.volume_claim is not None else ()
    return (
        authority_ref(pool, home=home),
        *certificate_requests(pool),
        Ref("ConfigMap", key.namespace, naming.builder_config(key)),
        Ref("Service", key.namespace, naming.service(key)),
        *(
            Ref("PersistentVolumeClaim", key.namespace, naming.builder_volume(key, index))
            for index in volumes
        ),
        *(Ref("Deployment", key.namespace, naming.builder(key, index)) for index in builders),
    )


def authority_ref(pool: Pool, *, home: str) -> Ref:
    """The Secret with the pool's authority."""
    return Ref("Secret", home, naming.authority(pool.key))


def certificate_requests(pool: Pool) -> Mapping[Ref, CertificateRequest]:
    """The certificates a pool consists of, by their Secrets."""
    key, lifetime = pool.key, pool.spec.access.certificate_duration
    requests = {
        Ref("Secret", key.namespace, naming.builder_certificate(key)): CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} builder",
            dns_names=naming.server_names(key),
            ip_addresses=("127.0.0.1", "::1"),
            lifetime=lifetime,
        )
    }
    for client in pool.spec.access.clients:
        secret = naming.client_certificate(key, client.name)
        requests[Ref("Secret", key.namespace, secret)] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} {client.name}",
            uris=(naming.client_identity(key, client.name),),
            lifetime=lifetime,
        )
    return requests


def bundle_at(observation: Observation, ref: Ref) -> Bundle | None:
    """The bundle in a Secret, or the one issued for it in this very pass."""
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, Bundle) else bundle_of(observation.live.get(ref))


def authority_at(pool: Pool, observation: Observation, *, home: str) -> KeyPair | None:
    """The pool's authority, or the one issued for it in this very pass."""
    ref = authority_ref(pool, home=home)
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, KeyPair) else pair_of(observation.live.get(ref))


def _issuances(
    pool: Pool, observation: Observation, *, home: str, now: datetime
) -> Iterator[Issuance]:
    authority = authority_at(pool, observation, home=home)
    finding = why_new_authority(authority, now=now) or _ends_too_soon(pool, authority, now=now)
    if finding is not None:
        yield Issuance(authority_ref(pool, home=home), None, finding.reason, finding.message)
    if finding is not None or authority is None:
        return
    for ref, request in certificate_requests(pool).items():
        found = why_reissue(bundle_at(observation, ref), request, authority, now=now)
        if found is not None:
            yield Issuance(ref, request, found.reason, found.message)


def _ends_too_soon(pool: Pool, authority: KeyPair | None, *, now: datetime) -> Finding | None:
    """Whether new certificates would be cut short: each would be renewed sooner than the last."""
    if (
        authority is None
        or now + pool.spec.access.certificate_duration <= read(authority).not_after
    ):
        return None
    return Finding(CertificateReason.RENEWAL_DUE, "it ends before a new certificate would")


def _desired(pool: Pool, observation: Observation, *, home: str) -> Iterator[Object]:
    """Every object the pool consists of, in the order in which they need each other."""
    authority = authority_at(pool, observation, home=home)
    assert authority is not None  # noqa: S101 - _issuances asked for it before
    clients = {client.name for client in pool.spec.access.clients}
    # A client that is no longer wanted stays noted until its Secret is gone, too.
    leaving = {
        name
        for name in noted_clients(pool, observation.live, home=home)
        if client_ref(pool, name) in observation.live
    }
    yield authority_secret(pool, authority, namespace=home, clients=sorted(clients | leaving))
    builder_secret = naming.builder_certificate(pool.key)
    served = ""
    for ref in certificate_requests(pool):
        bundle = bundle_at(observation, ref)
        assert bundle is not None  # noqa: S101 - _issuances asked for it before
        component = naming.COMPONENT_CLIENT
        if ref.name == builder_secret:
            component, served = naming.COMPONENT_BUILDER, read(bundle.pair).fingerprint
        yield certificate_secret(pool, ref.name, bundle, component=component)
    yield builder_config(pool)
    yield pool_service(pool)
    for index in range(pool.spec.builder_count):
        volume = builder_volume(pool, index)
        if volume is not None:
            yield volume
        yield builder_deployment(pool, index, certificate_fingerprint=served)


def client_ref(pool: Pool, name: str) -> Ref:
    """The Secret of one client."""
    return Ref("Secret", pool.key.namespace, naming.client_certificate(pool.key, name))


def noted_clients(pool: Pool, live: Mapping[Ref, Object], *, home: str) -> tuple[str, ...]:
    """The clients that may have a Secret, as noted beside the authority."""
    secret = live.get(authority_ref(pool, home=home))
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, annotations.get(naming.ANNOTATION_CLIENTS, "").split(",")))


def _changes(desired: Sequence[Object], observation: Observation) -> Iterator[Apply]:
    for obj in desired:
        ref = ref_of(obj)
        there = observation.live.get(ref)
        if there is None:
            reason = _CREATED.get(ref.kind)
            yield Apply(obj, reason, f"created {ref}")
        elif is_terminating(there):
            continue  # it comes back when it is gone, and its going wakes us
        elif ref in observation.issued:
            yield Apply(obj, EventReason.RENEWED_CERTIFICATE, f"renewed the certificate in {ref}")
        elif not was_applied_as(there, obj):
            reason = EventReason.REPLACED_BUILDER if ref.kind == "Deployment" else None
            yield Apply(obj, reason, f"updated {ref}")
        elif (path := first_difference(there, obj)) not in (None, observation.overruled.get(ref)):
            message = f"{ref} had been changed at {path} by somebody else and was put right"
            yield Apply(obj, EventReason.REPAIRED_DRIFT, message)


_CREATED: Final = {
    "Deployment": EventReason.CREATED_BUILDER,
    "Secret": EventReason.ISSUED_CERTIFICATE,
}


def _one_builder_at_a_time(
    changes: tuple[Apply, ...], live: Mapping[Ref, Object]
) -> tuple[Apply, ...]:
    """New pods for one builder at a time; the next waits until this one serves again.

    Builders that are unsettled go first, since a bad revision is mended by the next one. New
    builders and changes that make no new pod wait for nobody. Nobody waits for a builder that no
    roll has brought down: it may lack a node for ever, and the others need new certificates.
    """
    rolling = [c for c in changes if c.ref.kind == "Deployment" and _makes_new_pod(c, live)]
    if not rolling:
        return changes
    unsettled = {
        ref: obj for ref, obj in live.items() if ref.kind == "Deployment" and not is_settled(obj)
    }
    is_rolling = any(_may_be_rolling(deployment) for deployment in unsettled.values())
    turn = [c for c in rolling if c.ref in unsettled] or ([] if is_rolling else rolling[:1])
    return tuple(c for c in changes if c not in rolling or c in turn)


def _makes_new_pod(change: Apply, live: Mapping[Ref, Object]) -> bool:
    template = {"spec": {"template": change.object["spec"]["template"]}}
    return change.ref in live and first_difference(live[change.ref], template) is not None


def _may_be_rolling(unsettled: Object) -> bool:
    """Whether a new pod may be on its way while, or because, the old one was to go.

    A surging builder keeps its old pod until the new one serves: without any it is just down.
    """
    is_serving = (unsettled.get("status") or {}).get("availableReplicas", 0) > 0
    return bool(is_serving or unsettled["spec"]["strategy"]["type"] == "Recreate")


def is_settled(deployment: Object) -> bool:
    """Whether the pod a builder is meant to have is there and serves."""
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= wanted
    )


def _leftovers(pool: Pool, live: Mapping[Ref, Object], *, home: str) -> Iterator[Delete]:
    wanted = frozenset(wanted_refs(pool, home=home))
    for ref, obj in sorted(live.items(), key=lambda item: item[0]):
        if ref in wanted or is_terminating(obj) or not is_owned(obj, pool):
            continue
        reason = _REMOVED.get(ref.kind)
        yield Delete(
            ref, obj["metadata"]["uid"], reason, f"removed {ref}, which the pool needs no more"
        )


_REMOVED: Final = {
    "Deployment": EventReason.REMOVED_BUILDER,
    "Secret": EventReason.REMOVED_CLIENT,
}


def _recheck(pool: Pool, observation: Observation, *, now: datetime) -> timedelta:
    bundles = (bundle_at(observation, ref) for ref in certificate_requests(pool))
    due = [renew_at(bundle.pair) - now for bundle in bundles if bundle is not None]
    return max(timedelta(0), min([RESYNC, *due]))
