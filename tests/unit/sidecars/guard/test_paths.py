"""Which paths are manifests and blobs."""

from __future__ import annotations

import pytest

from buildpool.sidecars.guard.upstream import Wanted
from unit.sidecars.guarded import (
    DIGEST,
    MANIFEST,
)

STRANGE = (
    "/v2",
    "/v2/team/app/tags/list",
    "/v2/manifests/main",
    "/v2/Team/app/manifests/main",
    "/v2/team//app/manifests/main",
    "/v2/../app/manifests/main",
    "/v2/team/./app/manifests/main",
    "/v2/team/%2e%2e/app/manifests/main",
    "/v2/team/app/manifests/..",
    "/v2/team/app/manifests/main\n",
    "/v2/team/app/manifests/ma&in",
    "/v2/team/app/manifests/" + 129 * "a",
    "/v2/team/app/manifests/sha256:aa",
    "/v2/team/app/blobs/main",
    f"/v2/team/app/blobs/{DIGEST}/",
    f"/v2/team/app/blobs/{DIGEST.upper()}",
    f"/v2/{256 * 'a'}/manifests/main",
    f"https://elsewhere{MANIFEST}",
)


@pytest.mark.parametrize("path", STRANGE)
def test_strange_paths_are_nothing(path):
    assert Wanted.read(path) is None


@pytest.mark.parametrize(
    ("path", "name", "reference", "is_blob"),
    [
        (MANIFEST, "team/app", "main", False),
        (f"/v2/a/manifests/{DIGEST}", "a", DIGEST, False),
        (f"/v2/a.b/c__d/e--f/manifests/_X.{125 * '-'}", "a.b/c__d/e--f", f"_X.{125 * '-'}", False),
        ("/v2/manifests/manifests/blobs", "manifests", "blobs", False),
        (f"/v2/{255 * 'a'}/blobs/sha256:{64 * '0'}", 255 * "a", f"sha256:{64 * '0'}", True),
    ],
)
def test_proper_paths_are_understood(path, name, reference, is_blob):
    assert Wanted.read(path) == Wanted(path, name, reference, is_blob)
