"""What makes a daemon send the spans of builds to a collector, and what keeps others from it."""

from __future__ import annotations

import re

from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object

POD_VARIABLE = "BUILDPOOL_POD"
"""Name of the variable with the pod's name."""


def environment(pool: Pool) -> list[Object]:
    """The variables of the daemon: those of the user, and those of its tracing."""
    variables = [variable.to_dict() for variable in pool.spec.builders.env]
    tracing = pool.spec.builders.tracing
    if tracing is None:
        return variables
    attributes = {
        "k8s.namespace.name": pool.key.namespace,
        "k8s.pod.name": f"$({POD_VARIABLE})",
        "buildpool.pool": pool.key.name,
    }
    # Of traces only: the daemon would send its metrics, too, and Prometheus has these.
    variables += [
        {"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "OTEL_TRACES_EXPORTER", "value": "otlp"},
        {"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": tracing.endpoint},
        {"name": "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "value": tracing.protocol.value},
        {
            "name": "OTEL_RESOURCE_ATTRIBUTES",
            "value": ",".join(f"{name}={value}" for name, value in attributes.items()),
        },
    ]
    if tracing.headers_from is not None:
        reference = {"secretKeyRef": tracing.headers_from.to_dict()}
        variables.append({"name": "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "valueFrom": reference})
    return variables


def names(pool: Pool) -> list[str]:
    """The daemon's variables that would have ``buildctl``, too, send traces before it ends."""
    found = (variable["name"] for variable in environment(pool))
    return [name for name in found if re.fullmatch("OTEL_[A-Z0-9_]+", name)]
