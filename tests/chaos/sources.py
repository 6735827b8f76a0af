"""What is built: sources that no builder has built before, and how to see that they were built.

Every build has a mark of its own in a command of a RUN step, so that nothing is cached and no two
builds share a step; and the mark comes back as the only file of the result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.records import BuildKind
from e2e.clients import BASE, Client, base_context, base_image, context

SECONDS: Final = {
    BuildKind.SHORT_BUILDCTL: 1,
    BuildKind.SHORT_BUILDX: 1,
    BuildKind.LONG_BUILDCTL: 30,
    BuildKind.LONG_BUILDX: 30,
}
"""How long the one step takes."""
LINKED_SECONDS: Final = (10, 10)
"""How long the step of the first target takes, and that of the second, which is built on it."""
MADE: Final = "made"
BUILDER: Final = "chaos"
"""The name under which buildx knows the pool."""


@dataclass(frozen=True, slots=True)
class Work:
    """One build that is about to start."""

    kind: BuildKind
    folder: Path
    """Its own; the client runs in it."""
    mark: str

    def command(self, client: Client) -> list[str]:
        """Writes the sources; the command line that builds them."""
        match self.kind:
            case BuildKind.LINKED_BAKE:
                self._write_bake_file()
                return ["buildx", "bake", "--builder", BUILDER, "--progress", "plain", "program"]
            case BuildKind.CHECK:
                self._write_dockerfile(seconds=1)
                check = ["buildx", "build", "--builder", BUILDER, "--check"]
                return [*check, *base_context(), "source"]
        self._write_dockerfile(SECONDS[self.kind])
        output = "--output=type=local,dest=out"
        if self.kind in (BuildKind.SHORT_BUILDCTL, BuildKind.LONG_BUILDCTL):
            return client.build_command(Path("source"), output)
        build = ["buildx", "build", "--builder", BUILDER, "--progress", "plain"]
        return [*build, *base_context(), output, "source"]

    def is_made(self) -> bool:
        """Whether the result is there, and is of these sources."""
        if self.kind is BuildKind.CHECK:
            return True
        made = self.folder / "out" / MADE
        return made.exists() and made.read_text().strip() == self.mark

    def _write_dockerfile(self, seconds: int) -> None:
        context(
            self.folder / "source",
            f"FROM {BASE} AS work\nRUN sleep {seconds} && echo {self.mark} > /{MADE}\n"
            f"FROM scratch\nCOPY --from=work /{MADE} /{MADE}\n",
        )

    def _write_bake_file(self) -> None:
        first, second = LINKED_SECONDS
        context(
            self.folder / "library",
            f"FROM {BASE}\nRUN sleep {first} && echo {self.mark} > /{MADE}\n",
        )
        context(
            self.folder / "program",
            f"FROM {BASE} AS work\nCOPY --from=library /{MADE} /library\n"
            f"RUN sleep {second} && cp /library /{MADE}\n"
            f"FROM scratch\nCOPY --from=work /{MADE} /{MADE}\n",
        )
        layout = base_image()
        base = {BASE: f"oci-layout://{layout}"} if layout else {}
        targets = {
            "library": {"context": "library", "contexts": base},
            "program": {
                "context": "program",
                "contexts": {**base, "library": "target:library"},
                "output": ["type=local,dest=out"],
            },
        }
        (self.folder / "docker-bake.json").write_text(json.dumps({"target": targets}))
