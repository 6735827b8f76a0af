"""Stories: tests that go on at the same time, because most of each is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cluster import Api

Story = Callable[[Api, str, Path], None]
"""Gets the cluster, the namespace of all stories, and a folder of its own."""


@contextmanager
def telling(
    stories: Sequence[Story], api: Api, namespace: str, folder: Path
) -> Iterator[dict[Story, Future[None]]]:
    """All stories, going on."""
    with ThreadPoolExecutor(len(stories)) as threads:
        yield {
            story: threads.submit(story, api, namespace, folder / story.__name__)
            for story in stories
        }
