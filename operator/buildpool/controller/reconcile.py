"""One pass over one pool: observe → plan → act → report.

A pass is harmless to repeat and needs nothing from the one before. A pool that is as it should be
costs reads and no write.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from buildpool.controller.act import act, issue
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.observe import observe
from buildpool.controller.pool_writes import (
    put_finalizer,
    remove_finalizer,
    remove_gone_gateways,
    remove_rotation_request,
    write_status,
)
from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.secret_poller import SecretPoller
from buildpool.core.api import Pool, PoolStatus, Reason, identify_pool, parse_pool
from buildpool.core.errors import InvalidSpecError, RefusedError
from buildpool.core.naming import Installation, PoolKey
from buildpool.core.objects.drift import Difference
from buildpool.core.objects.refs import Object, Ref, pool_ref
from buildpool.core.observed.cache import CacheTarget
from buildpool.core.pauses import Pause, lot
from buildpool.core.planning.caches import cache_references, cache_target
from buildpool.core.planning.names import desired_refs
from buildpool.core.planning.plan import RESYNC, Plan, plan_flow
from buildpool.core.planning.removal import PATIENCE, plan_removal
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.outcome import Failure, Outcome, status_refused
from buildpool.core.reporting.report import (
    Report,
    report_invalid,
    report_pass,
    report_removal,
    report_unheld,
    report_unseen,
)
from buildpool.core.words import Finding
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import EventRecorder
from buildpool.process import utc_now

TROUBLED: Final = timedelta(seconds=10)
"""How soon to look again where something is in the way: no watch tells of its end."""
LONGEST_TROUBLED: Final = timedelta(minutes=5)
"""How late at most to look again where it stays,"""
LONGEST_FAILING: Final = timedelta(seconds=30)
"""or where it passes by itself."""


class Trouble(Enum):
    """What can be in the way of a pool.

    Each kind has pauses of its own: that one lasts says nothing of another one that begins.
    """

    FAILING = auto()
    """Something could not be written: a webhook is dead, for example."""
    REFUSED = auto()
    """Something may not be written or read."""
    WANTING = auto()
    """Something is missing that only a user can give, such as a name or a Secret."""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What every pass needs."""

    cluster: Cluster
    events: EventRecorder
    metrics: PoolMetrics
    secret_poller: SecretPoller
    cache_poller: CachePoller
    tracker: DaemonTracker
    turns: RolloutTurns
    installation: Installation
    ask_sweeper: Callable[[PoolKey], None]
    """Has what an earlier pool of this name has left looked at soon."""
    clock: Callable[[], datetime] = utc_now
    overruled: dict[PoolKey, dict[Ref, tuple[Difference, ...]]] = field(default_factory=dict)
    """What the cluster changes as it stores it, by pool. Forgotten at a restart: then it is tried
    again, once."""
    pauses: dict[PoolKey, dict[Trouble, Pause]] = field(default_factory=dict)
    """Of the pools that are in trouble. Forgotten at a restart: then it is tried again sooner."""
    untold: dict[PoolKey, Pause] = field(default_factory=dict)
    """Of the pools whose status is refused: when to say so again."""

    async def reconcile(self, key: PoolKey) -> timedelta | None:
        """Looks at a pool and puts it right. When to look again, or None where it is gone."""
        raw = await self.cluster.get(pool_ref(key))
        if raw is None:
            self._forget(key)
            return None
        if "deletionTimestamp" in raw["metadata"]:
            return await self._remove(identify_pool(raw), raw)
        # Before anything is made: what has no owner would be left behind.
        try:
            if not await put_finalizer(self.cluster, raw):
                return timedelta(0)
        except RefusedError as error:
            return await self._report_unheld(identify_pool(raw), error)
        try:
            pool = parse_pool(raw)
        except InvalidSpecError as error:
            return await self._refuse(identify_pool(raw), error)
        return await self._tend(pool)

    async def _tend(self, pool: Pool) -> timedelta:
        try:
            s = await self._observe(pool)
        except RefusedError as error:
            return await self._report_unseen(pool, error)
        if s.has_namesakes:
            self.ask_sweeper(pool.key)
        lost = self.tracker.lost_builds(pool, s.observation)
        s, plan = await self._plan(self.turns.told(s))
        outcome = await act(self.cluster, plan)
        outcome = await self._follow(s, plan, outcome)
        report = report_pass(s, plan, outcome).after(lost)
        await self._report(pool, report)
        self.tracker.acknowledge_lost(pool.key)
        await remove_gone_gateways(self.cluster, s)
        self.metrics.report_lost(pool.key, len(lost))
        cache = s.observation.cache
        self.metrics.report_cache(pool.key, cache.usage if cache else None)
        # No watch tells when the user has mended what an outcome or a cache depends on.
        troubles = {_trouble_of(failure) for failure in outcome.failures}
        # What could not be done is still due, and must not make us look again at once.
        recheck = max(plan.recheck, TROUBLED) if troubles else plan.recheck
        if plan.conflicts or isinstance(cache_target(s), Finding):
            troubles.add(Trouble.WANTING)
        if troubles:
            return min(self._retry(pool, s.now, troubles), recheck)
        self.pauses.pop(pool.key, None)
        return recheck

    async def _observe(self, pool: Pool) -> Situation:
        """What there is, and what registry and daemons said last."""
        observation = await observe(self.cluster, pool, self.installation)
        observation = await self.tracker.enrich(pool, observation)
        overruled = self.overruled.setdefault(pool.key, {})
        observation = replace(observation, overruled=overruled)
        s = Situation(pool, observation, self.installation, self.clock()).possible()
        target = cache_target(s)
        self.cache_poller.watch(pool.key, target if isinstance(target, CacheTarget) else None)
        return s.seeing(cache=self.cache_poller.report(pool.key))

    async def _plan(self, s: Situation) -> tuple[Situation, Plan]:
        """The plan, and the situation with all that was issued for it."""
        flow = plan_flow(s)
        try:
            order = next(flow)
            while True:
                order = flow.send(await issue(order))
        except StopIteration as end:
            found: tuple[Situation, Plan] = end.value
            return found

    async def _follow(self, s: Situation, plan: Plan, outcome: Outcome) -> Outcome:
        """Has those asked and looked at of whom no watch tells, and notes what was carried out.

        Returns the outcome, with what became of the note.
        """
        overruled = self.overruled.setdefault(s.pool.key, {})
        for change in plan.apply:
            overruled.pop(change.ref, None)
        overruled.update((found.ref, found.differences) for found in outcome.overruled)
        self._watch_secrets(s)
        if s.authority is not None:
            await self.tracker.follow(s)
        # Whatever else was refused: a request must not be carried out in each pass again.
        if not plan.is_blocked and all(f.ref.kind != "Secret" for f in outcome.failures):
            try:
                await remove_rotation_request(self.cluster, s.pool)
            except RefusedError as error:
                return outcome.but(_unwritten(s.pool, error))
        return outcome

    async def _report(self, pool: Pool, report: Report) -> None:
        await self._write_status(pool, report.status)
        await self.events.record(pool.key, pool.uid, report.events, now=self.clock())
        self.metrics.report(pool.key, pool.status, report.status)

    async def _write_status(self, pool: Pool, status: PoolStatus) -> None:
        """Where it is refused, an Event is all that tells; the next one comes later each time."""
        try:
            await write_status(self.cluster, pool, status)
        except RefusedError as error:
            now, before = self.clock(), self.untold.get(pool.key)
            if before is None or now >= before.until:
                self.untold[pool.key] = _longer(before, pool, now)
                await self.events.record(pool.key, pool.uid, (status_refused(error),), now=now)
            raise
        self.untold.pop(pool.key, None)

    async def _report_unheld(self, pool: Pool, error: RefusedError) -> timedelta:
        now = self.clock()
        await self._report(pool, report_unheld(pool, _unwritten(pool, error), now=now))
        return self._retry(pool, now, {Trouble.REFUSED})

    async def _report_unseen(self, pool: Pool, error: RefusedError) -> timedelta:
        now = self.clock()
        await self._report(pool, report_unseen(pool, error, now=now))
        return self._retry(pool, now, {Trouble.REFUSED})

    async def _refuse(self, pool: Pool, error: InvalidSpecError) -> timedelta:
        # A pod that is told to go waits until nobody is connected: so hang up.
        self.tracker.forget(pool.key)
        self.turns.forget(pool.key)
        await self._report(pool, report_invalid(pool, error, now=self.clock()))
        return RESYNC

    async def _remove(self, pool: Pool, raw: Object) -> timedelta | None:
        # Builders that are to go wait until nobody is connected.
        self.tracker.forget(pool.key)
        self.turns.forget(pool.key)
        try:
            observation = await observe(self.cluster, pool, self.installation)
        except RefusedError as error:
            return await self._report_unseen(pool, error)
        s = Situation(pool, observation, self.installation, self.clock())
        removal = plan_removal(s)
        outcome = await act(self.cluster, Plan(delete=removal.delete))
        failures = outcome.failures
        if removal.is_done:
            try:
                await remove_finalizer(self.cluster, raw)
            except RefusedError as error:
                failures = (_unwritten(pool, error),)
            else:
                self._forget(pool.key)
                return None
        report = report_removal(pool, draining=removal.draining, failures=failures, now=s.now)
        await self._write_status(pool, report.status)
        await self.events.record(pool.key, pool.uid, report.events, now=self.clock())
        if failures:
            return self._retry(pool, s.now, {_trouble_of(failure) for failure in failures})
        return timedelta(0) if removal.delete else PATIENCE

    def _retry(self, pool: Pool, now: datetime, troubles: AbstractSet[Trouble]) -> timedelta:
        """When to look again where these are in the way: later each time, and not all pools."""
        before, pauses = self.pauses.get(pool.key, {}), dict[Trouble, Pause]()
        for trouble in troubles:
            last = LONGEST_FAILING if trouble is Trouble.FAILING else LONGEST_TROUBLED
            pauses[trouble] = _longer(before.get(trouble), pool, now, last=last)
        self.pauses[pool.key] = pauses
        return min(pause.until for pause in pauses.values()) - now

    def _forget(self, key: PoolKey) -> None:
        self.overruled.pop(key, None)
        self.pauses.pop(key, None)
        self.untold.pop(key, None)

    def _watch_secrets(self, s: Situation) -> None:
        """Has looked at what no watch tells of.

        Our Secrets, what is absent, and what asking the cache's registry needs.
        """
        seen = s.observation
        versions: dict[Ref, str | None] = dict.fromkeys(seen.absent)
        known = {**seen.referred, **seen.live}
        names = (*desired_refs(s.pool, s.installation), *s.left_out)
        ours = (ref for ref in names if ref.kind == "Secret")
        for ref in (*ours, *cache_references(s.pool)):
            found = known.get(ref)
            versions[ref] = found["metadata"]["resourceVersion"] if found else None
        self.secret_poller.watch(s.pool.key, versions)


def _trouble_of(failure: Failure) -> Trouble:
    return Trouble.FAILING if failure.reason is Reason.OBJECT_FAILED else Trouble.REFUSED


def _longer(
    before: Pause | None, pool: Pool, now: datetime, *, last: timedelta = LONGEST_TROUBLED
) -> Pause:
    """The next pause of a pool in trouble, spread by the pool's own lot.

    What one policy refuses to many pools is not tried by all of them at once.
    """
    return Pause.after(before, first=TROUBLED, last=last, now=now, chance=lot(pool.uid))


def _unwritten(pool: Pool, error: RefusedError) -> Failure:
    """Something of the pool itself that may not be written, but for its status."""
    return Failure(pool_ref(pool.key), str(error))
