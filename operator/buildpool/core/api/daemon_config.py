"""``spec.builders.config``: extra ``buildkitd.toml``, checked key by key.

The daemon ignores keys it does not know and stops at values of the wrong kind; both are refused
here, before a builder is touched. So are keys that the operator sets itself. Pure.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from buildpool.core.api.builders import BUILDKIT_VERSION
from buildpool.core.errors import Problem

Path = tuple[str, ...]


class TomlType(Enum):
    """What a key takes, in words."""

    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    STRING = "a string"
    STRINGS = "a list of strings"
    STRING_TABLE = "a table of strings"
    DURATION = 'a duration such as "48h", or seconds'
    TABLE = "a table"


KNOWN: Final[Mapping[Path, TomlType]] = {
    ("debug",): TomlType.BOOLEAN,
    ("trace",): TomlType.BOOLEAN,
    ("insecure-entitlements",): TomlType.STRINGS,
    ("proxyNetwork",): TomlType.BOOLEAN,
    ("provenanceEnvDir",): TomlType.STRING,
    ("log", "format"): TomlType.STRING,
    ("log", "level"): TomlType.STRING,
    ("grpc", "debugAddress"): TomlType.STRING,
    ("otel", "socketPath"): TomlType.STRING,
    ("cdi", "disabled"): TomlType.BOOLEAN,
    ("cdi", "specDirs"): TomlType.STRINGS,
    ("cdi", "autoAllowed"): TomlType.STRINGS,
    ("worker", "oci", "labels"): TomlType.STRING_TABLE,
    ("worker", "oci", "platforms"): TomlType.STRINGS,
    ("worker", "oci", "snapshotter"): TomlType.STRING,
    ("worker", "oci", "networkMode"): TomlType.STRING,
    ("worker", "oci", "cniConfigPath"): TomlType.STRING,
    ("worker", "oci", "cniBinaryPath"): TomlType.STRING,
    ("worker", "oci", "cniPoolSize"): TomlType.INTEGER,
    ("worker", "oci", "bridgeName"): TomlType.STRING,
    ("worker", "oci", "bridgeSubnet"): TomlType.STRING,
    ("worker", "oci", "binary"): TomlType.STRING,
    ("worker", "oci", "proxySnapshotterPath"): TomlType.STRING,
    ("worker", "oci", "defaultCgroupParent"): TomlType.STRING,
    ("worker", "oci", "stargzSnapshotter"): TomlType.TABLE,
    ("worker", "oci", "apparmor-profile"): TomlType.STRING,
    ("worker", "oci", "selinux"): TomlType.BOOLEAN,
    ("dns", "nameservers"): TomlType.STRINGS,
    ("dns", "options"): TomlType.STRINGS,
    ("dns", "searchDomains"): TomlType.STRINGS,
    ("frontend", "dockerfile.v0", "enabled"): TomlType.BOOLEAN,
    ("system", "platformsCacheMaxAge"): TomlType.DURATION,
    ("system", "maxRegistryConcurrency"): TomlType.INTEGER,
    ("system", "sessionAuthTimeout"): TomlType.DURATION,
    ("cache", "gha"): TomlType.TABLE,
    ("compaction", "enabled"): TomlType.BOOLEAN,
    ("compaction", "idleTimeout"): TomlType.DURATION,
    ("compaction", "maxRetry"): TomlType.INTEGER,
    ("compaction", "writesPerCheck"): TomlType.INTEGER,
    ("compaction", "sizeWatermark"): TomlType.INTEGER,
    ("compaction", "sizeGrowthPercent"): TomlType.INTEGER,
    ("compaction", "minReclaimBytes"): TomlType.INTEGER,
    ("compaction", "minReclaimPercent"): TomlType.INTEGER,
    ("compaction", "minReclaimPercentFloor"): TomlType.INTEGER,
}
"""The keys a user may set, after ``cmd/buildkitd/config/config.go`` of this release."""

_BY_STORAGE: Final = "the operator computes it from spec.builders.storage; remove it"
_BY_SECURITY: Final = "it follows from spec.builders.security; remove it"
_BY_OPERATOR: Final = "remove it"
MANAGED: Final[Mapping[Path, str]] = {
    ("root",): "use spec.builders.storage",
    ("grpc", "address"): _BY_OPERATOR,
    ("grpc", "tls"): "the operator issues the certificates; remove it",
    ("grpc", "uid"): _BY_SECURITY,
    ("grpc", "gid"): _BY_SECURITY,
    ("grpc", "securityDescriptor"): "it is for Windows only; remove it",
    ("worker", "oci", "enabled"): _BY_OPERATOR,
    ("worker", "oci", "rootless"): _BY_SECURITY,
    ("worker", "oci", "noProcessSandbox"): _BY_SECURITY,
    ("worker", "oci", "userRemapUnsupported"): _BY_SECURITY,
    ("worker", "oci", "gc"): _BY_STORAGE,
    ("worker", "oci", "gckeepstorage"): _BY_STORAGE,
    ("worker", "oci", "reservedSpace"): _BY_STORAGE,
    ("worker", "oci", "maxUsedSpace"): _BY_STORAGE,
    ("worker", "oci", "minFreeSpace"): _BY_STORAGE,
    ("worker", "oci", "gcpolicy"): _BY_STORAGE,
    ("worker", "oci", "max-parallelism"): "use spec.builders.maxParallelism",
    ("worker", "containerd"): "builders have no containerd; remove it",
    ("registry",): "use spec.registries",
    ("frontend", "gateway.v0"): "use spec.frontends.allowed",
    ("history",): "use spec.builders.history",
}
"""The keys the operator sets, or that make no sense in a builder, with what to do instead."""

_ALL: Final = {*KNOWN, *MANAGED}
_TABLES: Final = {path[:depth] for path in _ALL for depth in range(1, len(path))}
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_DURATION: Final = re.compile(r"[+-]?(\d+|(\d*\.?\d+(ns|us|µs|ms|s|m|h))+)")
_CLOSE: Final = 0.75


def parse(text: str) -> dict[str, Any]:
    """The keys and values of a configuration that has no problems."""
    return tomllib.loads(text)


def config_problems(text: str, path: str) -> Iterator[Problem]:
    """What is wrong with a piece of ``buildkitd.toml`` that stands in the field ``path``."""
    try:
        document = parse(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        yield Problem(
            path, f"not valid TOML: {message[:1].lower()}{message[1:]}", "correct this place"
        )
        return
    yield from _table_problems(document, (), path)


def _table_problems(table: Mapping[str, Any], above: Path, where: str) -> Iterator[Problem]:
    for key, value in table.items():
        name = (*above, key)
        if name in MANAGED:
            yield Problem(where, f"{dotted(name)} is not yours to set", MANAGED[name])
        elif name in KNOWN:
            if not _fits(value, KNOWN[name]):
                yield _wrong_value(where, name, KNOWN[name])
        elif name not in _TABLES:
            yield Problem(where, f"buildkitd knows no key {dotted(name)}", _remedy(name))
        elif isinstance(value, dict):
            yield from _table_problems(value, name, where)
        else:
            yield _wrong_value(where, name, TomlType.TABLE)


def _wrong_value(where: str, name: Path, kind: TomlType) -> Problem:
    return Problem(where, f"{dotted(name)} has a wrong value", f"give {kind.value}")


def dotted(name: Path) -> str:
    """The full name of a key, with quotes where TOML needs them."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{_escape(part)}"' for part in name)


