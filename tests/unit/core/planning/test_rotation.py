"""Years of a pool's certificates in seconds: daemons read their Secret once, clients now and then.

The Secrets are real, and so are the certificates in them and their verification. The clock is a
number, and time passes from one event to the next.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.api.duration import parse_duration
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Authority, AuthorityPhase, Bundle, KeyPair, follows, issue_authority
from buildpool.core.planning.certificates import (
    authority_ref,
    builder_ref,
    cache_secrets,
    certificate_requests,
    client_ref,
)
from buildpool.core.planning.issuances import Order, carry_out, issuances, renewals
from buildpool.core.planning.situation import Situation
from buildpool.core.resources import authority_secret, bundle_of, certificate_secret
from buildpool.core.resources.secret import authority_in
from samples import DAY, HOME, INSTALLATION, NOW, a_pool, clients

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
AT_ONCE = timedelta(0)
CACHE = {"registry": {"managed": {}}}


@cache
def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


@cache
def store(trust: bytes) -> Store:
    return Store(x509.load_pem_x509_certificates(trust))


@dataclass
class Server:
    """A daemon: what it read of its Secret when it started."""

    ref: Ref
    name: str
    bundle: Bundle


@dataclass
class Client:
    """Somebody who builds, or a builder that uses the cache."""

    ref: Ref
    servers: Ref
    """The Secret of those it connects to."""
    patience: timedelta
    """How long it works with a copy of its Secret."""
    bundle: Bundle
    read_at: datetime


@dataclass(frozen=True)
class Heard(Situation):
    """What a pass knows that hears of the daemons of a simulated world."""

    world: World | None = None

    @property
    def everyone_runs(self) -> bool:
        assert self.world is not None
        return self.world.is_careless or self.world.everyone_has_it(self)


@dataclass
class World:
    """A pool, its Secrets, its daemons and their clients."""

    pool: Pool
    secrets: dict[Ref, Object] = field(default_factory=dict)
    now: datetime = NOW
    servers: list[Server] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    size: int = 2
    roll_takes: timedelta = 7 * MINUTE
    rolled_at: datetime = NOW
    is_careless: bool = False
    """Takes it for granted that every daemon has read its Secret."""
    former_keys: set[bytes] = field(default_factory=set)
    phases: list[AuthorityPhase] = field(default_factory=list)

    @property
    def authority(self) -> Authority:
        found = authority_in(self.secrets[authority_ref(self.pool, INSTALLATION)])
        assert found is not None
        return found

    def bundle(self, ref: Ref) -> Bundle:
        found = bundle_of(self.secrets[ref])
        assert found is not None
        return found

    # --- the operator ----------------------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        """What a pass knows now."""
        seen = Observation(live=dict(self.secrets))
        return Heard(self.pool, seen, INSTALLATION, self.now, world=self)

    def issued(self) -> tuple[Situation, dict[Ref, Object]]:
        """The Secrets that one pass wants to write, the authority first."""
        s = self.situation
        while todo := tuple(issuances(s)):
            s = s.with_issued(carry_out(Order(todo, s.authority, self.now)))
        made = {ref: self.secret(ref, issued) for ref, issued in s.issued.items()}
        first = authority_ref(self.pool, INSTALLATION)
        return s, {ref: made[ref] for ref in sorted(made, key=lambda ref: ref != first)}

    def secret(self, ref: Ref, issued: Authority | Bundle) -> Object:
        if isinstance(issued, Authority):
            return authority_secret(self.pool, issued, namespace=HOME, clients=())
        return certificate_secret(self.pool, ref.name, issued, component="any")

    def everyone_has_it(self, s: Situation) -> bool:
        return all(server.bundle == s.bundles[server.ref] for server in self.servers)

    def steps(self) -> Iterator[Ref]:
        """One pass, write by write."""
        for ref, secret in self.issued()[1].items():
            self.write(ref, secret)
            yield ref

    def step(self) -> list[Ref]:
        """One whole pass, after which a request of the user is fulfilled."""
        written = list(self.steps())
        self.pool = replace(self.pool, annotations={})
        return written

    def write(self, ref: Ref, secret: Object) -> None:
        self.read_in_time()
        for client in self.clients:
            if client.ref == ref and client.patience:
                self.read_just_before(client)
        is_authority = ref == authority_ref(self.pool, INSTALLATION)
        before = self.authority.signer if is_authority and ref in self.secrets else None
        self.secrets[ref] = secret
        if is_authority:
            if before is not None and before != self.authority.signer:
                self.former_keys.add(before.key)
            if [self.authority.phase] != self.phases[-1:]:
                self.phases.append(self.authority.phase)
        self.read_in_time()
        self.check()

    def read_just_before(self, client: Client) -> None:
        """The worst that can happen to somebody who is to read again after this write."""
        if self.now - client.read_at >= client.patience:
            client.read_at = self.now

    # --- daemons and clients ---------------------------------------------------------------------

    def populate(self, *patience: timedelta) -> None:
        """Daemons and clients come, once there are certificates."""
        builders, pool = builder_ref(self.pool), self.pool
        for _ in range(self.size):
            self.start(builders)
        for client, span in zip(pool.spec.access.clients, patience, strict=True):
            ref = client_ref(pool, client.name)
            self.clients.append(Client(ref, builders, span, self.bundle(ref), self.now))
        registry, shown = cache_secrets(pool)
        if registry in self.secrets:
            self.start(registry)
            span = min(MINUTE, pool.spec.access.authority_overlap)
            self.clients.append(Client(shown, registry, span, self.bundle(shown), self.now))

    def start(self, ref: Ref) -> None:
        is_builder = ref == builder_ref(self.pool)
        service = (naming.service if is_builder else naming.cache)(self.pool.key)
        name = f"{service}.{self.pool.key.namespace}.svc"
        self.servers.append(Server(ref, name, self.bundle(ref)))

    def outdated(self) -> list[Server]:
        return [each for each in self.servers if each.bundle != self.bundle(each.ref)]

    def roll(self) -> None:
        """The next daemon comes, or an old one goes: one after the other."""
        self.rolled_at = self.now
        for old in self.outdated()[:1]:
            size = self.size if old.ref == builder_ref(self.pool) else 1
            alike = [each for each in self.servers if each.ref == old.ref]
            if len(alike) <= size:
                self.start(old.ref)
            else:
                self.servers.remove(old)
        self.check()

    def read_in_time(self) -> None:
        for client in self.clients:
            if self.now - client.read_at >= client.patience:
                client.bundle = self.bundle(client.ref)
                if not client.patience:
                    client.read_at = self.now

    def check(self) -> None:
        """Every client meets every daemon; no key does what it must not."""
        for client in self.clients:
            for server in self.servers:
                if server.ref == client.servers:
                    why = f"{self.now}: {self.authority.phase}, {client.ref.name}"
                    assert self.meet(client.bundle, server) is None, why
        authority, refs = self.authority, certificate_requests(self.pool, INSTALLATION)
        if authority.upcoming is not None:
            issuer = Authority(authority.upcoming, previous=authority.signer.certificate)
            assert not any(follows(self.bundle(r), issuer) for r in refs if r in self.secrets)
        held = {
            base64.b64decode(value)
            for secret in self.secrets.values()
            for value in secret["data"].values()
        }
        assert not self.former_keys & held, "the key of a former authority is still there"

    def meet(self, client: Bundle, server: Server) -> str | None:
        """None if both ends accept each other, or which of them does not."""
        sides: dict[str, Callable[[], object]] = {
            "client": lambda: (
                self.policy(client.trust)
                .build_server_verifier(x509.DNSName(server.name))
                .verify(certificate(server.bundle.pair.certificate), [])
            ),
            "server": lambda: (
                self.policy(server.bundle.trust)
                .build_client_verifier()
                .verify(certificate(client.pair.certificate), [])
            ),
        }
        for side, verify in sides.items():
            try:
                verify()
            except VerificationError:
                return side
        return None

    def policy(self, trust: bytes) -> PolicyBuilder:
        return PolicyBuilder().store(store(trust)).time(self.now)

    # --- time ------------------------------------------------------------------------------------

    def moments(self) -> Iterator[datetime]:
        yield from renewals(self.situation)
        if self.outdated():
            yield max(self.rolled_at + self.roll_takes, self.now + MINUTE)
        yield from self.reads()

    def reads(self) -> Iterator[datetime]:
        """When those clients read their Secret that work with an old copy."""
        for client in self.clients:
            if client.bundle != self.bundle(client.ref):
                yield client.read_at + client.patience

    def passes(self) -> None:
        """Passes until there is nothing to do for now: what is written wakes the next one."""
        while self.step():
            self.rolled_at = self.now

    def pass_time(self, until: datetime) -> None:
        """Until something happens by itself, or until then; with the passes that follow."""
        self.now = min([*(moment for moment in self.moments() if moment > self.now), until])
        self.read_in_time()
        if self.outdated() and self.now >= self.rolled_at + self.roll_takes:
            self.roll()
        self.check()
        self.passes()

    def live(self, span: timedelta) -> None:
        until = self.now + span
        self.passes()
        while self.now < until:
            self.pass_time(until)


def a_world(*patience: timedelta, signer: KeyPair | None = None, **overrides: Any) -> World:
    """A settled pool with a client for each of these; overrides as for ``a_pool``."""
    access = overrides.pop("access", {})
    names = clients(*(f"client-{number}" for number in range(len(patience))))
    pool = a_pool(access={**names, **access}, cache=CACHE, **overrides)
    world = World(pool)
    if signer is not None:
        ref = authority_ref(pool, INSTALLATION)
        world.secrets[ref] = world.secret(ref, Authority(signer))
    while world.step():
        pass
    world.populate(*patience)
    world.check()
    return world


def asking(world: World, what: str) -> World:
    annotations = {naming.ANNOTATION_ROTATE: what}
    world.pool = replace(world.pool, annotations=annotations)
    return world


CYCLE = [AuthorityPhase.INTRODUCING, AuthorityPhase.REPLACING, AuthorityPhase.STEADY]


# --- years ---------------------------------------------------------------------------------------


# duration of a certificate, overlap, days of life of the first authority, years, rotations
LIVES = [("825d", "90d", 3650, 14, 2), ("90d", "14d", 730, 2, 1), ("30d", "0s", 365, 1, 1)]


@pytest.mark.parametrize(("duration", "overlap", "first", "years", "rotations"), LIVES)
def test_nobody_who_reads_in_time_is_ever_refused(
    duration: str, overlap: str, first: int, years: int, rotations: int
) -> None:
    signer = issue_authority("first", now=NOW, lifetime=first * DAY)
    span = parse_duration(overlap)
    access = {"certificateDuration": duration, "authorityOverlap": overlap}
    world = a_world(AT_ONCE, span, span / 3, signer=signer, access=access)
    world.live(years * 365 * DAY)
    assert world.phases == CYCLE * rotations
    assert world.authority.signer != signer


def test_an_authority_that_is_older_than_the_operator_is_replaced_in_phases() -> None:
    old = issue_authority("old", now=NOW, lifetime=200 * DAY)
    world = a_world(AT_ONCE, HOUR, signer=old)
    assert world.authority.signer == old, "there is room for one more certificate"
    world.live(150 * DAY)
    assert world.phases == CYCLE
    assert world.authority.signer != old


@pytest.mark.parametrize("uid", ["a", "b", "c", "d"])
def test_short_certificates_are_renewed_while_an_authority_is_replaced(uid: str) -> None:
    access = {"certificateDuration": "1h", "authorityOverlap": "15m"}
    world = asking(a_world(AT_ONCE, 15 * MINUTE, uid=uid, access=access), "authority")
    # All daemons are replaced in 18 minutes: in the 20 that old certificates live on, at least.
    world.roll_takes = 3 * MINUTE
    world.live(8 * HOUR)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]


def test_a_pool_without_daemons_changes_its_authority_too() -> None:
    world = asking(a_world(AT_ONCE, HOUR), "authority")
    world.servers.clear()
    world.live(3 * HOUR)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]


# --- who is shut out -----------------------------------------------------------------------------


def test_who_never_reads_again_is_refused_after_the_end_and_not_before() -> None:
    world = a_world(AT_ONCE, HOUR)
    copy = world.bundle(world.clients[0].ref)
    asking(world, "authority").passes()
    builders = [s for s in world.servers if s.ref == builder_ref(world.pool)]
    assert {world.meet(copy, server) for server in builders} == {None}
    while world.phases[-1] is not AuthorityPhase.REPLACING:
        assert {world.meet(copy, s) for s in world.servers if s.ref == builders[0].ref} == {None}
        world.pass_time(world.now + DAY)
    world.live(DAY)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]
    for server in [s for s in world.servers if s.ref == builders[0].ref]:
        assert world.meet(copy, server) == "client"
        newer_trust = replace(copy, trust=world.authority.trust)
        assert world.meet(newer_trust, server) == "server", "its certificate is worth nothing"


def test_who_deletes_the_authority_shuts_out_everybody_at_once() -> None:
    world = a_world(HOUR)
    del world.secrets[authority_ref(world.pool, INSTALLATION)]
    copy, server = world.clients.pop(0).bundle, builder_ref(world.pool)
    world.servers.clear()
    world.clients.clear()
    world.step()
    assert world.authority == Authority(world.authority.signer)
    world.start(server)
    assert world.meet(copy, world.servers[0]) == "client"


# --- what it takes: without it, the same world sees somebody refused ---------------------------


def test_clients_without_the_time_to_read_are_refused() -> None:
    access = {"authorityOverlap": "30m"}
    world = asking(a_world(HOUR, access=access), "authority")
    world.roll_takes = MINUTE
    with pytest.raises(AssertionError, match="client-0"):
        world.live(DAY)


def test_a_phase_that_does_not_wait_for_daemons_gets_clients_refused() -> None:
    world = asking(a_world(AT_ONCE), "authority")
    world.is_careless, world.roll_takes = True, 3 * HOUR
    with pytest.raises(AssertionError, match="client-0"):
        world.live(DAY)


# --- waiting -------------------------------------------------------------------------------------


def test_one_daemon_that_drains_for_long_holds_up_the_next_phase() -> None:
    world = asking(a_world(AT_ONCE, HOUR), "authority")
    world.roll_takes = 2 * DAY
    world.live(DAY)
    assert world.phases[-1] is AuthorityPhase.INTRODUCING
    world.live(200 * DAY)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]


def test_no_certificate_is_issued_where_only_the_trust_changes() -> None:
    world = asking(a_world(AT_ONCE), "authority")
    refs = certificate_requests(world.pool, INSTALLATION)
    pairs = {ref: world.bundle(ref).pair for ref in refs}
    world.passes()
    changed = {}
    for phase in CYCLE:
        while world.phases[-1] is not phase:
            world.pass_time(world.now + DAY)
        now = {ref: world.bundle(ref).pair for ref in refs}
        changed[phase] = sum(now[ref] != pairs[ref] for ref in refs)
        pairs = now
    assert list(changed.values()) == [0, len(refs), 0]


def test_the_time_of_a_phase_counts_from_the_last_secret_not_from_the_authority() -> None:
    world = asking(a_world(HOUR), "authority")
    for ref in world.steps():
        assert ref == authority_ref(world.pool, INSTALLATION)
        break
    assert world.phases[-1] is AuthorityPhase.INTRODUCING
    world.now += 30 * DAY  # the operator was away, right after its first write
    world.step()
    assert world.authority.since is None
    world.step()
    assert world.authority.since == world.now
    world.live(59 * MINUTE)
    assert world.phases[-1] is AuthorityPhase.INTRODUCING
    world.live(DAY)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]


def test_a_secret_that_somebody_set_back_starts_the_time_anew() -> None:
    world = asking(a_world(AT_ONCE), "authority")
    ref = client_ref(world.pool, "client-0")
    earlier = world.secrets[ref]
    world.live(50 * MINUTE)
    assert (since := world.authority.since) is not None
    world.secrets[ref] = earlier
    world.live(30 * MINUTE)
    assert world.phases[-1] is AuthorityPhase.INTRODUCING
    assert world.authority.since is not None
    assert world.authority.since > since
    world.live(DAY)
    assert world.phases == [AuthorityPhase.STEADY, *CYCLE]


# --- crashes -------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_an_operator_may_die_after_any_write_and_nobody_is_refused(data: st.DataObject) -> None:
    world = asking(a_world(AT_ONCE, HOUR), "authority")
    before = world.authority.signer
    waits = st.sampled_from([AT_ONCE, MINUTE, 20 * MINUTE, HOUR, 2 * HOUR, 3 * DAY])
    for _ in range(data.draw(st.integers(1, 12), label="passes")):
        _, written = world.issued()
        authority = [ref for ref in written if ref == authority_ref(world.pool, INSTALLATION)]
        others = data.draw(st.permutations([ref for ref in written if ref not in authority]))
        done = data.draw(st.integers(0, len(written)), label="writes until it dies")
        for ref in [*authority, *others][:done]:
            world.write(ref, written[ref])
        if done == len(written) and data.draw(st.booleans(), label="fulfilled"):
            world.pool = replace(world.pool, annotations={})
        for _ in range(data.draw(st.integers(0, 3), label="daemons that come or go")):
            world.roll()
        until = world.now + data.draw(waits, label="time")
        while world.now < until:
            world.now = min([*world.reads(), until])
            world.read_in_time()
            world.check()
    world.live(DAY)
    assert world.authority == Authority(world.authority.signer)
    assert world.authority.signer != before
    assert all(
        follows(world.bundle(r), world.authority)
        for r in certificate_requests(world.pool, INSTALLATION)
    )
    assert not world.outdated()
    assert world.step() == []
