"""A pool behind the gateway: what waits wakes it, sizes it, and is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from buildpool.core.api import ConditionType, EventReason, Inject
from buildpool.core.api.brief import Brief
from buildpool.core.api.status import GatewayStatus
from buildpool.core.naming import Installation
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.planning import plan as planning
from buildpool.core.planning.backlog import (
    BLOCKED_AFTER,
    Backlog,
    backlog_of,
)
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.reporting.report import report_pass
from buildpool.core.resources import brief_of
from samples import GATEWAY, HOME, OWN_IMAGE, a_pool, a_situation, planned
from unit.passes import MINUTE, READY, SECOND, Story, says

POD = "buildpool-gateway-7d9c-x2x7k"
OTHER_POD = "buildpool-gateway-7d9c-aaaaa"


class Gateway(Story):
    """A story of a pool behind the gateway, where builds wait."""

    def __init__(self, **spec: Any) -> None:
        scaling = {"min": 0, "max": 4, "idleAfter": "10m"} | spec.pop("scaling", {})
        super().__init__(a_pool(routing="Gateway", scaling=scaling, **spec))
        self.pods = {POD: True, OTHER_POD: True}

    def waits(self, number: int, *, pod: str = POD) -> None:
        """So many builds wait at one pod of the gateway, from now on."""
        entries = [entry for entry in self.pool.status.gateways if entry.name != pod]
        if number:
            entries.append(GatewayStatus(name=pod, waiting=number, since=self.now))
        status = self.pool.status.model_copy(update={"gateways": tuple(entries)})
        self.pool = replace(self.pool, status=status)

    def refuses(self, why: str | None) -> None:
        """A pod of the gateway does not serve the pool, for this reason; None: it does."""
        entries = () if why is None else (GatewayStatus(name=POD, refused=why),)
        status = self.pool.status.model_copy(update={"gateways": entries})
        self.pool = replace(self.pool, status=status)

    def observe(self) -> Observation:
        return replace(super().observe(), gateways=dict(self.pods))


def test_a_pool_that_nobody_uses_has_no_builder_and_is_ready() -> None:
    story = Gateway()
    verdict = story.settle()
    assert story.names() == []
    assert says(verdict, READY) == ("True", "Asleep")
    assert verdict.status.ready == "0/0"


def test_a_build_that_waits_wakes_the_pool() -> None:
    story = Gateway()
    story.settle()
    story.waits(1)
    verdict = story.look()
    assert verdict.status.waiting == 1
    assert verdict.status.scaling is not None
    assert verdict.status.scaling.size == 1
    assert verdict.status.scaling.message.startswith("0 builds run and 1 waits; ")
    assert story.names() == ["ci-builder-0"] or story.settle()
    assert story.names() == ["ci-builder-0"]


def test_builds_that_share_a_slot_are_counted_whichever_gateway_they_came_through() -> None:
    entries = (GatewayStatus(name=POD, shared=9), GatewayStatus(name=OTHER_POD, shared=3))
    assert backlog_of(entries) == Backlog(shared=12)


def test_builds_that_wait_count_as_those_that_run_whichever_gateway_they_wait_at() -> None:
    story = Gateway()
    story.waits(3)
    story.waits(2, pod=OTHER_POD)
    verdict = story.settle()
    assert verdict.status.waiting == 5
    assert verdict.status.scaling is not None
    assert verdict.status.scaling.size == 4


def test_what_a_pod_of_the_gateway_told_counts_no_more_once_it_is_gone() -> None:
    story = Gateway()
    story.waits(3)
    del story.pods[POD]
    verdict = story.settle()
    assert verdict.status.waiting == 0
    assert story.names() == []


def test_a_pool_falls_asleep_once_nothing_was_built_for_a_while() -> None:
    story = Gateway()
    story.waits(1)
    story.settle()
    story.waits(0)
    story.settle()
    story.wait(9 * MINUTE)
    story.settle()
    assert story.names() == ["ci-builder-0"]
    story.wait(2 * MINUTE)
    verdict = story.settle()
    assert story.names() == []
    assert says(verdict, READY) == ("True", "Asleep")


def test_a_pool_that_wakes_stays_ready() -> None:
    story = Gateway()
    story.settle()
    story.waits(1)
    assert says(story.look(), READY)[0] == "True"


def test_a_queue_that_stands_still_is_told_once() -> None:
    story = Gateway(scaling={"min": 1, "max": 1})
    story.settle()
    story.start(0, "a", "b")
    story.waits(1)
    story.settle()
    assert story.heard(EventReason.QUEUE_BLOCKED) == []
    story.wait(BLOCKED_AFTER)
    story.settle()
    (message,) = story.heard(EventReason.QUEUE_BLOCKED)
    assert message.startswith("1 build waiting, and none got a slot since ")
    assert "scaling.max is 1" in message
    story.wait(BLOCKED_AFTER)
    story.settle()
    assert len(story.heard(EventReason.QUEUE_BLOCKED)) == 1
    story.waits(1)
    story.wait(BLOCKED_AFTER)
    story.settle()
    assert len(story.heard(EventReason.QUEUE_BLOCKED)) == 2, "it moved, and stands still again"


def test_the_operator_looks_again_when_a_queue_will_have_stood_still_for_too_long() -> None:
    story = Gateway(scaling={"min": 1, "max": 1})
    story.settle()
    story.start(0, "a", "b")
    story.waits(1)
    _, todo = planned(story.pool, story.observe(), now=story.now + SECOND)
    assert todo.recheck <= BLOCKED_AFTER


def test_without_a_gateway_such_a_pool_is_not_ready_and_says_what_helps() -> None:
    pool = a_pool(routing="Gateway")
    s, todo = planning.planned(a_situation(pool, installation=Installation(HOME, OWN_IMAGE)))
    verdict = report_pass(s, todo, Outcome())
    found = verdict.status.condition(ConditionType.READY)
    assert found is not None
    assert (found.status.value, found.reason) == ("False", "GatewayMissing")
    assert "gateway.enabled" in found.message


def test_nobody_waits_where_nothing_is_told() -> None:
    assert a_situation(a_pool(routing="Gateway")).backlog == Backlog()


def test_the_service_of_such_a_pool_is_another_name_of_the_gateway() -> None:
    story = Gateway()
    story.settle()
    service = story.cluster.objects[Ref("Service", "builds", "ci")]
    assert service["spec"] == {
        "type": "ExternalName",
        "externalName": f"{GATEWAY}.{HOME}.svc.cluster.local",
    }


def test_the_gateway_gets_certificates_and_a_brief_in_the_operators_own_namespace() -> None:
    story = Gateway()
    story.settle()
    secrets = {ref.name for ref in story.cluster.objects if ref[:2] == ("Secret", HOME)}
    assert secrets == {"authority.builds.ci", "gateway.builds.ci", "upstream.builds.ci"}


def test_nobody_else_may_reach_builders_before_there_are_any() -> None:
    _, todo = planned(a_pool(routing="Gateway", scaling={"min": 1}))
    kinds = [change.ref.kind for change in todo.apply]
    assert kinds.index("NetworkPolicy") < kinds.index("Service") < kinds.index("Deployment")


def test_with_direct_routing_again_everybody_may_reach_builders_at_once() -> None:
    story = Gateway(scaling={"min": 1})
    story.settle()
    story.start(0, "a")
    story.settle()
    assert story.cluster.names("NetworkPolicy") == ["ci-builder"]
    story.change(routing="Direct", scaling={"min": 1})
    story.look()
    assert story.cluster.names("NetworkPolicy") == []


def test_with_direct_routing_again_the_gateway_is_told_nothing_more() -> None:
    story = Gateway()
    story.settle()
    story.change(routing="Direct", scaling={"min": 1})
    story.settle()
    secrets = {ref.name for ref in story.cluster.objects if ref[:2] == ("Secret", HOME)}
    assert secrets == {"authority.builds.ci"}
    assert story.cluster.objects[Ref("Service", "builds", "ci")]["spec"]["type"] == "ClusterIP"


def test_to_change_the_routing_replaces_no_builder() -> None:
    story = Gateway(scaling={"min": 1})
    story.settle()
    story.change(routing="Direct", scaling={"min": 1})
    story.settle()
    assert story.names() == ["ci-builder-0"]


def test_a_brief_says_what_the_spec_means() -> None:
    pool = a_pool(
        routing="Gateway",
        gateway={"hostnames": ["ci.example.com"], "maxWait": "45m"},
        builders={"slots": 3},
        cache={"registry": {"ref": "r.example/cache"}},
        access={"clients": [{"name": "ci", "weight": 2}, {"name": "pr", "inject": "Import"}]},
    )
    brief = brief_of(pool, domain="k8s.test")
    assert brief == Brief.read(brief.model_dump_json(by_alias=True, exclude_none=True))
    assert brief.server_names == (
        "ci.builds",
        "ci.builds.svc",
        "ci.builds.svc.k8s.test",
        "ci.example.com",
    )
    assert brief.upstream_name == "ci.builds.svc"
    assert (brief.slots, brief.max_wait) == (3, timedelta(minutes=45))
    assert brief.cache is not None
    assert brief.cache.location == "r.example/cache"
    assert [(c.name, c.weight, c.inject, c.may_export) for c in brief.clients] == [
        ("ci", 2, Inject.FULL, True),
        ("pr", 1, Inject.IMPORT, False),
    ]


def test_a_pool_without_a_cache_has_nothing_to_add_to_builds() -> None:
    brief = brief_of(a_pool(routing="Gateway"), domain="k8s.test")
    assert brief.cache is None
    assert {client.inject for client in brief.clients} == {Inject.NONE}


def test_what_pods_told_that_are_gone_is_known_as_such() -> None:
    story = Gateway()
    story.waits(1)
    story.waits(2, pod=OTHER_POD)
    assert len(a_situation(story.pool, story.observe()).gateways) == 2
    del story.pods[POD]
    (kept,) = a_situation(story.pool, story.observe()).gateways
    assert (kept.name, kept.waiting) == (OTHER_POD, 2)


def test_a_pool_is_not_ready_where_no_pod_of_the_gateway_is() -> None:
    story = Gateway(scaling={"min": 1, "max": 1})
    assert says(story.settle(), READY) == ("True", "Ready")
    story.pods[POD] = False
    assert says(story.settle(), READY) == ("True", "Ready"), "the other one serves"
    story.pods[OTHER_POD] = False
    assert says(story.settle(), READY) == ("False", "GatewayNotReady")
    story.pods.clear()
    assert says(story.settle(), READY) == ("False", "GatewayNotReady")


def test_a_pool_that_the_gateway_refuses_says_why_for_as_long_as_it_does() -> None:
    story = Gateway()
    story.refuses("gateway.hostnames: x.example is a name of pool builds/other already")
    verdict = story.settle()
    assert says(verdict, READY) == ("False", "HostnameTaken")
    ready = verdict.status.condition(READY)
    assert ready is not None
    assert "x.example is a name of pool builds/other" in ready.message
    story.refuses(None)
    assert says(story.settle(), READY) == ("True", "Asleep")


def test_what_a_pod_that_is_gone_refused_is_refused_no_more() -> None:
    story = Gateway()
    story.refuses("for whatever reason")
    del story.pods[POD]
    assert says(story.settle(), READY) == ("True", "Asleep")
