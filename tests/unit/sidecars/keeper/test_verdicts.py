"""What was found sound outlives a restart, and a file that was tampered with does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildpool.sidecars.keeper.inventory import Identity, Verdict
from buildpool.sidecars.keeper.upkeep import VERDICTS
from buildpool.sidecars.keeper.verdicts import _checksum, load, save
from unit.sidecars.kept import Kept
from unit.sidecars.stored import DAY, HOUR, NOW, digest_of

NUMBERS = st.integers(0, 2**63 - 1)
VERDICTS_OF = st.dictionaries(
    st.binary().map(digest_of),
    st.builds(
        Verdict,
        st.builds(Identity, NUMBERS, NUMBERS, NUMBERS),
        st.integers(0, 2**33).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    ),
)


async def test_a_restart_reads_nothing_again(kept: Kept) -> None:
    digest = kept.cache("caches/app:main", age=HOUR)
    await kept.upkeep.round()
    assert await kept.check() == digest
    kept.read.clear()
    kept.upkeep = kept.restarted()
    assert await kept.check() == digest
    await kept.upkeep.round()
    assert kept.read == []


async def test_what_changed_or_was_found_sound_too_long_ago_is_read_again(kept: Kept) -> None:
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.upkeep.round()
    kept.read.clear()
    kept.storage.data(digest_of(b"one")).touch()
    kept.upkeep = kept.restarted()
    await kept.check()
    assert kept.read == [digest_of(b"one").removeprefix("sha256:")]
    kept.now += DAY
    kept.upkeep = kept.restarted()
    await kept.check()
    assert len(kept.read) == 3, "the layer once more, and the config"


async def test_a_verdict_from_the_future_stands_for_nothing(kept: Kept) -> None:
    kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.check()
    kept.read.clear()
    kept.now -= HOUR
    await kept.check()
    assert len(kept.read) == 2


HOSTILE: dict[str, Callable[[Path], object]] = {
    "half of it": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "a bit": lambda file: file.write_bytes(file.read_bytes()[:-3] + b"0" + file.read_bytes()[-2:]),
    "empty": lambda file: file.write_bytes(b""),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a link": lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file)),
    "lines of nonsense": lambda file: file.write_bytes(
        _checksum(b"x\n\n1 2 3 4 5\n\xff\n") + b"\nx\n\n1 2 3 4 5\n\xff\n"
    ),
    "a time that no calendar has": lambda file: file.write_bytes(
        _checksum(b"a" * 64 + b" 1 1 1 99999999999\n") + b"\n" + b"a" * 64 + b" 1 1 1 99999999999\n"
    ),
    "no folder to write into": lambda file: file.with_name(f"{file.name}.tmp").mkdir(),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_a_file_that_is_not_what_was_written_is_as_none(
    kept: Kept, hostile: Callable[[Path], object]
) -> None:
    digest = kept.cache("caches/app:main", [b"one"], age=HOUR)
    await kept.upkeep.round()
    hostile(kept.root / VERDICTS)
    kept.upkeep = kept.restarted()
    assert await kept.check() == digest
    await kept.upkeep.round()
    kept.spoil(b"one")
    assert await kept.check() is None


@given(VERDICTS_OF)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, found: dict[str, Verdict]) -> None:
    save(tmp_path / "file", found)
    assert load(tmp_path / "file")[0] == found


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(_checksum(content) + b"\n" + content)
    assert load(tmp_path / "file")[0] == {}


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path / "file") == ({}, None)
    assert load(tmp_path / "no/folder") == ({}, None)
    assert timedelta(0) < NOW - datetime.fromtimestamp(0, UTC)
