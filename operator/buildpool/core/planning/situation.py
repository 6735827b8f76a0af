"""What one pass knows of a pool: everything that decisions are made from, each thing read once.

Pure data, and what follows from it. A Secret is decoded once in a pass and a builder's objects are
read once; nobody after it looks at a raw Secret or Deployment again. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, Reason
from buildpool.core.api.status import GatewayStatus
from buildpool.core.naming import Installation
from buildpool.core.objects.pods import has_ended, name_of_builder
from buildpool.core.objects.refs import (
    Object,
    Ref,
    is_of_pool,
    is_owned,
    is_terminating,
    maker_of,
    moment_at,
    namespace_of_pool,
)
from buildpool.core.observed.observation import Observation
from buildpool.core.pauses import lot
from buildpool.core.pki import (
    Authority,
    AuthorityPhase,
    Bundle,
    CertificateRequest,
    begins,
    ends,
    issued_at,
)
from buildpool.core.planning.backlog import backlog_of
from buildpool.core.planning.certificates import (
    authority_ref,
    builder_ref,
    cache_secrets,
    certificate_requests,
)
from buildpool.core.planning.fleet import Member, member_of, revision_of_pod
from buildpool.core.planning.names import cache_parts, desired_refs
from buildpool.core.planning.turns import said_of_builders
from buildpool.core.resources import (
    builder_revision,
    bundle_of,
    cache_revision,
    has_guard,
    managed_registry,
)
from buildpool.core.resources.deployment import revision_of
from buildpool.core.resources.secret import authority_in
from buildpool.core.routing.values import Backlog


@dataclass(frozen=True)
class Situation:
    """A pool, what was seen of its world, by which operator, and when."""

    pool: Pool
    observation: Observation
    installation: Installation
    now: datetime
    issued: Mapping[Ref, Authority | Bundle] = field(default_factory=dict)
    """Issued in this pass, by Secret, and not written yet: comes before what is stored."""
    may_roll: bool = True
    """Whether builders may be replaced now if that is our doing, not the user's (``turns``)."""
    left_out: frozenset[Ref] = frozenset()
    """Names of a managed cache that somebody else has: the pool is without one (``possible``)."""

    def possible(self) -> Situation:
        """The same, as if the pool wanted no managed cache, where somebody else has a name of it.

        So nobody has to wait for it who builds without one. A cache of which anything is there is
        still wanted: its builders read it.
        """
        if managed_registry(self.pool) is None:
            return self
        names = frozenset((*cache_parts(self.pool), *cache_secrets(self.pool)))
        if not self.withheld or self.own.keys() & names:
            return self
        spec = self.pool.spec
        cache = spec.cache.model_copy(update={"registry": None})
        pool = replace(self.pool, spec=spec.model_copy(update={"cache": cache}))
        return replace(self, pool=pool, left_out=self.withheld)

    def with_issued(self, issued: Mapping[Ref, Authority | Bundle]) -> Situation:
        """The same, with what was issued now, too."""
        return self._but(issued={**self.issued, **issued})

    def without_issued(self) -> Situation:
        """The same, as if nothing had been issued in this pass."""
        return self._but(issued={})

    def with_turn(self, may_roll: bool) -> Situation:
        """The same, with whether builders may be replaced by our doing."""
        return self._but(may_roll=may_roll)

    def seeing(self, **seen: object) -> Situation:
        """The same, with these fields of the observation; none of them may change an object."""
        return self._but(observation=replace(self.observation, **seen))  # type: ignore[arg-type]

    def _but(self, **changes: object) -> Situation:
        """A changed copy. What was read of objects stays read: they are the same ones."""
        changed = replace(self, **changes)  # type: ignore[arg-type]
        known = vars(self)
        vars(changed).update({name: known[name] for name in _OF_OBJECTS if name in known})
        return changed

    @property
    def chance(self) -> float:
        """From 0 up to 1, the pool's own: by which its renewals keep away from those of others."""
        return lot(self.pool.uid)

    @cached_property
    def own(self) -> Mapping[Ref, Object]:
        """The live objects that this very pool made."""
        live = self.observation.live
        return {ref: obj for ref, obj in live.items() if is_owned(obj, self.pool)}

    @cached_property
    def requests(self) -> Mapping[Ref, CertificateRequest]:
        """The certificates the pool consists of, by their Secrets."""
        return certificate_requests(self.pool, self.installation)

    @cached_property
    def taken(self) -> frozenset[Ref]:
        """Names the pool needs that belong to somebody else."""
        names = (*desired_refs(self.pool, self.installation), *self.left_out)
        live = self.observation.live
        return frozenset(ref for ref in names if ref in live and ref not in self.own)

    @cached_property
    def withheld(self) -> frozenset[Ref]:
        """Names of a managed cache that somebody else has and keeps.

        What is on its way out is waited for, such as the claim of an earlier pool of this name:
        until then builders need no more of the cache than its Secrets.
        """
        parts, secrets = frozenset(cache_parts(self.pool)), frozenset(cache_secrets(self.pool))
        live = self.observation.live
        kept = {ref for ref in self.taken & parts if not is_terminating(live[ref])}
        return self.taken & secrets | kept

    @property
    def has_namesakes(self) -> bool:
        """Whether an earlier pool of the same name, or of a backup, has left anything.

        What somebody has restored from another namespace is theirs, and stays.
        """
        live, here = self.observation.live, ("", self.pool.key.namespace)
        return any(
            maker_of(obj)
            and is_of_pool(obj, self.pool.key)
            and namespace_of_pool(obj) in here
            and ref not in self.own
            for ref, obj in live.items()
        )

    @cached_property
    def stored_bundles(self) -> Mapping[Ref, Bundle | None]:
        """What the pool's certificate Secrets hold; None where one is absent or incomplete."""
        return {ref: bundle_of(self.own.get(ref)) for ref in self.requests}

    @cached_property
    def bundles(self) -> Mapping[Ref, Bundle | None]:
        """The same, with what was issued in this pass before what is stored."""
        issued = {ref: found for ref, found in self.issued.items() if isinstance(found, Bundle)}
        return {**self.stored_bundles, **issued}

    @cached_property
    def stored_authority(self) -> Authority | None:
        """The authority in the pool's Secret; None where there is none that could sign."""
        return authority_in(self.own.get(authority_ref(self.pool, self.installation)))

    @property
    def authority(self) -> Authority | None:
        """The pool's authority, or what became of it in this pass."""
        issued = self.issued.get(authority_ref(self.pool, self.installation))
        return issued if isinstance(issued, Authority) else self.stored_authority

    @cached_property
    def revision(self) -> str:
        """What builders shall run now; empty where their certificate is not there yet."""
        certificate = self.bundles[builder_ref(self.pool)]
        if certificate is None:
            return ""
        return builder_revision(self.pool, image=self.installation.image, certificate=certificate)

    @cached_property
    def deployments(self) -> Mapping[int, Object]:
        """The Deployments of the pool's builders, those on their way out included, by number."""
        # By name and owner: labels can be taken off.
        numbered = (
            (naming.builder_index(self.pool.key, ref.name), obj)
            for ref, obj in self.own.items()
            if ref.kind == "Deployment"
        )
        return {index: obj for index, obj in numbered if index is not None}

    @property
    def outdated(self) -> tuple[Object, ...]:
        """The Deployments of builders that serve and run something else than they shall."""
        if not self.revision:
            return ()
        return tuple(
            deployment
            for deployment in self.deployments.values()
            if revision_of(deployment) != self.revision
            and not is_terminating(deployment)
            and moment_at(deployment, "metadata", "annotations", naming.ANNOTATION_RETIRED) is None
        )

    @cached_property
    def is_changed_by_us(self) -> bool:
        """Whether builders are outdated only because the operator is another one than before.

        The last pass said that all of them ran what this very spec wants, or that they wait; since
        then neither the authority has changed nor the certificate that they run with. In doubt it
        is not so: then nothing waits. A rollout that has begun is none of it any more, and neither
        is a managed cache that comes, as its names are free, or goes.
        """
        said = said_of_builders(self.pool.status)
        if said is None or said.observed_generation != self.pool.generation:
            return False
        authority = self.authority
        if said.reason not in _UP_TO_DATE or not self.outdated or authority is None:
            return False
        ours = {authority_ref(self.pool, self.installation), builder_ref(self.pool)}
        if authority.phase is not AuthorityPhase.STEADY or ours & self.issued.keys():
            return False
        is_cached = managed_registry(self.pool) is not None
        if any(has_guard(each["spec"]["template"]) is not is_cached for each in self.outdated):
            return False
        return self._runs_present_certificate

    @property
    def _runs_present_certificate(self) -> bool:
        """Whether outdated builders were made with the certificate that there is now."""
        bundle, told = self.bundles[builder_ref(self.pool)], self.pool.status.certificates
        since, end = begins(bundle), told.builder if told else None
        if bundle is None or since is None or end not in (None, ends(bundle)):
            return False
        if end is None:
            since = issued_at(bundle.pair)  # only time tells here, so no clock is forgiven
        made = (moment_at(each, "metadata", "creationTimestamp") for each in self.outdated)
        return all(moment and since <= moment for moment in made)

    @cached_property
    def waits_for_turn(self) -> bool:
        """Whether outdated builders stay for now, because other pools replace theirs first."""
        return not self.may_roll and self.is_changed_by_us

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The builders that are not being deleted, by their number."""
        seen = self.observation
        staying: dict[str, list[Object]] = {}
        for pod in seen.pods:
            if not is_terminating(pod):
                staying.setdefault(name_of_builder(pod), []).append(pod)
        return tuple(
            member_of(
                self.pool,
                index,
                deployment,
                tuple(staying.get(deployment["metadata"]["name"], ())),
                loads=seen.loads,
                memory=seen.memory,
                revision=self.revision,
                waits=self.waits_for_turn,
                now=self.now,
            )
            for index, deployment in sorted(self.deployments.items())
            if not is_terminating(deployment)
        )

    @cached_property
    def taken_numbers(self) -> frozenset[int]:
        """The numbers of builders of which something is there, or is on its way out.

        A pod that stays though its Deployment is gone takes no number: a new Deployment adopts it.
        """
        leaving = (pod for pod in self.observation.pods if is_terminating(pod))
        names = {
            *(name_of_builder(pod) for pod in leaving),
            *(ref.name for ref in self.observation.live if ref.kind == "Deployment"),
        }
        numbers = (naming.builder_index(self.pool.key, name) for name in names)
        return frozenset(index for index in numbers if index is not None)

    @property
    def has_builders(self) -> bool:
        """Whether any builder is there, or still drains."""
        return bool(self.observation.pods) or bool(self.deployments)

    @property
    def everyone_runs(self) -> bool:
        """Whether every daemon, draining ones too, and the cache have read their certificates."""
        seen, cache = self.observation, self._cache_revision
        deployments = (revision_of(deployment) for deployment in self.deployments.values())
        pods = (revision_of_pod(pod) for pod in seen.pods if not has_ended(pod))
        return all(found == self.revision for found in (*deployments, *pods)) and all(
            revision_of_pod(pod) == cache for pod in seen.cache_pods if not has_ended(pod)
        )

    @property
    def _cache_revision(self) -> str:
        managed = managed_registry(self.pool)
        certificate = self.bundles.get(cache_secrets(self.pool)[0])
        if managed is None or certificate is None:
            return ""
        image = self.installation.image
        return cache_revision(self.pool, managed, image=image, certificate=certificate)

    @cached_property
    def gateways(self) -> tuple[GatewayStatus, ...]:
        """What the gateway's pods say of the pool. One that is gone speaks for nobody."""
        there = self.observation.gateways
        return tuple(entry for entry in self.pool.status.gateways if entry.name in there)

    @cached_property
    def backlog(self) -> Backlog:
        """The builds that wait now."""
        return backlog_of(self.gateways)


_UP_TO_DATE: Final = frozenset(
    {Reason.SETTLED, Reason.DRAINING, Reason.SCALING, Reason.WAITING_FOR_TURN}
)
"""What is said only where no builder that serves is to be replaced, or waits for that.

By ``UpToDate``, and by the ``Progressing`` of operators that did not have it."""
_OF_OBJECTS = ("own", "requests", "taken", "stored_bundles", "stored_authority", "deployments")
"""What does not depend on what was issued, nor on what daemons and registries say."""
