"""``top``: looks at pools again and again, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from buildpool.client.kubectl import reached
from buildpool.client.live import page
from buildpool.client.overview import output
from buildpool.client.parsing import Seen
from buildpool.client.values import Cluster, Output
from buildpool.core.errors import UnavailableError


def top(
    pools: tuple[str, ...],
    *,
    namespace: str,
    context: str,
    kubeconfig: str,
    everywhere: bool,
    form: Output | None,
    every: float,
) -> None:
    """Shows pools as they are: once, if nobody looks at a terminal; else every so many seconds."""
    kubectl, cluster = reached(namespace=namespace, context=context, kubeconfig=kubeconfig)

    def look() -> list[Seen]:
        if pools:
            return [kubectl.pool(cluster, name) for name in pools]
        return kubectl.pools(cluster, everywhere=everywhere)

    seen = look()
    if form is not None:
        sys.stdout.write(f"{output(seen, form)}\n")
    elif not sys.stdout.isatty():
        sys.stdout.write(f"{_shown(seen, cluster, everywhere=everywhere)}\n")
    else:
        with suppress(KeyboardInterrupt):
            _live(lambda: _shown(look(), cluster, everywhere=everywhere), every)


def _shown(seen: list[Seen], cluster: Cluster, *, everywhere: bool) -> str:
    where = "the cluster" if everywhere else f"namespace {cluster.namespace}"
    return page(seen, now=datetime.now(UTC)) or f"There is no pool in {where}."


def _live(look: Callable[[], str], every: float) -> None:
    from rich.live import Live
    from rich.text import Text

    text, last = look(), ""
    with Live(Text(text), screen=True, auto_refresh=False) as screen:
        while True:
            # Not markup: what pools say changes nothing but these lines.
            screen.update(Text(f"{datetime.now(UTC):%H:%M:%S} UTC{last}\n\n{text}"), refresh=True)
            time.sleep(every)
            try:
                text, last = look(), ""
            except UnavailableError as error:
                last = f"  {error}"
