"""When each alert fires, and when it is silent: what promtool is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from monitoring import RULES, alerts

POOL = {"namespace": "builds", "pool": "ci"}
DAYS = 86400


def series(metric: str, values: str, **labels: str) -> tuple[str, str]:
    """A metric and its values, one each minute, as promtool writes them."""
    matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"buildpool_{metric}{{{matchers}}}", values


def of_pool(metric: str, values: str, **labels: str) -> tuple[str, str]:
    """The same of one pool."""
    return series(metric, values, **POOL, **labels)


Series = tuple[tuple[str, str], ...]


def all_tests(each: str) -> dict[str, Any]:
    """All cases whose values are so far apart, as promtool reads them."""
    cases = [case.test() for case in CASES if case.each == each]
    return {"rule_files": [str(RULES)], "evaluation_interval": each, "tests": cases}


@dataclass(frozen=True, slots=True)
class Case:
    """What there is to see, and what an alert makes of it."""

    alert: str
    why: str
    """What has happened."""
    seen: Series
    at: str
    """When it is looked at."""
    labels: dict[str, str] | None = None
    """Of the alert that fires; None where none does."""
    not_yet: str = ""
    """When it does not fire yet."""
    value: str = ""
    """What its texts say of the value."""
    each: str = "1m"
    """The time between two values; and between two looks at them, where it is long."""

    def test(self) -> dict[str, Any]:
        """The case as promtool reads it."""
        at = [{"eval_time": self.at, "alertname": self.alert, "exp_alerts": self._expected()}]
        if self.not_yet:
            at.append({"eval_time": self.not_yet, "alertname": self.alert, "exp_alerts": []})
        found = [{"series": name, "values": values} for name, values in self.seen]
        return {
            "name": f"{self.alert}: {self.why}",
            "interval": self.each,
            "input_series": found,
            "alert_rule_test": at,
        }

    def _expected(self) -> list[dict[str, Any]]:
        if self.labels is None:
            return []
        alert, labels = alerts()[self.alert], self.labels

        def text(written: str) -> str:
            written = re.sub(r"{{ \$labels\.(\w+) }}", lambda label: labels[label[1]], written)
            return re.sub(r"{{ \$value.*? }}", self.value, written)

        texts = {name: text(written) for name, written in alert.annotations.items()}
        severity = {"severity": alert.severity}
        return [{"exp_labels": {**labels, **severity}, "exp_annotations": texts}]


HOME = {"namespace": "home", "job": "buildpool-metrics"}
TIMES = "x200"
LONG = "30m"
PATCHES = {"method": "PATCH", "kind": "Deployment", "code": "200"}
OTHER = series("condition", f"1{TIMES}", namespace="builds", pool="fine", condition="Ready")

CASES = (
    Case(
        "BuildpoolNoOperator",
        "both stand by",
        (
            series("leader", "1x5 0x9", **HOME, pod="a"),
            series("leader", f"0{TIMES}", **HOME, pod="b"),
        ),
        "8m",
        HOME,
        not_yet="7m",
    ),
    Case(
        "BuildpoolNoOperator",
        "one leads, and the other has nothing to do with it",
        (
            series("leader", f"1{TIMES}", **HOME, pod="a"),
            series("leader", f"0{TIMES}", namespace="home", job="second-metrics", pod="b"),
        ),
        "5m",
        {"namespace": "home", "job": "second-metrics"},
    ),
    Case("BuildpoolNoOperator", "none is scraped", (), "2m", {}, not_yet="1m"),
    Case(
        "BuildpoolNoOperator",
        "one of two leads",
        (
            series("leader", f"0{TIMES}", **HOME, pod="a"),
            series("leader", f"1{TIMES}", **HOME, pod="b"),
        ),
        "30m",
    ),
    Case(
        "BuildpoolPassesFail",
        "they fail",
        (of_pool("passes_total", f"0+2{TIMES}", result="failed"),),
        "35m",
        POOL,
        not_yet="30m",
    ),
    Case(
        "BuildpoolPassesFail",
        "some failed once",
        (
            of_pool("passes_total", "0x5 9x90", result="failed"),
            of_pool("passes_total", f"0+2{TIMES}", result="done"),
        ),
        "35m",
    ),
    Case(
        "BuildpoolDeploymentsRewritten",
        "all of them, each two minutes, and no pool changes its size",
        (
            series("kubernetes_requests_total", f"0+1{TIMES}", **PATCHES),
            of_pool("builders_wanted", f"2{TIMES}"),
        ),
        "2h",
        {},
        not_yet="20m",
        value="60",
    ),
    Case(
        "BuildpoolDeploymentsRewritten",
        "pools follow their builds",
        (
            series("kubernetes_requests_total", f"0+1{TIMES}", **PATCHES),
            of_pool("builders_wanted", f"2{TIMES}"),
            of_pool("size_changes_total", f"0+1{TIMES}", reason="FollowsLoad"),
        ),
        "2h",
    ),
    Case(
        "BuildpoolPoolNotReady",
        "it is not",
        (of_pool("condition", f"0{TIMES}", condition="Ready"), OTHER),
        "15m",
        POOL,
        not_yet="14m",
    ),
    Case(
        "BuildpoolPoolNotReady",
        "it is again, before long; and nobody promised another condition",
        (
            of_pool("condition", "0x10 1x90", condition="Ready"),
            of_pool("condition", f"0{TIMES}", condition="Progressing"),
        ),
        "15m",
    ),
    Case(
        "BuildpoolPoolNotAccepted",
        "it is not",
        (of_pool("condition", f"0{TIMES}", condition="Accepted"),),
        "5m",
        POOL,
        not_yet="4m",
    ),
    Case(
        "BuildpoolPoolNotAccepted",
        "it is",
        (of_pool("condition", f"1{TIMES}", condition="Accepted"),),
        "30m",
    ),
    Case(
        "BuildpoolPoolFull",
        "five builds on four slots",
        (of_pool("builds_running", f"5{TIMES}"), of_pool("slots", f"4{TIMES}")),
        "15m",
        POOL,
        not_yet="14m",
    ),
    Case(
        "BuildpoolPoolFull",
        "every slot has its build",
        (of_pool("builds_running", f"4{TIMES}"), of_pool("slots", f"4{TIMES}")),
        "30m",
    ),
    Case(
        "BuildpoolBuildsLost",
        "one builder took its builds with it",
        (of_pool("builders_lost_total", "0x5 1x200"),),
        "7m",
        POOL,
        not_yet="4m",
    ),
    Case(
        "BuildpoolBuildsLost",
        "that was an hour ago",
        (of_pool("builders_lost_total", "0x5 1x200"),),
        "70m",
    ),
    Case(
        "BuildpoolLoadUnknown",
        "a daemon is silent",
        (of_pool("builders_load_unknown", f"1{TIMES}"),),
        "5m",
        POOL,
        not_yet="4m",
        value="1",
    ),
    Case(
        "BuildpoolLoadUnknown",
        "a daemon was silent",
        (of_pool("builders_load_unknown", "1x3 0x90"),),
        "10m",
    ),
    Case(
        "BuildpoolBuildOverdue",
        "one build is",
        (of_pool("builders_overdue", "0x5 1x90"),),
        "6m",
        POOL,
        not_yet="5m",
    ),
    Case("BuildpoolBuildOverdue", "none is", (of_pool("builders_overdue", f"0{TIMES}"),), "30m"),
    Case(
        "BuildpoolBuilderDrains",
        "one does, all the time",
        (of_pool("builders", f"1{TIMES}", state="Draining"),),
        "3h",
        POOL,
        not_yet="170m",
    ),
    Case(
        "BuildpoolBuilderDrains",
        "builders serve, and one has drained",
        (
            of_pool("builders", f"2{TIMES}", state="Serving"),
            of_pool("builders", "1x100 0x200", state="Draining"),
        ),
        "3h",
    ),
    Case(
        "BuildpoolCertificateExpires",
        "thirteen days are left",
        (
            of_pool("certificate_expiry_timestamp_seconds", f"{13 * DAYS}{TIMES}", use="client"),
            of_pool("certificate_expiry_timestamp_seconds", f"{30 * DAYS}{TIMES}", use="builder"),
        ),
        "1h",
        {**POOL, "use": "client"},
        not_yet="59m",
        value="12d 23h 0m 0s",
    ),
    Case(
        "BuildpoolCertificateExpires",
        "it was renewed",
        (
            of_pool(
                "certificate_expiry_timestamp_seconds",
                f"{13 * DAYS}x30 {90 * DAYS}x99",
                use="client",
            ),
        ),
        "2h",
    ),
    Case(
        "BuildpoolAuthorityExpires",
        "300 days are left",
        (of_pool("authority_expiry_timestamp_seconds", f"{300 * DAYS}{TIMES}"),),
        "1h",
        POOL,
        not_yet="59m",
    ),
    Case(
        "BuildpoolAuthorityExpires",
        "two years are left",
        (of_pool("authority_expiry_timestamp_seconds", f"{730 * DAYS}{TIMES}"),),
        "2h",
    ),
    Case(
        "BuildpoolAuthorityRotationStuck",
        "a day long",
        (of_pool("authority_rotating", f"1{TIMES}"),),
        "24h",
        POOL,
        not_yet="23h",
        each=LONG,
    ),
    Case(
        "BuildpoolAuthorityRotationStuck",
        "it has rotated",
        (of_pool("authority_rotating", "1x20 0x90"),),
        "24h",
        each=LONG,
    ),
    Case(
        "BuildpoolCacheNotReady",
        "it fails its builders",
        (
            of_pool("condition", f"0{TIMES}", condition="CacheReady"),
            of_pool("builders_wanted", f"2{TIMES}"),
        ),
        "15m",
        POOL,
        not_yet="14m",
    ),
    Case(
        "BuildpoolCacheNotReady",
        "it rests",
        (
            of_pool("condition", f"0{TIMES}", condition="CacheReady"),
            of_pool("builders_wanted", f"0{TIMES}"),
        ),
        "30m",
    ),
    Case(
        "BuildpoolCacheFull",
        "for an hour",
        (of_pool("cache_used_bytes", f"95{TIMES}"), of_pool("cache_capacity_bytes", f"100{TIMES}")),
        "1h",
        POOL,
        not_yet="59m",
    ),
    Case(
        "BuildpoolCacheFull",
        "room was made",
        (
            of_pool("cache_used_bytes", "95x30 80x90"),
            of_pool("cache_capacity_bytes", f"100{TIMES}"),
        ),
        "2h",
    ),
    Case(
        "BuildpoolCacheTooSmall",
        "in a day it has given back more than it has room for",
        (
            of_pool("cache_reclaimed_bytes_total", f"0+300{TIMES}"),
            of_pool("cache_capacity_bytes", f"10000{TIMES}"),
        ),
        "24h",
        POOL,
        not_yet="10h",
        each=LONG,
    ),
    Case(
        "BuildpoolCacheTooSmall",
        "a volume twice that large",
        (
            of_pool("cache_reclaimed_bytes_total", f"0+300{TIMES}"),
            of_pool("cache_capacity_bytes", f"20000{TIMES}"),
        ),
        "24h",
        each=LONG,
    ),
    Case(
        "BuildpoolCacheDamaged",
        "three blobs were",
        (of_pool("cache_damaged_blobs_total", "0x5 3x90"),),
        "7m",
        POOL,
        not_yet="4m",
    ),
    Case(
        "BuildpoolCacheDamaged",
        "it was long ago",
        (of_pool("cache_damaged_blobs_total", f"3{TIMES}"),),
        "60m",
    ),
    Case(
        "BuildpoolGatewayWithoutEnvoy",
        "it has none",
        (
            series("gateway_envoys", f"0{TIMES}", instance="a"),
            series("gateway_envoys", f"1{TIMES}", instance="b"),
        ),
        "5m",
        {"instance": "a"},
        not_yet="4m",
    ),
    Case(
        "BuildpoolGatewayWithoutEnvoy",
        "it starts",
        (series("gateway_envoys", "0x3 1x90", instance="a"),),
        "10m",
    ),
    Case(
        "BuildpoolGatewayConfigurationRefused",
        "one was",
        (series("gateway_configurations_rejected_total", "0x5 1x90", instance="a"),),
        "7m",
        {"instance": "a"},
        not_yet="4m",
    ),
    Case(
        "BuildpoolGatewayConfigurationRefused",
        "that is over",
        (series("gateway_configurations_rejected_total", "0x5 1x90", instance="a"),),
        "40m",
    ),
    Case(
        "BuildpoolQueueBlocked",
        "three wait, and nobody ever had a slot",
        (
            of_pool("gateway_waiting", f"2{TIMES}", client="ann"),
            of_pool("gateway_waiting", f"1{TIMES}", client="bob"),
        ),
        "15m",
        POOL,
        not_yet="14m",
        value="3",
    ),
    Case(
        "BuildpoolQueueBlocked",
        "one waits, and the others have theirs since long",
        (
            of_pool("gateway_waiting", f"1{TIMES}", client="ann"),
            of_pool("gateway_wait_seconds_count", "0+1x20 20x90", client="ann"),
        ),
        "60m",
        POOL,
        not_yet="40m",
        value="1",
    ),
    Case(
        "BuildpoolQueueBlocked",
        "many wait, and one after the other has its turn",
        (
            of_pool("gateway_waiting", f"9{TIMES}", client="ann"),
            of_pool("gateway_wait_seconds_count", "0+1x200", client="bob"),
        ),
        "60m",
    ),
)
