"""Stories: tests that go on at the same time, because most of each is waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster import Api

Story = Callable[[Api, str, Path], None]
"""Gets the cluster, the namespace of all stories of its module, and a folder of its own."""
