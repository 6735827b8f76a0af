"""A connection as text for other tools: what ``connect --print`` prints. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from buildpool.client.nodes import creations, folder_of
from buildpool.client.values import FILES, Cluster, Connection, Form, Forward, Node, Via
from buildpool.core import naming
from buildpool.core.errors import BuildpoolError


def printed(form: Form, connection: Connection, root: PurePath, buildx: Sequence[str]) -> str:
    """The text, which another program can read; ``buildx`` is how buildx is called."""
    lines: Iterable[str]
    match form:
        case Form.BUILDCTL:
            lines = (f"buildctl {shlex.join(_flags(n, root))}" for n in connection.nodes)
        case Form.BUILDX:
            lines = (shlex.join([*buildx, *each]) for each in creations(connection, root))
        case Form.ENV:
            lines = _environment(connection, root)
        case Form.GITHUB:
            lines = _github(connection, root)
        case Form.GITLAB:
            lines = _gitlab(connection, root)
    return "\n".join(lines)


def needed(connection: Connection, *, is_held: bool) -> Iterator[str]:
    """What has to run for a text to be of use, in words for the user.

    ``is_held`` says whether a process keeps the port-forwards already.
    """
    if is_held:
        yield f"The port-forwards are those of connection {connection.name}, which run."
        return
    for forward in connection.forwards:
        command = shlex.join(forwarding(connection.cluster, forward))
        yield f"This has to run, in a terminal of its own: {command}"


def forwarding(cluster: Cluster, forward: Forward, *, to_any: bool = False) -> list[str]:
    """The command that forwards a port of this machine to a Service; ``to_any``: any free one."""
    target, port = forward.target, "" if to_any else str(forward.port)
    return [
        *("kubectl", *cluster.flags, "port-forward", "--address=127.0.0.1"),
        *("-n", target.namespace, f"service/{target.service}", f"{port}:{naming.PORT}"),
    ]


def _flags(node: Node, root: PurePath) -> list[str]:
    folder = folder_of(node, root)
    ca, cert, key = (str(folder / file) for file in FILES)
    return [
        *("--addr", node.address, "--tlsservername", node.server_name),
        *("--tlscacert", ca, "--tlscert", cert, "--tlskey", key),
    ]


def _environment(connection: Connection, root: PurePath) -> Iterator[str]:
    first = connection.nodes[0]
    values = {
        **({"BUILDX_BUILDER": connection.name} if connection.is_made else {}),
        "BUILDKIT_HOST": first.address,
        "BUILDPOOL_SERVER_NAME": first.server_name,
        "BUILDPOOL_CERTIFICATES": str(folder_of(first, root)),
    }
    yield from (f"export {name}={shlex.quote(value)}" for name, value in values.items())


_SECRETS = ("CA", "CERT", "KEY")


def _variable(node: Node, part: str) -> str:
    """Name of a variable of a CI system."""
    return f"BUILDPOOL_{node.name.replace('-', '_').upper()}_{part}"


def _files(node: Node, root: PurePath) -> Iterator[tuple[str, str]]:
    for part, file in zip(_SECRETS, FILES, strict=True):
        yield _variable(node, part), shlex.quote(str(folder_of(node, root) / file))


def _github(connection: Connection, root: PurePath) -> Iterator[str]:
    first, *others = connection.nodes
    yield "# Once, in a checkout of the repository:"
    for node in connection.nodes:
        yield from (f"#   gh secret set {name} < {file}" for name, file in _files(node, root))
    yield "- uses: docker/setup-buildx-action@v3"
    yield "  with:"
    yield f"    name: {connection.name}"
    yield "    driver: remote"
    yield f"    endpoint: {first.address}"
    yield f"    platforms: {first.platform}"
    yield f"    driver-opts: servername={first.server_name}"
    if others:
        yield "    append: |"
    for node in others:
        yield f"      - name: {node.name}"
        yield f"        endpoint: {node.address}"
        yield f"        platforms: {node.platform}"
        yield f"        driver-opts: servername={node.server_name}"
    yield "  env:"
    for number, node in enumerate(connection.nodes):
        for part in _SECRETS:
            name = f"BUILDER_NODE_{number}_AUTH_TLS_{'CACERT' if part == 'CA' else part}"
            yield f"    {name}: ${{{{ secrets.{_variable(node, part)} }}}}"


def _gitlab(connection: Connection, root: PurePath) -> Iterator[str]:
    yield "# Once, as variables of type File in Settings, CI/CD:"
    for node in connection.nodes:
        yield from (f"#   {name}: {file}" for name, file in _files(node, root))
    yield "build:"
    yield "  script:"
    for number, node in enumerate(connection.nodes):
        ca, cert, key = (f"${_variable(node, part)}" for part in _SECRETS)
        yield (
            f"  - docker buildx create --name {connection.name} --node {node.name} "
            f"{'--append ' if number else ''}--driver remote --platform {node.platform} "
            f"--driver-opt cacert={ca},cert={cert},key={key},servername={node.server_name} "
            f"{node.address}"
        )
    yield f"  - docker buildx build --builder {connection.name} --push -t $CI_REGISTRY_IMAGE ."


def asked_via(form: Form | None, asked: Via | None, *, has_name: bool) -> Via | None:
    """Which way is asked for, where that follows from the form."""
    if form is None or not form.is_elsewhere:
        return asked
    if asked is Via.PORT_FORWARD:
        raise BuildpoolError(
            f"--print={form} is for another machine, where no port of this one leads; add a name "
            "to spec.gateway.hostnames, or let the job run in the cluster: leave out --via"
        )
    return asked or (Via.HOSTNAME if has_name else Via.SERVICE)