def _escape(part: str) -> str:
    return part.encode("unicode_escape").decode("ascii").replace('"', '\\"')


def _remedy(name: Path) -> str:
    """The nearest name there is: one that reads alike, else one whose last part does."""
    spelled = {dotted(known).lower(): known for known in sorted(_ALL | _TABLES)}
    last = {known[-1].lower(): known for known in sorted(_ALL | _TABLES)}
    for wanted, names in ((dotted(name).lower(), spelled), (name[-1].lower(), last)):
        for found in difflib.get_close_matches(wanted, names, n=1, cutoff=_CLOSE):
            nearest = names[found]
            if nearest in MANAGED:
                return f"if {dotted(nearest)} is meant, {MANAGED[nearest]}"
            return f"write {dotted(nearest)}"
    return f"remove it; BuildKit {BUILDKIT_VERSION} would ignore it"


def _fits(value: object, kind: TomlType) -> bool:
    match kind:
        case TomlType.BOOLEAN:
            return isinstance(value, bool)
        case TomlType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case TomlType.STRING:
            return isinstance(value, str)
        case TomlType.STRINGS:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case TomlType.STRING_TABLE:
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        case TomlType.DURATION:
            if isinstance(value, str):
                return _DURATION.fullmatch(value) is not None
            return isinstance(value, int) and not isinstance(value, bool)
        case TomlType.TABLE:
            return isinstance(value, dict)
