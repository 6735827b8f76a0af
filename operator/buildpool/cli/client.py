"""The commands of ``kubectl buildpool``: for users of pools, with kubectl's habits."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import typer

from buildpool.client.values import Form, Output, Via

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", help="The pool's namespace; absent: that of the current context."
    ),
]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig; absent: the current one.")]
Kubeconfig = Annotated[str, typer.Option(help="The kubeconfig; absent: the one kubectl finds.")]


def pools_of(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Names of pools, for the completion of the shell; nothing where they cannot be read."""
    from buildpool.client.reading import names

    given = context.params
    with suppress(Exception):
        found = names(
            namespace=str(given.get("namespace") or ""),
            context=str(given.get("context") or ""),
            kubeconfig=str(given.get("kubeconfig") or ""),
        )
        return [name for name in found if name.startswith(incomplete)]
    return []


def connections(incomplete: str) -> Iterable[str]:
    """Names of connections, likewise."""
    from buildpool.client.folder import names

    return [name for name in names() if name.startswith(incomplete)]


Pool = Annotated[str, typer.Argument(help="Name of the pool.", autocompletion=pools_of)]
Client = Annotated[str, typer.Option(help="Client of the pool; absent: the only one it has.")]
Way = Annotated[
    Via | None,
    typer.Option(help="The way; absent: in a pod service, else a hostname, else a port-forward."),
]
Gateway = Annotated[
    str, typer.Option(help="The gateway's Service, as namespace/name; absent: it is looked up.")
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Printed = Annotated[Output | None, typer.Option("--output", "-o", help="For other programs.")]


def connect(
    pools: Annotated[
        list[str],
        typer.Argument(help="Pools; several become one builder.", autocompletion=pools_of),
    ],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    client: Client = "",
    name: Annotated[
        str, typer.Option(help="Name of the builder; absent: that of the first pool.")
    ] = "",
    use: Annotated[bool, typer.Option("--use", help="Make the builder the current one.")] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Keep a port-forward in the background."),
    ] = False,
    via: Way = None,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65000,
            help="Port of the service or hostname, or of this machine for the port-forward; "
            "absent: 1234, or any that is free.",
        ),
    ] = 0,
    gateway: Gateway = "",
    form: Annotated[
        Form | None,
        typer.Option("--print", help="Print how to connect, instead of making a builder."),
    ] = None,
) -> None:
    """Make pools a builder of docker buildx. The same command renews its certificates."""
    from buildpool.client.connecting import Wish
    from buildpool.client.connecting import connect as carry_out

    wish = Wish(
        tuple(pools),
        namespace=namespace,
        context=context,
        kubeconfig=kubeconfig,
        client=client,
        name=name,
        via=via,
        gateway=gateway,
        port=port,
        use=use,
        detach=detach,
        form=form,
    )
    carry_out(wish)


def disconnect(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the builder; absent: the only one there is.",
            autocompletion=connections,
        ),
    ] = "",
) -> None:
    """Remove a builder that connect has made, its files and its port-forward."""
    from buildpool.client.connecting import disconnect as carry_out

    carry_out(name)


def status(
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Printed = None,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show all pools, what is wrong first."""
    from buildpool.client.reading import overview

    text = overview(
        namespace=namespace,
        context=context,
        kubeconfig=kubeconfig,
        everywhere=everywhere,
        form=output,
    )
    typer.echo(text)


def top(
    pools: Annotated[
        list[str] | None,
        typer.Argument(help="Pools; absent: all of the namespace.", autocompletion=pools_of),
    ] = None,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Printed = None,
    every: Annotated[
        float, typer.Option(help="Seconds between two looks.", min=0.5, max=3600)
    ] = 2.0,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Watch pools: builders as slots, the builds that run, and what waits. Ctrl-C ends it."""
    from buildpool.client.top import top as carry_out

    carry_out(
        tuple(pools or ()),
        namespace=namespace,
        context=context,
        kubeconfig=kubeconfig,
        everywhere=everywhere,
        form=output,
        every=every,
    )


def explain(
    pool: Pool, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Say why a pool has the size it has, and what it will do next. Changes nothing."""
    from buildpool.client.reading import explained

    typer.echo(explained(pool, namespace=namespace, context=context, kubeconfig=kubeconfig))


def rotate(
    pool: Pool,
    namespace: Namespace = "",
    authority: Annotated[
        bool, typer.Option("--authority", help="The authority, in phases, and all certificates.")
    ] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Have a pool's certificates replaced now."""
    from buildpool.client.reading import rotate as carry_out

    typer.echo(
        carry_out(
            pool, namespace=namespace, context=context, kubeconfig=kubeconfig, authority=authority
        )
    )


def warm(
    pool: Pool,
    namespace: Namespace = "",
    builders: Annotated[int, typer.Option(help="How many builders, at least.", min=1)] = 1,
    span: Annotated[
        str, typer.Option("--for", help="For how long, such as 30m; up to 24h.")
    ] = "30m",
    off: Annotated[bool, typer.Option("--off", help="Take back what was asked for.")] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Have builders ready before their builds come, for a while."""
    from buildpool.client.reading import cool
    from buildpool.client.reading import warm as carry_out

    where = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
    if off:
        typer.echo(cool(pool, **where))
    else:
        typer.echo(carry_out(pool, **where, builders=builders, span=span))


def hold(name: Annotated[str, typer.Argument(help="Name of the builder.")]) -> None:
    """Keep the port-forwards and certificates of a connection. connect runs it."""
    from buildpool.client.forwarding import hold as carry_out

    carry_out(name)
