"""What one pass has seen of a pool's world: the input of ``plan``.

Pure data. How it is gathered is the controller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from buildpool.core.objects.drift import Difference
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.cache import CacheReport
from buildpool.core.observed.load import Load


@dataclass(frozen=True, slots=True)
class Observation:
    """The live objects that bear on one pool."""

    live: Mapping[Ref, Object] = field(default_factory=dict)
    """By reference: everything labelled as the pool's, and whatever else has a name the pool
    wants."""
    pods: tuple[Object, ...] = ()
    """The pods of the pool's builders."""
    replica_sets: tuple[Object, ...] = ()
    """Those of the pool's Deployments, and what is left of Deployments that are gone."""
    loads: Mapping[str, Load] = field(default_factory=dict)
    """What the daemons said last, by the uid of their pod; nothing of those that did not answer."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes that pods take, by name; nothing where nobody measures or nobody needs to know."""
    gateways: Mapping[str, bool] = field(default_factory=dict)
    """The pods of the gateway, by name, and whether they are ready; looked for where the pool needs
    any. Those that are gone speak for nobody."""
    acknowledging: frozenset[str] = frozenset()
    """Those of them that say what they serve the pool with; older versions do not."""
    cache_pods: tuple[Object, ...] = ()
    """The pods of its managed cache registry: one, or for a while its predecessor beside it."""
    cache: CacheReport | None = None
    """What the registry of its shared cache answered last; None where it was not asked yet."""
    referred: Mapping[Ref, Object] = field(default_factory=dict)
    """The user's Secrets and ConfigMaps that the spec refers to."""
    absent: frozenset[Ref] = frozenset()
    """Secrets and ConfigMaps that the spec refers to and that do not exist."""
    overruled: Mapping[Ref, tuple[Difference, ...]] = field(default_factory=dict)
    """Where the cluster itself changes what we apply, by an admission webhook perhaps, and how."""
