"""Builds as buildx lists them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.builds import Build, Result, builds_in, chosen, output, table
from buildpool.client.values import Output
from buildpool.core.errors import BuildpoolError

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def a_line(ref: str, **overrides: Any) -> str:
    """What buildx 0.38 prints of one."""
    said: dict[str, Any] = {
        "ref": f"ci/ci/{ref}",
        "name": "app",
        "status": "Completed",
        "created_at": "2026-12-01T11:58:00.123456789Z",
        "completed_at": "2026-12-01T11:59:30Z",
        "total_steps": 7,
        "completed_steps": 7,
        "cached_steps": 3,
    }
    return json.dumps({**said, **overrides})


def a_build(ref: str, **overrides: Any) -> Build:
    (build,) = builds_in(a_line(ref, **overrides))
    return build


RUNNING = {"status": "Running", "completed_at": None}


def test_a_list_is_read_those_that_run_first_then_the_latest() -> None:
    listed = "\n".join(
        (
            a_line("aaa", created_at="2026-12-01T10:00:00Z"),
            a_line("bbb", status="Error"),
            a_line("ccc", **RUNNING, created_at="2026-12-01T09:00:00Z"),
            "a warning of some later version",
            json.dumps({"ref": "ci/ci/ddd"}),
        )
    )
    found = builds_in(listed)
    assert [build.ref for build in found] == ["ccc", "bbb", "aaa"]
    assert [build.result for build in found] == [Result.RUNNING, Result.ERROR, Result.COMPLETED]
    assert (found[0].ended, found[0].is_running, found[1].steps, found[1].cached) == (
        None,
        True,
        7,
        3,
    )


@given(
    line=st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda below: st.lists(below) | st.dictionaries(st.text(), below),
        ).map(json.dumps),
        st.fixed_dictionaries(
            {
                "ref": st.text() | st.text().map(lambda ref: f"ci/ci/{ref}"),
                "status": st.sampled_from(["Running", "Completed", "Error", "?"]),
                "created_at": st.text() | st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
                "total_steps": st.integers() | st.text(),
                "name": st.text() | st.none(),
            }
        ).map(json.dumps),
    )
)
def test_whatever_is_listed_is_read_or_left_out(line: str) -> None:
    for build in builds_in(line):
        assert build.ref.isalnum()
        assert not build.ref.startswith("-"), "it would be a flag"
        shown = table([build], now=NOON)
        assert all(each.isprintable() or each == "\n" for each in shown)
        assert shown.count("\n") == 1
        assert json.loads(output([build], Output.JSON))[0]["ref"] == build.ref


def test_a_build_is_chosen_by_its_ref_or_by_how_that_begins() -> None:
    builds = [a_build("abc1"), a_build("abc12"), a_build("xyz")]
    assert chosen(builds, "x").ref == "xyz"
    assert chosen(builds, "abc1").ref == "abc1", "a whole ref is no beginning"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("abc", r"2 builds begin with abc \(abc1, abc2\); give more of the ref"),
        ("q", "no build is known that begins with 'q'; list them: kubectl buildpool builds"),
        ("", "no build is known"),
    ],
)
def test_what_chooses_none_or_several_says_what_helps(ref: str, says: str) -> None:
    with pytest.raises(BuildpoolError, match=says):
        chosen([a_build("abc1"), a_build("abc2")], ref)


def test_a_ref_that_two_pools_have_chooses_none() -> None:
    both = [a_build("abc1"), replace(a_build("abc1"), pool="ci-arm")]
    with pytest.raises(BuildpoolError, match="pools ci and ci-arm both have a build abc1"):
        chosen(both, "abc1")


def test_the_table_says_how_long_ago_and_how_long() -> None:
    builds = [a_build("abc1"), a_build("abc2", **RUNNING, created_at="2026-12-01T11:59:50Z")]
    head, first, second = table(builds, now=NOON).splitlines()
    assert head.split() == ["REF", "POOL", "RESULT", "BEGAN", "TOOK", "STEPS", "CACHED", "NAME"]
    assert first.split() == ["abc1", "ci", "Completed", "1m", "ago", "1m", "7", "3", "app"]
    assert second.split() == ["abc2", "ci", "Running", "10s", "ago", "10s", "7", "3", "app"]


def test_a_clock_that_is_behind_shows_no_future() -> None:
    shown = table([a_build("abc1", **RUNNING)], now=NOON - timedelta(hours=1))
    assert "0s ago" in shown


def test_other_programs_get_what_there_is() -> None:
    builds = [a_build("abc1"), a_build("abc2", **RUNNING)]
    assert output(builds, Output.NAME) == "abc1\nabc2"
    plain = json.loads(output(builds, Output.JSON))
    assert yaml.safe_load(output(builds, Output.YAML)) == plain
    assert plain[0] == {
        "ref": "abc1",
        "pool": "ci",
        "name": "app",
        "result": "Completed",
        "begun": "2026-12-01T11:58:00.123456+00:00",
        "ended": "2026-12-01T11:59:30+00:00",
        "steps": 7,
        "cached": 3,
    }
    assert plain[1]["ended"] is None
