"""How a deleted pool goes: no new builds, running ones finish, then everything else.

Pure, like ``plan``, and asked again and again until nothing is left. Works whatever the spec says:
a pool with a broken one must be deletable, too.

    1  the Service and the builders' Deployments; their pods drain by themselves (``preStop``)
    2  until the last pod is gone: nothing; a build may need its certificate, volume and cache
    3  the Secrets in the pool's namespace; they may not be listed, so what tells of them stays
    4  the cache registry, ConfigMaps, volumes, policies
    5  the authority in our own namespace

Only what goes first has the pool as its owner: a deletion in the foreground removes that at once.
One that leaves behind what is owned takes the owner off, and an annotation tells whose it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import EventReason
from buildpool.core.objects.refs import Object, component_of, is_terminating, ref_of
from buildpool.core.planning.certificates import authority_ref
from buildpool.core.planning.plan import Delete, strays
from buildpool.core.planning.situation import Situation

KINDS: Final = frozenset({"Service", "Deployment"})
FIRST: Final = frozenset({naming.COMPONENT_BUILDER, naming.COMPONENT_ENDPOINT})
PATIENCE: Final = timedelta(seconds=5)
"""How soon to look again; the end of a pod wakes us anyway."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What to do now, and what is waited for."""

    delete: tuple[Delete, ...]
    draining: tuple[str, ...]
    """Pods that still run."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return not self.delete and not self.draining


def plan_removal(s: Situation) -> Removal:
    """The next step of removing a pool."""
    left = [
        (ref, obj)
        for ref, obj in sorted(s.own.items(), key=lambda item: item[0])
        if not is_terminating(obj)
    ]
    draining = tuple(sorted(pod["metadata"]["name"] for pod in s.observation.pods))
    builders = {ref_of(deployment) for deployment in s.deployments.values()}
    serving = [item for item in left if item[0] in builders or goes_first(item[1])]
    # The authority goes last: beside it stands which clients' Secrets to look for.
    authority = authority_ref(s.pool, s.installation)
    others = [item for item in left if item[0] != authority]
    # By what else there is of a cache, its Secrets are found again.
    secrets = [item for item in others if item[0].kind == "Secret"]
    now = serving or ([] if draining else secrets or others or left)
    going = (
        Delete(
            ref,
            obj["metadata"]["uid"],
            EventReason.REMOVED_BUILDER if ref in builders else None,
            f"removed {ref}, since its pool is deleted",
        )
        for ref, obj in now
    )
    return Removal(
        # Not before its Deployments: until these are gone, theirs are no strays.
        delete=(*going, *strays(s.observation)),
        draining=draining,
    )


def goes_first(obj: Object) -> bool:
    """Whether new builds would come by it: nothing that a build needs until it ends."""
    return component_of(obj) in FIRST and obj["kind"] in KINDS
