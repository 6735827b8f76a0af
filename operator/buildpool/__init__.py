"""buildpool: a Kubernetes operator for fleets of BuildKit daemons.

The shape of the package is *observe → plan → act* (docs/architecture.md draws it):

- ``api``, ``pki``, ``resources``, ``diagnosis``, ``plan``, ``removal``, ``verdict``: the pure core,
  functions of their arguments;
- ``kube``, ``metrics``: the rim, which talks to the outside;
- ``controller``: one pass over one pool, and what wakes it; knows no Kopf;
- ``handlers``: the only importers of Kopf, a few lines each;
- ``cli``: the command line that wires it all together.
"""

__version__ = "0.1.0"
