"""What a client of a pool may do, and with which builds."""

from __future__ import annotations

from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_outputs import outputs_of
from buildpool.buildkit.solve_requests import ANY_NAME, Solve
from buildpool.core.api.brief import ClientBrief
from buildpool.core.routing.sharing import lies_in
from buildpool.gateway.ext_proc.calls import READING, Call
from buildpool.gateway.pools.served import ServedPool
from buildpool.gateway.slots.refusals import Denied, NotServed, Unreadable


def client_of(call: Call, served: ServedPool) -> ClientBrief:
    """The client that asks, if it may build. One that builds may go on, also once it is removed."""
    client = served.brief.client(call.identity)
    if not served.scheduler.connections.is_building(call.connection):
        if served.is_closing:
            raise NotServed(served.brief.key)
    elif client is None:
        client = served.client_let_in(call.connection)
    if client is None:
        who = call.identity or "a client without an identity"
        raise Denied(f"{who} is not among access.clients of pool {served.brief.key} (any more)")
    served.let_in(call.connection, client)
    return client


async def check_owner(call: Call, served: ServedPool, ref: str) -> None:
    """Whether a build that runs is the caller's own. Its owner goes on, also once it is removed.

    Where it is not known whose it is (it came through another gateway, or was being read when
    this process began), a client that may not export must not decide how it ends.
    """
    connections, client = served.scheduler.connections, served.brief.client(call.identity)
    owner = connections.owner_of(ref)
    if owner is None and client is not None and not client.may_export:
        # Its first call comes beside its solve.
        owner = await served.scheduler.locator.owner_of(call.connection, ref)
    if owner is not None:
        is_allowed = owner == call.identity
    elif client is not None:
        is_allowed = client.may_export
    else:
        is_allowed = connections.is_building(call.connection)
    if not is_allowed:
        raise _not_theirs(call, served, ref)


def check_solve(
    call: Call, served: ServedPool, client: ClientBrief, solve: Solve, message: bytes
) -> None:
    """Whether the build is a new one, and the client may write what it writes.

    Raises Denied or Unreadable.
    """
    owner = served.scheduler.connections.owner_of(solve.ref)
    is_elsewhere = owner is None and served.scheduler.locator.runs(solve.ref)
    if (owner or call.identity) != call.identity or (is_elsewhere and not client.may_export):
        raise _not_theirs(call, served, solve.ref)
    cache = served.brief.cache
    if client.may_export or cache is None:
        return
    try:
        outputs = tuple(outputs_of(message))
    except WireError as error:
        raise Unreadable(str(error)) from error
    for output in outputs:
        name = output.reference
        # What is called ``*``, the build itself gives a name.
        if not name or name == ANY_NAME:
            raise _import_only(served, client, f"{output.field} is not for it; leave it out")
        if lies_in(name, cache):
            where = f"{output.field} lies in the shared cache; write to another repository"
            raise _import_only(served, client, where)


def check_care(call: Call, served: ServedPool, client: ClientBrief) -> None:
    """Whether the client may do this to what builders keep. Raises Denied."""
    if not client.may_export and call.path not in READING:
        raise _import_only(served, client, f"{call.method} changes what builders keep")


def _import_only(served: ServedPool, client: ClientBrief, what: str) -> Denied:
    return Denied(
        f"{client.name} may import from pool {served.brief.key}, not change what others build "
        f"with: {what}, or ask for inject: Full in access.clients (it says inject: Import)"
    )


def _not_theirs(call: Call, served: ServedPool, ref: str) -> Denied:
    return Denied(f"the build {ref} of pool {served.brief.key} is not one of {call.identity}")
