"""The commands of ``kubectl buildpool`` about builds and about what keeps them from running."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import typer

from buildpool import __version__
from buildpool.cli.client import (
    Client,
    Context,
    Gateway,
    Kubeconfig,
    Namespace,
    Printed,
    Way,
    connections,
    pools_of,
)
from buildpool.client.values import Structure

Connection = Annotated[
    str,
    typer.Option(
        help="Name of the builder; absent: the only one that connect has made.",
        autocompletion=connections,
    ),
]


def _refs(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Refs of builds, for the completion of the shell; nothing where they cannot be listed."""
    from buildpool.client.looking import refs

    with suppress(Exception):
        found = refs(str(context.params.get("builder") or ""))
        return [ref for ref in found if ref.startswith(incomplete)]
    return []


def builds(
    builder: Annotated[
        str,
        typer.Argument(
            help="Name of the builder; absent: the only one that connect has made.",
            autocompletion=connections,
        ),
    ] = "",
    output: Printed = None,
) -> None:
    """List the builds of a connection: those that run, and the latest that have ended."""
    from buildpool.client.looking import listed

    typer.echo(listed(builder, output))


def logs(
    ref: Annotated[
        str,
        typer.Argument(help="The build's ref, or how it begins.", autocompletion=_refs),
    ],
    builder: Connection = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="If it runs, until it ends.")
    ] = False,
) -> None:
    """Print the log of a build of a connection."""
    from buildpool.client.looking import show_log

    show_log(ref, builder, follow=follow)


def cancel(
    ref: Annotated[
        str,
        typer.Argument(help="The build's ref, or how it begins.", autocompletion=_refs),
    ],
    builder: Connection = "",
    pool: Annotated[
        str,
        typer.Option(
            help="The pool, where there is no connection; the ref then has to be whole.",
            autocompletion=pools_of,
        ),
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """End a build that runs behind the gateway. It takes the right to change the pool."""
    from buildpool.client.cancelling import cancel as carry_out
    from buildpool.client.cancelling import cancel_of_pool

    if pool:
        where = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
        typer.echo(cancel_of_pool(pool, ref, **where))
    else:
        typer.echo(carry_out(ref, builder))


def doctor(
    pools: Annotated[
        list[str] | None,
        typer.Argument(help="Pools; absent: those of your connections.", autocompletion=pools_of),
    ] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    client: Client = "",
    via: Way = None,
    gateway: Gateway = "",
    build: Annotated[
        bool, typer.Option(help="Build one step, too, which wakes a pool that sleeps.")
    ] = True,
) -> None:
    """Find what is wrong between this machine and a build, and what helps. Changes nothing."""
    from buildpool.client.connecting import Wish
    from buildpool.client.doctor import diagnose

    wish = Wish(
        tuple(pools or ()),
        namespace=namespace,
        context=context,
        kubeconfig=kubeconfig,
        client=client,
        via=via,
        gateway=gateway,
    )
    if not diagnose(wish, build=build):
        raise typer.Exit(1)


def version(
    client: Annotated[
        bool, typer.Option("--client", help="This program's version only; asks nobody.")
    ] = False,
    output: Annotated[
        Structure | None, typer.Option("--output", "-o", help="For other programs.")
    ] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Print the versions of this program, of the operator, and of connected pools' BuildKit."""
    if client:
        typer.echo(__version__)
        return
    from buildpool.client.versions import versions

    typer.echo(versions(namespace=namespace, context=context, kubeconfig=kubeconfig, form=output))
