"""Everything that is wrong with a spec, each with the path as its user writes it, and a remedy.

The API server has refused what schema and CEL can judge, so most of this speaks about the rest:
TOML, comparisons, reserved names. The rules of the schema are checked again all the same, for
objects stored under an older CRD and for files that no API server has seen. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from buildpool.core.api import quantity
from buildpool.core.api.builders import Builders
from buildpool.core.api.daemon_config import config_problems
from buildpool.core.api.model import Check, Model
from buildpool.core.api.spec import PoolSpec
from buildpool.core.errors import Problem

RESERVED_PREFIXES: Final = ("buildpool.dev/", "app.kubernetes.io/")
"""Prefixes of labels and annotations by which the operator finds its objects again."""
RESERVED_VARIABLES: Final = (
    "BUILDKITD_CONFIG",
    "BUILDKITD_DEBUGADDR",
    "BUILDKIT_HOST",
    "HOME",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
)
"""Variables by which the daemon finds its directories and its socket."""
TRACING_VARIABLES: Final = frozenset(
    {
        "BUILDPOOL_POD",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_TRACES_EXPORTER",
    }
)
"""Variables that ``builders.tracing`` sets."""
ARCHITECTURE_LABEL: Final = "kubernetes.io/arch"


def problems_of(spec: PoolSpec, *, is_stored: bool) -> Iterator[Problem]:
    """What is wrong with a spec whose structure is right."""
    yield from _broken_rules(spec, "spec", is_stored=is_stored)
    yield from _builder_problems(spec.builders, "spec.builders")


def structural_problems(error: ValidationError) -> Iterator[Problem]:
    """What pydantic found wrong with the structure of a spec."""
    for detail in error.errors(include_url=False):
        path = "spec"
        for part in detail["loc"]:
            # A map's bad key is named twice: by itself and by the word "[key]".
            path += f"[{part}]" if isinstance(part, int) else f".{part}".removesuffix(".[key]")
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            yield Problem(path, "there is no such field", "check its spelling or remove it")
        elif detail["type"] == "missing":
            yield Problem(path, "the field is missing", "set it")
        else:
            yield Problem(
                path,
                message[:1].lower() + message[1:],
                "docs/reference/pool.md lists what is allowed",
            )


def _broken_rules(model: Model, path: str, *, is_stored: bool) -> Iterator[Problem]:
    for rule in model.rules:
        if not rule.holds(model) and not (is_stored and rule.spares_stored):
            yield rule.problem(path)
    for name, alias, checks in _fields(type(model)):
        value = getattr(model, name)
        below = f"{path}.{alias}"
        if value is None:
            continue
        for check in checks:
            if complaint := check.complaint(value):
                yield Problem(below, *complaint)
        for where, child in _children(value, below):
            yield from _broken_rules(child, where, is_stored=is_stored)


@cache
def _fields(kind: type[Model]) -> tuple[tuple[str, str, tuple[Check, ...]], ...]:
    """Name, alias and limits of each field. To ask metadata which of it is a limit takes time."""
    return tuple(
        (name, str(info.alias), tuple(each for each in info.metadata if isinstance(each, Check)))
        for name, info in kind.model_fields.items()
    )


def _children(value: object, path: str) -> Iterator[tuple[str, Model]]:
    if isinstance(value, Model):
        yield path, value
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from _children(entry, f"{path}[{index}]")


def _builder_problems(builders: Builders, path: str) -> Iterator[Problem]:
    yield from config_problems(builders.config, f"{path}.config")
    yield from _resource_problems(builders, f"{path}.resources")
    yield from _reserved_keys(builders.pod_labels, f"{path}.podLabels")
    yield from _reserved_keys(builders.pod_annotations, f"{path}.podAnnotations")
    for index, variable in enumerate(builders.env):
        if variable.name in RESERVED_VARIABLES:
            yield Problem(
                f"{path}.env[{index}].name",
                f"{variable.name} is set by the operator",
                "remove the variable",
            )
        elif builders.tracing is not None and variable.name in TRACING_VARIABLES:
            yield Problem(
                f"{path}.env[{index}].name",
                f"{variable.name} is set by {path}.tracing",
                "remove one of the two",
            )
    if ARCHITECTURE_LABEL in builders.node_selector:
        yield Problem(
            f"{path}.nodeSelector",
            f"{ARCHITECTURE_LABEL} is set by the operator",
            "use spec.builders.architecture",
        )


def _resource_problems(builders: Builders, path: str) -> Iterator[Problem]:
    requests, limits = builders.resources.requests, builders.resources.limits
    for name in sorted(requests.keys() & limits.keys()):
        if quantity.parse(requests[name]) > quantity.parse(limits[name]):
            yield Problem(
                f"{path}.requests.{name}",
                f"the request {requests[name]} is more than the limit {limits[name]}",
                "lower the request or raise the limit",
            )
    storage, limit = builders.storage.ephemeral, limits.get("ephemeral-storage")
    if storage and limit and quantity.parse(limit) < quantity.parse(storage.size_limit):
        yield Problem(
            f"{path}.limits.ephemeral-storage",
            f"the limit {limit} is less than the builder's storage of {storage.size_limit}",
            "raise the limit or lower spec.builders.storage.ephemeral.sizeLimit",
        )


def _reserved_keys(entries: Mapping[str, Any], path: str) -> Iterator[Problem]:
    for key in sorted(entries):
        if key.startswith(RESERVED_PREFIXES):
            yield Problem(path, f"the key {key} is reserved", "choose a prefix of your own")
