"""``builds`` and ``logs``: what the builder of a connection has a record of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from buildpool.client import holding
from buildpool.client.builds import Build, builds_in, chosen, output, table
from buildpool.client.buildx import Buildx
from buildpool.client.folder import Folder, names
from buildpool.client.refusals import one_line
from buildpool.client.values import Connection, Output
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError


def listed(name: str, form: Output | None) -> str:
    """The builds of a connection; of the only one there is, if none is named."""
    builds = builds_of(Buildx.found(), connection_named(name))
    if form is not None:
        return output(builds, form)
    return table(builds, now=datetime.now(UTC)) if builds else "No build is recorded."


def show_log(ref: str, name: str, *, follow: bool) -> None:
    """Prints the log of a build, by its ref or by how that begins."""
    buildx, connection = Buildx.found(), connection_named(name)
    # Asked by a ref that it does not know, a daemon would wait for it, and never stop.
    build = chosen(builds_of(buildx, connection), ref)
    if build.is_running and not follow:
        raise BuildpoolError(f"build {build.ref} still runs; -f shows its log until it ends")
    if not buildx.show_log(connection.name, build.ref):
        raise BuildpoolError(f"the log of build {build.ref} cannot be shown whole")


def refs(name: str) -> list[str]:
    """The refs of a connection's builds."""
    return [build.ref for build in builds_of(Buildx.found(), connection_named(name))]


def connection_named(name: str) -> Connection:
    """The connection of this name; the only one there is, if it is empty."""
    there = names()
    if not there:
        raise BuildpoolError(
            "there is no connection; connect to the pool: kubectl buildpool connect"
        )
    if not name and len(there) > 1:
        raise BuildpoolError(f"which connection is meant? there are {', '.join(there)}; name one")
    found = Folder(name or there[0]).connection()
    if found is None or not found.is_made:
        raise BuildpoolError(
            f"there is no builder {name or there[0]} that connect has made; "
            f"there are {', '.join(there)}"
        )
    return found


def builds_of(buildx: Buildx, connection: Connection) -> list[Build]:
    """The builds of a connection, the running ones first."""
    check_is_usable(buildx, connection)
    for line in _caveats(connection):
        sys.stderr.write(f"{line}\n")
    return builds_in(buildx.builds(connection.name))


def check_is_usable(buildx: Buildx, connection: Connection) -> None:
    """BuildpoolError: the builder is not that of the connection any more, or is not reached."""
    if not buildx.has_that_of(connection):
        raise BuildpoolError(
            f"builder {connection.name} is no longer the one that connect has made; connect again"
        )
    folder = Folder(connection.name)
    for node in connection.nodes:  # buildx would take 20 s to notice
        if said := holding.complaint(node, folder):
            raise BuildpoolError(
                f"pool {node.pool} is not reached at {node.address} ({one_line(said)}); connect "
                f"again, or see why: kubectl buildpool doctor {node.pool.name} "
                f"-n {node.pool.namespace}"
            )


def connections() -> Iterator[Connection]:
    """Those that connect has made, as far as they can be read."""
    for name in names():
        with suppress(BuildpoolError):
            found = Folder(name).connection()
            if found is not None and found.is_made:
                yield found


def _caveats(connection: Connection) -> Iterator[str]:
    """Where only some of a pool's builders are asked."""
    for node in connection.nodes:
        target = node.target
        if target is not None and target.service == naming.service(node.pool):
            yield f"pool {node.pool} has no gateway: one of its builders is asked"
