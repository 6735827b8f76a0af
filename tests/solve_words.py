"""What a request to build may say: BuildKit's words, as our tests know them.

Copied from its source. ``e2e/test_what_builds_may_say.py`` compares them with the BuildKit that
builders run, so that a word which a later one knows is looked at.
"""

from __future__ import annotations

from typing import Final

SOLVE_REQUEST: Final = {
    "Ref": 1,
    "Definition": 2,
    "ExporterDeprecated": 3,
    "ExporterAttrsDeprecated": 4,
    "Session": 5,
    "Frontend": 6,
    "FrontendAttrs": 7,
    "Cache": 8,
    "Entitlements": 9,
    "FrontendInputs": 10,
    "Internal": 11,
    "SourcePolicy": 12,
    "Exporters": 13,
    "EnableSessionExporter": 14,
    "SourcePolicySession": 15,
    "CompatibilityVersion": 16,
    "ProxyNetwork": 17,
}
CACHE_OPTIONS: Final = {
    "ExportRefDeprecated": 1,
    "ImportRefsDeprecated": 2,
    "ExportAttrsDeprecated": 3,
    "Exports": 4,
    "Imports": 5,
}
TYPE, ATTRS = 1, 2
"""The fields of ``Exporter`` and of ``CacheOptionsEntry``."""
NO_NAMES: Final = (
    *("push", "push-by-digest", "registry.insecure", "unpack", "name-canonical", "store"),
    *("oci-mediatypes", "oci-artifact", "attestation-inline", "prefer-nondist-layers"),
    *("source-date-epoch", "compression", "force-compression", "compression-level"),
    *("prefer-image-digest", "buildinfo-attrs"),
    *("rewrite-timestamp", "annotation.a", "annotation-index.a", "annotation[linux/amd64].a"),
)
"""Attributes of the exporter ``image`` that name no place."""
IMAGE_ATTRIBUTES: Final = (*NO_NAMES, "name", "dangling-name-prefix", "danging-name-empty-only")
TO_CLIENT: Final = ("local", "tar", "oci", "docker")
EXPORTERS: Final = ("image", *TO_CLIENT, "moby", "new", "")
CACHES: Final = ("registry", "local", "inline", "gha", "s3", "azblob", "new")
ENTITLEMENTS: Final = ("network.host", "security.insecure", "device", "device=all", "new")
