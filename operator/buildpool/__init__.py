"""buildpool: a Kubernetes operator for fleets of BuildKit daemons.

What may import what, from the outermost to the innermost (docs/architecture.md draws it):

    cli         parses flags and starts a program, which it imports only then
    manager     the operator's process; the only importer of Kopf
    controller  one pass over one pool, and what wakes it
    gateway     the router beside Envoy
    sidecars    the programs in pools' pods: keeper and guard
    client      what users of pools run, installed alone
    kube, buildkit, preflight   the adapters: the API server, daemons, registries
    settings, process           how a process is set up, and what each has
    core        what is decided; pure
"""

import os

__version__ = "0.1.0"

# Read when gRPC is loaded, whoever loads it. Its core writes failed handshakes to stderr, which we
# log once and in our own words; and it hooks into fork, which nobody does here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
