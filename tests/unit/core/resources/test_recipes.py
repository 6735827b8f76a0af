"""The flags that clients get for the shared cache, as a shell reads them."""

from __future__ import annotations

import subprocess

import pytest

from buildpool.core.resources import cache_recipes
from samples import a_pool


def references(layout: str, **variables: str) -> list[str]:
    """Where a build of a project imports from and exports to."""
    registry = {"ref": "r.example/cache", "layout": layout}
    recipes = cache_recipes(a_pool(cache={"registry": registry}))
    assert recipes is not None
    done = subprocess.run(
        ["sh", "-euc", f"printf '%s\\n' {recipes.buildx}"],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stdout.split("\n") if line.startswith("type=registry,ref=")]
    return [line.removeprefix("type=registry,ref=").partition(",")[0] for line in told]


@pytest.mark.parametrize(
    ("layout", "branch", "trunk"),
    [
        (
            "Repositories",
            "r.example/cache/team/app:amd64-a-b",
            "r.example/cache/team/app:amd64-main",
        ),
        ("Tags", "r.example/cache:team-app-amd64-a-b", "r.example/cache:team-app-amd64-main"),
    ],
)
def test_a_branch_has_a_cache_and_falls_back_to_that_of_the_trunk(
    layout: str, branch: str, trunk: str
) -> None:
    told = references(layout, REPOSITORY="team/app", BRANCH="a/b")
    assert told == [branch, trunk, branch]


def test_no_tag_is_too_long_though_it_has_both_names_in_it() -> None:
    for reference in references("Tags", REPOSITORY="x" * 200, BRANCH="y" * 200):
        assert len(reference.removeprefix("r.example/cache:")) <= 128
