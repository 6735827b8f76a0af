"""A TCP proxy that can fall silent: what a NAT that forgets, or an unplugged cable, looks like.

Nothing is closed or refused: bytes just do not arrive. A connection that has lost some stays silent
for ever, in both directions, and neither side learns that the other has closed it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class _Line:
    """One connection: from the client, and on to the server."""

    client: socket.socket
    server: socket.socket
    is_silent: bool = False


@dataclass
class Proxy:
    """Passes bytes from a port of its own to a server on this machine."""

    server_port: int
    server_host: str = "127.0.0.1"
    at: tuple[str, int] = ("127.0.0.1", 0)
    """Where it listens; 0: any port that is free."""
    is_silent: bool = False
    """Whether everything is swallowed, new connections included."""
    swallowed: int = 0
    """Bytes that did not arrive."""
    _lines: set[_Line] = field(default_factory=set)

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.at[0] else socket.AF_INET
        self._listener = socket.create_server(self.at, family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def forget_connections(self) -> None:
        """Silences the connections there are. New ones work."""
        for line in tuple(self._lines):
            line.is_silent = True

    def close(self) -> None:
        """Ends it, and all of its connections."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        self._listener.close()
        for line in tuple(self._lines):
            self._hang_up(line)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = (self.server_host, self.server_port)
                line = _Line(client, socket.create_connection(server))
                self._lines.add(line)
                for pump in (self._upstream, self._downstream):
                    threading.Thread(target=pump, args=(line,), daemon=True).start()

    def _upstream(self, line: _Line) -> None:
        self._pump(line, line.client, line.server)
        self._hang_up(line)

    def _downstream(self, line: _Line) -> None:
        self._pump(line, line.server, line.client)
        if not line.is_silent:
            self._hang_up(line)

    def _pump(self, line: _Line, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                line.is_silent = line.is_silent or self.is_silent
                if line.is_silent:
                    self.swallowed += len(data)
                else:
                    sink.sendall(data)

    def _hang_up(self, line: _Line) -> None:
        self._lines.discard(line)
        for end in (line.client, line.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def proxy_to(server_port: int, **where: Any) -> Iterator[Proxy]:
    """A proxy for the length of a block."""
    proxy = Proxy(server_port, **where)
    try:
        yield proxy
    finally:
        proxy.close()
