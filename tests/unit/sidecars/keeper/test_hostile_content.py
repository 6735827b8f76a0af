"""Nothing that may lie in a volume ends a round, and a check answers whatever it is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from buildpool.sidecars.keeper.scanning import repositories
from buildpool.sidecars.keeper.server import application
from unit.sidecars.kept import Kept
from unit.sidecars.stored import DAY, HOUR, Stored, digest_of

DIGEST = digest_of(b"some").removeprefix("sha256:")


def deep(folder: Path) -> None:
    """Deeper than any recursion, and than a path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1400):
        os.mkdir("ab", dir_fd=here)
        below = os.open("ab", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def elsewhere(path: Path) -> Path:
    """A folder that is none of the storage's."""
    volume = next(each for each in path.parents if each.name == "volume")
    return volume.with_name("elsewhere")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):
        made.bind(str(path))


THINGS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_bytes(b"x"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link into nothing": lambda path: path.symlink_to("/nowhere"),
    "a link to a file elsewhere": lambda path: path.symlink_to(elsewhere(path) / "file"),
    "a link to a folder elsewhere": lambda path: path.symlink_to(elsewhere(path)),
    "a pipe": os.mkfifo,
    "a socket": a_socket,
    "an empty folder": lambda path: path.mkdir(),
    "a deep folder": lambda path: (path.mkdir(), deep(path)),
    "a file from before all time": lambda path: (path.touch(), os.utime(path, (0, -(2**40)))),
    "a file from after all time": lambda path: (path.touch(), os.utime(path, (0, 2**40))),
    "a digest": lambda path: path.write_bytes(b"sha256:" + DIGEST.encode()),
    "a folder of folders": lambda path: (path / "data/link/current/link").mkdir(parents=True),
}
PLACES = [
    "",
    "docker",
    "docker/registry/v2/blobs",
    "docker/registry/v2/blobs/sha256",
    f"docker/registry/v2/blobs/sha256/{DIGEST[:2]}",
    f"docker/registry/v2/blobs/sha256/{DIGEST[:2]}/{DIGEST}",
    f"docker/registry/v2/blobs/sha256/{DIGEST[:2]}/{DIGEST}/data",
    "docker/registry/v2/repositories",
    "docker/registry/v2/repositories/app",
    "docker/registry/v2/repositories/app/_uploads",
    "docker/registry/v2/repositories/app/_uploads/1",
    "docker/registry/v2/repositories/app/_layers",
    "docker/registry/v2/repositories/app/_layers/sha256",
    f"docker/registry/v2/repositories/app/_layers/sha256/{DIGEST}",
    f"docker/registry/v2/repositories/app/_layers/sha256/{DIGEST}/link",
    "docker/registry/v2/repositories/app/_manifests",
    "docker/registry/v2/repositories/app/_manifests/tags",
    "docker/registry/v2/repositories/app/_manifests/tags/main",
    "docker/registry/v2/repositories/app/_manifests/tags/main/current",
    "docker/registry/v2/repositories/app/_manifests/tags/main/current/link",
    f"docker/registry/v2/repositories/app/_manifests/tags/main/index/sha256/{DIGEST}",
    f"docker/registry/v2/repositories/app/_manifests/revisions/sha256/{DIGEST}",
    f"docker/registry/v2/repositories/app/_manifests/revisions/sha256/{DIGEST}/link",
]
ODD = [
    "x",
    "..x",
    "a\nb",
    "\udcff\udcfe",
    "A B",
    "é" * 100,
    "_layers",
    "-",
    "link",
    "data",
    "a" * 250,
]


def lay(root: Path, place: str, name: str, thing: str) -> None:
    """Puts something somewhere, where the place can be made and is free."""
    folder = root / place / name if name else root / place
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        THINGS[thing](folder)


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.parametrize("thing", THINGS)
async def test_whatever_lies_in_a_things_place_ends_no_round(place: str, thing: str) -> None:
    with a_volume() as root:
        lay(root, place, "", thing)
        await all_is_well(root)


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["", *ODD]), st.sampled_from([*THINGS])),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_no_content_of_the_volume_ends_a_round(found: list[tuple[str, str, str]]) -> None:
    with a_volume() as root:
        for place, name, thing in found:
            if place or name:
                lay(root, place, name, thing)
        asyncio.run(all_is_well(root))


@contextmanager
def a_volume() -> Iterator[Path]:
    """A volume, and beside it a folder in which nothing must change."""
    with TemporaryDirectory() as folder:
        root, other = Path(folder, "volume"), Path(folder, "elsewhere")
        root.mkdir()
        for name in ("empty", "tags/main", f"sha256/{DIGEST}", f"{DIGEST}", "app/_uploads/1"):
            (other / name).mkdir(parents=True)
        for name in ("file", f"{DIGEST}/data", f"sha256/{DIGEST}/link"):
            (other / name).write_bytes(b"x")
        for path in [*other.rglob("*"), other]:
            os.utime(path, (0, 0))
        before = set(other.rglob("*"))
        yield root
        assert before <= set(other.rglob("*"))
        if root.exists():
            subprocess.run(["rm", "-rf", root], check=True)  # deeper than Python can


async def all_is_well(root: Path) -> None:
    kept = Kept(root)
    with suppress(OSError):  # where a foreign thing is in the way, the registry cannot write either
        kept.cache("other:main", age=HOUR)
    for _ in range(2):
        await kept.upkeep.round()
        await kept.upkeep.usage()
        await kept.check("main", "app")
        await kept.check(f"sha256:{DIGEST}", "app")
        kept.now += DAY


NUMBER = st.integers() | st.floats() | st.just(10**4000)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text() | st.just(f"sha256:{DIGEST}"),
    lambda below: (
        st.lists(below)
        | st.dictionaries(
            st.sampled_from(["digest", "size", "mediaType", "layers", "config", "manifests", "x"]),
            below,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["config", "layers", "manifests"]), JSON))
@settings(max_examples=25, deadline=None)
def test_no_manifest_ends_a_round(body: dict[str, object]) -> None:
    with TemporaryDirectory() as folder:
        Stored(Path(folder)).manifest(
            json.dumps({"schemaVersion": 2, **body}).encode(), "app", "main"
        )
        asyncio.run(all_is_well(Path(folder)))


def test_only_what_can_be_a_repository_is_one(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    for name in ("app", "app/below", "UPPER", "UPPER/app", "a b", "_layers"):
        (stored.storage.repositories / name).mkdir(parents=True, exist_ok=True)
    assert repositories(stored.storage) == ("app", "app/below")


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_a_check_answers_whatever_it_is_asked_for(asked: list[tuple[str, str]]) -> None:
    async def ask(root: Path) -> None:
        async with TestClient(TestServer(application(Kept(root).upkeep))) as client:
            for repository, reference in asked:
                with suppress(UnicodeEncodeError):
                    url = URL("/check/") / repository.replace("\0", "%00").strip("/")
                    answer = await client.get(url.with_query(reference=reference))
                    assert answer.status in {400, 404}

    with TemporaryDirectory() as folder:
        asyncio.run(ask(Path(folder)))
