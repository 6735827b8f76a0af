"""The command line: parses flags, and starts a program, which it imports only then.

Decides nothing about pools.

    entry     hands the command to what parses it
    app       most commands and their flags
    sidecars  the commands of pools' pods, parsed without what the others need
    gateway   the commands of the gateway's pods
    flags     flags that several commands share
    client    the commands of users: connect, disconnect, status, explain,
              top, warm, rotate
    builds    those about builds, and about what keeps them from running: builds, logs, cancel,
              doctor, version
    completion  what kubectl asks where its user wants a command completed
    render    the objects of a pool, without a cluster
    docs      generated pages of the reference
"""

from buildpool.cli.completion import complete
from buildpool.cli.entry import main

__all__ = ["complete", "main"]
