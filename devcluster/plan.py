"""What one cluster is asked to run, handed from `up` to the supervisor through a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from devcluster.addresses import Family
from devcluster.components import Component, control_plane, node
from devcluster.config import Programs
from devcluster.layout import Layout


@dataclass(frozen=True, slots=True)
class Plan:
    """Which programs, and whether there is a node; a cluster without one can run no pod."""

    programs: Programs
    images: tuple[Path, ...]
    """OCI layouts to import at the start; none means control plane only."""
    kubernetes: str
    """The version of the control plane, such as ``1.37``."""
    family: Family = Family.IPV4
    """Of all addresses; a node needs version 4."""

    @property
    def has_node(self) -> bool:
        """Whether pods can run."""
        return bool(self.images)

    def components(self, layout: Layout) -> tuple[Component, ...]:
        """All processes of the box, in the order they are shown."""
        parts = control_plane(layout, self.programs, self.family)
        return (*parts, *node(layout, self.programs, self.images)) if self.has_node else parts

    def write(self, file: Path) -> None:
        """Leave it for the supervisor and for later commands."""
        programs = {name: str(getattr(self.programs, name)) for name in Programs.__slots__}
        images = [*map(str, self.images)]
        plan = {"programs": programs, "images": images, "kubernetes": self.kubernetes}
        file.write_text(json.dumps(plan | {"family": self.family}))

    @classmethod
    def read(cls, file: Path) -> Plan:
        """What was written."""
        raw = json.loads(file.read_text())
        programs = Programs(**{name: Path(path) for name, path in raw["programs"].items()})
        images = tuple(map(Path, raw["images"]))
        return cls(
            programs=programs,
            images=images,
            kubernetes=raw["kubernetes"],
            family=Family(raw.get("family", Family.IPV4)),
        )
