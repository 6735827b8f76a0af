"""What Kopf calls: the only modules that know it, a few lines each. Nothing is decided here.

Events wake, daemons tend. Kopf brings the watches, a daemon for each pool, and its finalizer; the
``Operator`` in its memo brings everything else.
"""

from buildpool.handlers.registry import kopf_settings, registry
from buildpool.handlers.wiring import Operator

__all__ = ["Operator", "kopf_settings", "registry"]
