"""The words of our tests for what a build may ask for are those of the BuildKit that builders run.

What they do not know, nobody has looked at: a newer BuildKit with another word fails this, and
``unit/buildkit/test_solve_outputs.py`` tells whether a client that may only import can harm by it.
"""

from __future__ import annotations

import json
import re
from typing import Final

from devcluster.golang import TOOLS, version_of
from e2e.clients import run
from go_program import PROGRAM, buildkit, program
from solve_words import (
    ATTRS,
    CACHE_OPTIONS,
    CACHES,
    ENTITLEMENTS,
    EXPORTERS,
    IMAGE_ATTRIBUTES,
    SOLVE_REQUEST,
    TYPE,
)

BUILDKIT: Final = "github.com/moby/buildkit"


def words(file: str, pattern: str) -> set[str]:
    """What is found in a file of BuildKit's source."""
    found = set(re.findall(pattern, (buildkit() / file).read_text()))
    assert found, f"{file} has become another one"
    return found


def test_the_go_program_is_made_of_the_buildkit_that_builders_run() -> None:
    assert version_of(PROGRAM, BUILDKIT) == version_of(TOOLS, BUILDKIT)


def test_a_request_has_the_fields_that_our_tests_know() -> None:
    done = run(str(program()), "fields")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "SolveRequest": SOLVE_REQUEST,
        "Exporter": {"Type": TYPE, "Attrs": ATTRS},
        "CacheOptions": CACHE_OPTIONS,
        "CacheOptionsEntry": {"Type": TYPE, "Attrs": ATTRS},
    }


def test_an_image_has_no_attributes_that_our_tests_do_not_know() -> None:
    known = words("exporter/containerimage/exptypes/keys.go", r' ImageExporterOptKey = "(.+)"')
    known |= words("exporter/exptypes/keys.go", r' ExporterOptKey = "(.+)"')
    assert known <= set(IMAGE_ATTRIBUTES)


def test_there_are_no_exporters_caches_and_entitlements_that_our_tests_do_not_know() -> None:
    assert words("client/exporters.go", r'\tExporter\w+ += "(\w+)"') <= set(EXPORTERS)
    caches = r'"(\w+)": +\w+\.ResolveCacheExporterFunc'
    assert words("cmd/buildkitd/main.go", caches) <= set(CACHES)
    entitlements = r' Entitlement = "([\w.]+)"'
    assert words("util/entitlements/entitlements.go", entitlements) <= set(ENTITLEMENTS)
