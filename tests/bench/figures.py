"""How measurements are shown and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cluster import PROJECT


def report(name: str, headline: str, results: Mapping[str, Mapping[str, float]]) -> None:
    """A table of what was measured, and the same in a file of this name."""
    file = PROJECT / "build" / "bench" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{headline}")
    for title, figures in results.items():
        print(f"\n{title}")
        for what, value in figures.items():
            print(f"  {what:<34} {value:10.2f}")
    print(f"\n{file.relative_to(PROJECT)}")
