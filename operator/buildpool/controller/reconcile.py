"""One pass over one pool: observe → plan → act → report.

A pass is harmless to repeat and needs nothing from the one before. A pool that is as it should be
costs reads and no write.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from buildpool.controller.act import act, issue_all, remove
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.observe import observe
from buildpool.controller.secret_poller import SecretPoller
from buildpool.core import naming
from buildpool.core.api import Pool, PoolStatus, identify_pool, parse_pool
from buildpool.core.errors import ConflictError, InvalidSpecError, NotFoundError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.cache import CacheTarget, Trouble
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.backlog import forsaken, kept_entries
from buildpool.core.planning.caches import cache_references, cache_target
from buildpool.core.planning.certificates import authority_of
from buildpool.core.planning.desired import desired_refs
from buildpool.core.planning.plan import RESYNC, TROUBLED, Plan, plan
from buildpool.core.planning.removal import PATIENCE, plan_removal
from buildpool.core.reporting.report import Report, report_invalid, report_pass, report_removal
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import EventRecorder
from buildpool.process import utc_now


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What every pass needs."""

    cluster: Cluster
    reporter: EventRecorder
    metrics: PoolMetrics
    sentinel: SecretPoller
    inspector: CachePoller
    survey: DaemonTracker
    home: str
    """The operator's own namespace."""
    image: str
    """The operator's own image."""
    gateway: str
    """The Service of the gateway; empty where none is installed."""
    clock: Callable[[], datetime] = utc_now
    overruled: dict[PoolKey, dict[Ref, str]] = field(default_factory=dict)
    """What the cluster changes as it stores it, by pool. Forgotten at a restart: then it is tried
    again, once."""

    async def reconcile(self, key: PoolKey) -> timedelta | None:
        """Looks at a pool and puts it right. When to look again, or None where it is gone."""
        raw = await self.cluster.get(Ref(naming.KIND, key.namespace, key.name))
        if raw is None:
            self.overruled.pop(key, None)
            return None
        if "deletionTimestamp" in raw["metadata"]:
            return await self._remove(identify_pool(raw), raw)
        try:
            pool = parse_pool(raw)
        except InvalidSpecError as error:
            pool = identify_pool(raw)
            # Nobody would hang up on a pod that is told to go, and it waits for that.
            self.survey.forget(key)
            verdict = report_invalid(
                pool.status, error, generation=pool.generation, now=self.clock()
            )
            await self._report(pool, verdict)
            self.metrics.report(pool.key, pool.status, verdict.status)
            return RESYNC
        return await self._tend(pool)

    async def _tend(self, pool: Pool) -> timedelta:
        overruled = self.overruled.setdefault(pool.key, {})
        observation = await observe(self.cluster, pool, home=self.home)
        target = cache_target(pool, observation)
        self.inspector.watch(pool.key, target if isinstance(target, CacheTarget) else None)
        report = self.inspector.report(pool.key)
        observation = replace(observation, overruled=overruled, cache=report)
        observation = await self.survey.seen(pool, observation)
        lost = self.survey.lost(pool, observation)
        now = self.clock()
        observation, todo = await self._planned(pool, observation, now)
        outcome = await act(self.cluster, todo)
        overruled.update((found.ref, found.path) for found in outcome.overruled)
        self._watch_secrets(pool, observation)
        authority = authority_of(pool, observation, home=self.home)
        if authority is not None:
            await self.survey.follow(pool, observation, todo, authority, now)
        # Whatever else was refused: a request must not be carried out in each pass anew.
        if not todo.conflicts and all(failure.ref.kind != "Secret" for failure in outcome.failures):
            await self._fulfilled(pool)
        verdict = report_pass(
            pool, observation, todo, outcome, home=self.home, gateway=self.gateway, now=now
        )
        await self._report(pool, verdict.after(lost))
        self.survey.told(pool.key)
        if forsaken(pool, observation):
            await self._take_away(pool, observation)
        self.metrics.report(pool.key, pool.status, verdict.status)
        self.metrics.report_lost(pool.key, len(lost))
        self.metrics.report_cache(pool.key, report.usage if report else None)
        # No watch tells when the user has mended what an outcome or a cache depends on.
        is_troubled = isinstance(target, Trouble) or (report is not None and report.trouble)
        return min(todo.recheck, TROUBLED) if outcome.failures or is_troubled else todo.recheck

    async def _planned(
        self, pool: Pool, observation: Observation, now: datetime
    ) -> tuple[Observation, Plan]:
        """The plan, once everything it asks to be issued is: an authority first, then the rest."""
        todo = self._plan(pool, observation, now)
        while todo.issue:
            authority = authority_of(pool, observation, home=self.home)
            issued = await issue_all(todo.issue, authority, now=now)
            observation = observation.with_issued(issued)
            todo = self._plan(pool, observation, now)
        return observation, todo

    def _plan(self, pool: Pool, observation: Observation, now: datetime) -> Plan:
        return plan(
            pool, observation, home=self.home, image=self.image, gateway=self.gateway, now=now
        )

    async def _remove(self, pool: Pool, raw: Object) -> timedelta | None:
        # Builders that are to go wait until nobody is connected.
        self.survey.forget(pool.key)
        observation = await observe(self.cluster, pool, home=self.home)
        removal = plan_removal(pool, observation, home=self.home)
        for deletion in removal.delete:
            await remove(self.cluster, deletion)
        if not removal.is_done:
            verdict = report_removal(pool, draining=removal.draining, now=self.clock())
            await self._report(pool, verdict)
            return timedelta(0) if removal.delete else PATIENCE
        await self._let_go(pool, raw)
        return None

    async def _let_go(self, pool: Pool, raw: Object) -> None:
        """Takes our finalizer off: with the last one, the API server drops the object."""
        metadata = raw["metadata"]
        kept = [name for name in metadata.get("finalizers", ()) if name != naming.FINALIZER]
        change = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        ref = Ref(naming.KIND, pool.key.namespace, pool.key.name)
        try:
            await self.cluster.patch(ref, change)
        except NotFoundError:
            return

    async def _fulfilled(self, pool: Pool) -> None:
        """Takes the request for a rotation off a pool, once it is carried out."""
        asked = pool.annotations.get(naming.ANNOTATION_ROTATE)
        ref = Ref(naming.KIND, pool.key.namespace, pool.key.name)
        while asked is not None:
            raw = await self.cluster.get(ref)
            metadata = raw["metadata"] if raw else {}
            if (metadata.get("annotations") or {}).get(naming.ANNOTATION_ROTATE) != asked:
                return  # another request, which wakes us
            change = {
                "annotations": {naming.ANNOTATION_ROTATE: None},
                "resourceVersion": metadata["resourceVersion"],
            }
            with suppress(ConflictError, NotFoundError):
                await self.cluster.patch(ref, {"metadata": change})
                return

    async def _take_away(self, pool: Pool, observation: Observation) -> None:
        """Takes away what pods of the gateway told that are gone; not what is told just now."""
        ref = Ref(naming.KIND, pool.key.namespace, pool.key.name)
        raw = await self.cluster.get(ref)
        if raw is None or PoolStatus.read(raw.get("status")).gateways != pool.status.gateways:
            return  # the change of it wakes us
        change = {
            "metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]},
            "status": {"gateways": kept_entries(pool, observation)},
        }
        try:
            await self.cluster.patch(ref, change, subresource="status")
        except (NotFoundError, ConflictError):
            return

    def _watch_secrets(self, pool: Pool, observation: Observation) -> None:
        """Has the sentinel look at what no watch tells of.

        Our Secrets, what is absent, and what asking the cache's registry needs.
        """
        versions: dict[Ref, str | None] = dict.fromkeys(observation.absent)
        known = {**observation.referred, **observation.live}
        ours = (ref for ref in desired_refs(pool, home=self.home) if ref.kind == "Secret")
        for ref in (*ours, *cache_references(pool)):
            found = known.get(ref)
            versions[ref] = found["metadata"]["resourceVersion"] if found else None
        self.sentinel.watch(pool.key, versions)

    async def _report(self, pool: Pool, verdict: Report) -> None:
        now = self.clock()
        if verdict.status != pool.status:
            await self._write_status(pool, verdict.status)
        await self.reporter.tell(pool.key, pool.uid, verdict.events, now=now)

    async def _write_status(self, pool: Pool, status: PoolStatus) -> None:
        body = {
            "apiVersion": naming.API_VERSION,
            "kind": naming.KIND,
            "metadata": {"name": pool.key.name, "namespace": pool.key.namespace},
            # What the gateway tells is the gateway's to write.
            "status": {k: v for k, v in status.to_dict().items() if k != "gateways"},
        }
        try:
            await self.cluster.apply(body, subresource="status")
        except NotFoundError:
            return  # deleted meanwhile
