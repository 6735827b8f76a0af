"""The control API of one BuildKit daemon: which builds run, and when that changes.

Only reads. Retries nothing, remembers nothing and never reconnects: the caller decides when to
try again, with a connection of its own. The one place where errors of gRPC become DaemonError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from time import thread_time
from typing import Final, TypeVar

import grpc
import grpc.aio

from buildpool.buildkit import history as wire
from buildpool.buildkit import protobuf
from buildpool.buildkit.history import BuildEvent, BuildEventKind
from buildpool.buildkit.methods import CONTENT
from buildpool.buildkit.protobuf import WireError
from buildpool.core.errors import BuildpoolError
from buildpool.core.observed.load import RunningBuild
from buildpool.core.pki import KeyPair

T = TypeVar("T")
_Method = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
DEADLINE: Final = timedelta(seconds=3)
"""How long a daemon may take to connect and answer. It needs a few milliseconds."""
SERVER_NAME: Final = "localhost"
"""Among the names of every builder's certificate. Pods are reached by addresses, which it lacks."""
MAX_EVENT_BYTES: Final = 16 << 20
"""Of one event. It carries the build's arguments, and BuildKit itself sends no more."""
MAX_ANSWER_EVENTS: Final = 10_000
"""Of one answer. BuildKit sends one for each build that runs."""
MAX_RECORDS_BYTES: Final = 2 << 20
"""Of the records of builds that are asked for at once; of more, some are left out. BuildKit keeps
50, of some thousand each, and more where all are young."""
SPELL_SECONDS: Final = 0.001
"""For which an event may keep us from all else; it needs a twentieth of that."""
REST_FACTOR: Final = 20
"""How many times as long nothing more is read from a daemon whose event needed longer."""
MAX_TROUBLE_CHARACTERS: Final = 300
"""Of what a daemon says as it fails."""
_OPTIONS: Final = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.default_authority", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    # Else connections are shared by all in this process that ask the same address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_channelz", 0),
    ("grpc.max_receive_message_length", MAX_EVENT_BYTES),
    # No keepalive: BuildKit hangs up on clients that ping more often than every five minutes.
)


class DaemonError(BuildpoolError):
    """A daemon cannot be asked now; the message says why. Never quotes a certificate."""


class DaemonRefusedError(DaemonError):
    """A daemon has read a question and refuses it; the message is the daemon's own."""


class DaemonLateError(DaemonError):
    """A daemon has not answered in time."""


