"""The commands and their flags. Every flag of ``run`` can be an environment variable, too.

Each command imports its own program, and only when it runs. Those of the sidecars are only listed
here: they have to stay small, and are parsed without this.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Annotated

import typer

from buildpool.cli import builds, client, gateway, sidecars
from buildpool.cli.flags import (
    ClusterDomain,
    DenyNetwork,
    LogFormat,
    LogFormatFlag,
    LogLevel,
    LogLevelFlag,
    Page,
    WatchNamespace,
    cluster_domain_of,
    networks_of,
    set_up_logging,
)
from buildpool.core import naming
from buildpool.core.naming import Installation
from buildpool.settings import DEFAULT_IMAGE, DEFAULT_LEASE, Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Fleets of BuildKit daemons on Kubernetes: connect to one, look at it, run its operator."""


app.command(no_args_is_help=True)(client.connect)
app.command()(client.disconnect)
app.command()(client.status)
app.command()(client.explain)
app.command()(client.top)
app.command()(builds.doctor)
app.command()(builds.builds)
app.command(no_args_is_help=True)(builds.logs)
app.command()(builds.version)
app.command(no_args_is_help=True)(builds.cancel)
app.command(no_args_is_help=True)(client.warm)
app.command()(client.rotate)
app.command(hidden=True)(client.hold)


@app.command()
def run(
    namespace: Annotated[
        str,
        typer.Option(
            help="The operator's own namespace: authorities and the Lease lie there.",
            envvar="POD_NAMESPACE",
        ),
    ],
    watch_namespace: WatchNamespace = None,
    identity: Annotated[
        str, typer.Option(help="Name in the Lease; the pod's name.", envvar="POD_NAME")
    ] = socket.gethostname(),
    lease_name: Annotated[
        str,
        typer.Option(
            help="Name of the Lease; another one for each installation in a namespace.",
            envvar="BUILDPOOL_LEASE_NAME",
        ),
    ] = DEFAULT_LEASE,
    deny_network: DenyNetwork = None,
    max_rollouts: Annotated[
        int,
        typer.Option(
            help="How many pools at once replace their builders after an upgrade; 0: all.",
            envvar="BUILDPOOL_MAX_ROLLOUTS",
            min=0,
        ),
    ] = 10,
    max_passes: Annotated[
        int,
        typer.Option(
            help="Passes over pools at once, and as many again that take long.",
            envvar="BUILDPOOL_MAX_PASSES",
            min=1,
        ),
    ] = 8,
    secret_reads_per_second: Annotated[
        float,
        typer.Option(
            help="Secrets that are looked at again each second, to notice one that was changed.",
            envvar="BUILDPOOL_SECRET_READS_PER_SECOND",
            min=0.1,
        ),
    ] = 10.0,
    image: Annotated[
        str,
        typer.Option(
            help="This program's own image, for what runs of it in pools' pods.",
            envvar="BUILDPOOL_IMAGE",
        ),
    ] = DEFAULT_IMAGE,
    gateway_service: Annotated[
        str,
        typer.Option(
            help="Service of the gateway in the operator's own namespace; empty: there is none.",
            envvar="BUILDPOOL_GATEWAY_SERVICE",
        ),
    ] = "",
    cluster_domain: ClusterDomain = "",
    metrics_port: Annotated[
        int, typer.Option(help="Port of /metrics; 0 turns it off.", envvar="BUILDPOOL_METRICS_PORT")
    ] = 8080,
    health_port: Annotated[
        int, typer.Option(help="Port of /healthz; 0 turns it off.", envvar="BUILDPOOL_HEALTH_PORT")
    ] = 8081,
    log_format: LogFormatFlag = LogFormat.JSON,
    log_level: LogLevelFlag = LogLevel.INFO,
) -> None:
    """Run the operator."""
    from buildpool.manager import terms

    set_up_logging(log_format, log_level)
    settings = Settings(
        namespace=namespace,
        identity=identity,
        image=image or DEFAULT_IMAGE,
        gateway_service=gateway_service,
        cluster_domain=cluster_domain_of(cluster_domain, namespace=namespace),
        watch_namespaces=tuple(watch_namespace or ()),
        lease=lease_name,
        denied_networks=networks_of(deny_network or ()),
        max_rollouts=max_rollouts,
        max_passes=max_passes,
        secret_reads_per_second=secret_reads_per_second,
        metrics_port=metrics_port,
        health_port=health_port,
    )
    asyncio.run(terms.main(settings))


@app.command()
def render(
    file: Annotated[Path, typer.Argument(help="A file with BuildKitPools; - is standard input.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of pools that name none.")
    ] = "default",
    operator_namespace: Annotated[
        str, typer.Option(help="Where the operator would run.")
    ] = "buildpool-system",
    image: Annotated[
        str, typer.Option(help="The operator's image there.", envvar="BUILDPOOL_IMAGE")
    ] = DEFAULT_IMAGE,
    cluster_domain: Annotated[
        str,
        typer.Option(
            help="What the full names of Services would end with.",
            envvar="BUILDPOOL_CLUSTER_DOMAIN",
        ),
    ] = naming.USUAL_DOMAIN,
) -> None:
    """Print the objects a pool would consist of, with new certificates. Needs no cluster."""
    from buildpool.cli.render import rendered, text_of

    domain = cluster_domain_of(cluster_domain, namespace=operator_namespace)
    operator = Installation(operator_namespace, image or DEFAULT_IMAGE, domain=domain)
    typer.echo(rendered(text_of(file), namespace=namespace, operator=operator), nl=False)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition."""
    from buildpool.core.api import crd as definition

    typer.echo(definition.render(), nl=False)


@app.command()
def docs(page: Annotated[Page, typer.Argument(help="Which page.")]) -> None:
    """Print a generated page of the reference."""
    from buildpool.cli.docs import rendered

    typer.echo(rendered(page), nl=False)


def _list(name: str, command: sidecars.Command) -> None:
    def hand_over(context: typer.Context) -> None:
        command(context.args)

    as_they_are = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=command.__doc__, add_help_option=False, context_settings=as_they_are)(
        hand_over
    )


for _name, _command in sidecars.COMMANDS.items():
    _list(_name, _command)
app.command()(gateway.gateway)
app.command()(gateway.gateway_bootstrap)
app.command()(gateway.drain_gateway)