_REFUSED: Final = frozenset(
    {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
)
"""How BuildKit refuses questions: most of its errors have no status of gRPC."""


@dataclass(slots=True)
class Room:
    """What the answers of several daemons to one question may have of our memory."""

    left: int
    """Bytes that none of them has yet."""


@dataclass(frozen=True, slots=True)
class DaemonAccess:
    """What opens the daemons of a pool to the operator. No repr shows it."""

    trust: bytes = field(repr=False)
    """PEM, the pool's authorities."""
    pair: KeyPair
    """The operator's own client certificate of this pool."""


class Daemon:
    """A connection to one daemon, made when something is asked first. For one event loop."""

    def __init__(self, address: str, access: DaemonAccess) -> None:
        """``address`` is IP and port. Raises DaemonError where nobody is to be trusted."""
        if not access.trust:  # gRPC would trust everybody's authorities
            raise DaemonError("no authority is known that vouches for it")
        credentials = grpc.ssl_channel_credentials(  # type: ignore[no-untyped-call]
            access.trust, access.pair.key, access.pair.certificate
        )
        self._channel = grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        self._listen: _Method = self._channel.unary_stream(wire.METHOD)
        # With one answer, which is one of many that could come.
        self._content: _Method = self._channel.unary_stream(f"{CONTENT}Info")

    async def snapshot(self) -> tuple[RunningBuild, ...]:
        """The builds that run now, sorted by ref. Raises DaemonError, at the latest after 3 s."""
        builds = {}
        async with aclosing(self._answer(wire.RUNNING_BUILDS)) as events:
            async for event in events:
                if event.kind is BuildEventKind.STARTED:
                    builds[event.build.ref] = event.build
        return tuple(builds[ref] for ref in sorted(builds))

    def events(self) -> AsyncGenerator[BuildEvent, None]:
        """What happens to builds from now on, after a start for each that runs already.

        BuildKit does not keep their order. Goes on until the daemon ends it; raises DaemonError.
        A caller that leaves earlier calls ``aclose``: a connection is open while somebody may
        listen.
        """
        return self._talk(self._listen, wire.RUNNING_BUILDS_AND_ON, wire.read_event)

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        """What the history answers to a BuildHistoryRequest that has an end.

        Takes of the ``room``, which the caller gives back; records that find none are left out.
        ``ref``: the one build that it is about, of which the first event is never left out.
        Raises DaemonError, at the latest after 3 s; DaemonRefusedError where it refuses to answer.
        """
        found: list[BuildEvent] = []
        taken = 0
        try:
            async with aclosing(self._answer(request)) as events:
                async for event in events:
                    size, left = len(event.message), min(room.left, MAX_RECORDS_BYTES - taken)
                    is_about = not ref or event.build.ref == ref
                    if is_about and (size <= left or (ref and not found)):
                        found.append(event)
                        taken, room.left = taken + size, room.left - size
        except BaseException:
            room.left += taken
            raise
        return found

    async def has_content(self, digest: str) -> bool:
        """Whether it has some content that builds have made. Raises DaemonError, as ``records``."""
        request = protobuf.field(1, digest.encode())
        try:
            async with aclosing(
                self._talk(self._content, request, bytes, DEADLINE.total_seconds(), 1)
            ) as answers:
                return [True async for _ in answers] == [True]
        except DaemonRefusedError:
            return False

    async def close(self) -> None:
        """Hangs up at once, whatever is under way."""
        await self._channel.close(grace=None)

    def _answer(self, request: bytes) -> AsyncGenerator[BuildEvent, None]:
        """To a question that has an end."""
        seconds = DEADLINE.total_seconds()
        return self._talk(self._listen, request, wire.read_event, seconds, MAX_ANSWER_EVENTS)

    async def _talk(
        self,
        method: _Method,
        request: bytes,
        read: Callable[[bytes], T],
        deadline: float | None = None,
        most: int | None = None,
    ) -> AsyncGenerator[T, None]:
        """Asks, and reads the answer: so many events at most.

        A connection stays open for as long as something refers to a call on it. Exceptions do, by
        the frames of their tracebacks, and tasks keep them: so none leaves here that was in gRPC.
        """
        call = method(request, timeout=deadline)
        count = 0
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                if count == most:
                    raise WireError(f"it has more than {most} events")
                count += 1
                began = thread_time()
                event = read(message)
                spent = thread_time() - began
                yield event
                if spent > SPELL_SECONDS:
                    await asyncio.sleep(spent * REST_FACTOR)
        except grpc.aio.AioRpcError as error:
            failure = _failure(error)
        except WireError as error:
            failure = DaemonError(f"its answer cannot be read: {error}")
        except asyncio.CancelledError as error:
            if _is_cancelled():
                error.__context__ = None
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            failure = DaemonError("the connection was closed under the question")
        else:
            return
        finally:
            call.cancel()
            del call
        raise failure


def _is_cancelled() -> bool:
    """Whether somebody has cancelled this task. gRPC says so also of calls that are over."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(error: grpc.aio.AioRpcError) -> DaemonError:
    """What gRPC says, short and printable: a part of it is written by the other side."""
    code = error.code()
    details = "".join(sign if sign.isprintable() else " " for sign in error.details() or "")
    details = details[:MAX_TROUBLE_CHARACTERS]
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DaemonLateError(f"it does not answer within {DEADLINE.total_seconds():g} s")
    return (
        DaemonRefusedError(details) if code in _REFUSED else DaemonError(f"{code.name}: {details}")
    )
