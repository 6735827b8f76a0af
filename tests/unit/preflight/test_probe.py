from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from aiohttp import web

from buildpool.core.api import Reason
from buildpool.core.observed.cache import CacheReport, Credentials
from buildpool.core.words import Finding
from unit.preflight.servers import (
    JOE,
    REPOSITORY,
    Registry,
    a_target,
    by_password,
    inspect,
    refuses,
    says,
    serving,
    talking,
)

SHORT = timedelta(seconds=0.3)
FINE = CacheReport()


def trouble_of(report: CacheReport, reason: Reason, *words: str) -> Finding[Reason]:
    """The trouble that was expected, in one sentence with a remedy."""
    trouble = report.trouble
    assert trouble is not None
    assert trouble.reason is reason, trouble.message
    for word in words:
        assert word in trouble.message, trouble.message
    assert "; " in trouble.message
    assert not trouble.message.endswith(".")
    return trouble


async def test_a_registry_is_read_and_written_and_asked_for_nothing_else() -> None:
    registry = Registry()
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True)) == FINE
    uploads = f"/v2/{REPOSITORY}/blobs/uploads/"
    assert registry.seen == [
        "GET /v2/",
        f"HEAD /v2/{REPOSITORY}/manifests/buildpool-preflight",
        f"POST {uploads}",
        f"PUT {uploads}1",
    ]
    assert set(registry.authorizations) == {None}


async def test_a_registry_that_is_not_to_be_written_is_only_read() -> None:
    registry = Registry()
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True), write=False) == FINE
    assert [line.split()[0] for line in registry.seen] == ["GET", "HEAD"]


async def test_where_any_repository_will_do_one_of_our_own_is_tried() -> None:
    registry = Registry({"POST": says(500)})
    async with serving(registry) as host:
        await inspect(a_target(host, http=True, repository=""))
    assert "POST /v2/buildpool-preflight/blobs/uploads/" in registry.seen


BELOW = "auto/buildpool-preflight"
DEEPER = f"/v2/{REPOSITORY}/{BELOW}/"


def refuses_paths(status: int, code: str) -> Callable[[web.Request], web.Response | None]:
    """Has one repository, and none below it, as registries do that know two parts of a name."""
    allowed = ("/v2/", f"/v2/{REPOSITORY}/manifests/", f"/v2/{REPOSITORY}/blobs/")

    def admits(request: web.Request) -> web.Response | None:
        if request.path == "/v2/" or request.path.startswith(allowed[1:]):
            return None
        return web.Response(status=status, text=refuses(code), content_type="application/json")

    return admits


async def test_the_repository_is_tried_in_which_caches_will_lie() -> None:
    registry = Registry()
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True, below=BELOW)) == FINE
    assert registry.seen == [
        "GET /v2/",
        f"HEAD {DEEPER}manifests/buildpool-preflight",
        f"POST {DEEPER}blobs/uploads/",
        f"PUT {DEEPER}blobs/uploads/1",
    ]


@pytest.mark.parametrize("credentials", [None, JOE])
@pytest.mark.parametrize("write", [True, False])
async def test_a_registry_that_has_no_repositories_below_others_is_said_to_have_none(
    credentials: Credentials | None, write: bool
) -> None:
    registry = Registry(admits=refuses_paths(403, "DENIED"))
    async with serving(registry) as host:
        target = a_target(host, http=True, below=BELOW, credentials=credentials)
        report = await inspect(target, write=write)
    words = (f"takes caches in {REPOSITORY}, but refuses {REPOSITORY}/{BELOW}", "layout: Tags")
    trouble_of(report, Reason.WRITE_REFUSED, *words)


async def test_a_registry_that_knows_a_name_only_once_it_is_written_to_is_written_to() -> None:
    """As some answer for what is not there, whoever asks."""
    written: list[str] = []

    def admits(request: web.Request) -> web.Response | None:
        if request.method == "PUT":
            written.append(request.path)
        return web.Response(status=401) if request.method == "HEAD" and not written else None

    async with serving(Registry(admits=admits)) as host:
        assert await inspect(a_target(host, http=True, below=BELOW)) == FINE
        assert await inspect(a_target(host, http=True, below=BELOW), write=False) == FINE


async def test_a_registry_that_refuses_everything_is_not_said_to_refuse_a_part() -> None:
    registry = Registry({"POST": says(403, refuses("DENIED"))})
    async with serving(registry) as host:
        report = await inspect(a_target(host, http=True, below=BELOW, credentials=JOE))
    trouble_of(report, Reason.WRITE_REFUSED, f"joe read {REPOSITORY}, but not write")


LOGIN = "<!doctype html><form>"
NO_REGISTRY = Reason.NO_REGISTRY
BASES = {
    "a page": (says(200, LOGIN), NO_REGISTRY, "200"),
    "a page that says so": (says(200, "", Content_Type="text/html"), NO_REGISTRY, "text/html"),
    "not found": (says(404, "{}"), NO_REGISTRY, "404 (application/json)"),
    "a login page": (
        says(302, Location="https://joe:secret@sso.io/login?token=secret"),
        NO_REGISTRY,
        "302 and sends to https://sso.io/login; correct cache.registry.ref",
    ),
    "a redirect to TLS": (says(301, Location="https://r/v2/"), NO_REGISTRY, "remove http: true"),
    "a redirect to nowhere": (says(307), NO_REGISTRY, "nowhere"),
    "a redirect to garbage": (says(307, Location="https://[x"), NO_REGISTRY, "nowhere"),
    "a bad gateway": (says(502, LOGIN), Reason.REGISTRY_UNREACHABLE, "answers 502"),
    "too many questions": (says(429), Reason.REGISTRY_UNREACHABLE, "429"),
    "another login": (
        says(401, WWW_Authenticate="Negotiate"),
        NO_REGISTRY,
        "neither a password nor a token",
    ),
    "forbidden": (says(403, "{}"), Reason.CREDENTIALS_REFUSED, "asks for credentials"),
    "a forbidding page": (says(403, LOGIN), NO_REGISTRY, "403"),
    "a client certificate, as nginx asks for it": (
        says(400, "<center>No required SSL certificate was sent</center>"),
        Reason.CREDENTIALS_REFUSED,
        "demands a client certificate",
    ),
    "a complaint": (says(400, LOGIN), NO_REGISTRY, "400"),
    "an unknown kind of body": (
        says(200, "this was never packed", Content_Encoding="gzip"),
        None,
        "",
    ),
}


@pytest.mark.parametrize(("answer", "reason", "words"), BASES.values(), ids=BASES.keys())
async def test_what_answers_at_the_address(answer, reason, words) -> None:
    async with serving(Registry({"BASE": answer})) as host:
        report = await inspect(a_target(host, http=True))
    if reason is None:
        assert report == FINE
    else:
        trouble = trouble_of(report, reason, words, f"registry {host}")
        assert "secret" not in trouble.message


WRITES = {
    "anonymous may not": (
        {"POST": says(403, refuses("DENIED"))},
        Reason.CREDENTIALS_REFUSED,
        "asks for credentials",
    ),
    "a name it does not like": (
        {"POST": says(400, refuses("NAME_INVALID"))},
        Reason.WRITE_REFUSED,
        "where an upload to team/cache should begin",
    ),
    "no such repository": (
        {"POST": says(404, refuses("NAME_UNKNOWN"))},
        Reason.WRITE_REFUSED,
        f"does not know the repository {REPOSITORY} (404 NAME_UNKNOWN (application/json)); create",
    ),
    "a mirror": (
        {"POST": says(405, refuses("UNSUPPORTED"))},
        Reason.WRITE_REFUSED,
        "is read-only",
    ),
    "maintenance": (
        {"POST": says(403, refuses("DENIED", "in Read-Only mode"))},
        Reason.WRITE_REFUSED,
        "is read-only",
    ),
}


@pytest.mark.parametrize(("answers", "reason", "words"), WRITES.values(), ids=WRITES.keys())
async def test_who_may_not_write_is_told_why(answers, reason, words) -> None:
    async with serving(Registry(answers)) as host:
        report = await inspect(a_target(host, http=True))
    trouble_of(report, reason, words)


UPLOADS = {
    "a full disk": ({"POST": says(500)}, Reason.REGISTRY_UNREACHABLE, "its disk may be full"),
    "a full disk, later": ({"PUT": says(500)}, Reason.REGISTRY_UNREACHABLE, "disk may be full"),
    "a replica that knows nothing of it": (
        {"PUT": says(404, refuses("BLOB_UPLOAD_UNKNOWN"))},
        Reason.REGISTRY_UNREACHABLE,
        "several replicas need one storage",
    ),
    "something else": ({"POST": says(200, "{}")}, Reason.NO_REGISTRY, "200"),
    "no place": ({"POST": says(202)}, Reason.NO_REGISTRY, "does not say where"),
    "a garbled place": (
        {"POST": says(202, Location="http://[x")},
        Reason.NO_REGISTRY,
        "does not say where",
    ),
    "a reader that ails": ({"HEAD": says(503)}, Reason.REGISTRY_UNREACHABLE, "answers 503"),
}


@pytest.mark.parametrize(("answers", "reason", "words"), UPLOADS.values(), ids=UPLOADS.keys())
async def test_an_upload_that_does_not_come_to_its_end(answers, reason, words) -> None:
    async with serving(Registry(answers)) as host:
        trouble_of(await inspect(a_target(host, http=True)), reason, words)


async def test_an_upload_may_be_told_its_place_by_a_whole_url() -> None:
    registry = Registry()
    async with serving(registry) as host:
        where = f"http://{host}/v2/{REPOSITORY}/blobs/uploads/2?_state=a%3D%2B"
        registry.answers["POST"] = says(202, Location=where)
        assert await inspect(a_target(host, http=True)) == FINE
    assert registry.seen[-1].startswith(f"PUT /v2/{REPOSITORY}/blobs/uploads/2")


async def test_nothing_is_sent_where_a_registry_sends_uploads_to_somebody_else() -> None:
    registry, other = Registry(admits=by_password()), Registry()
    async with serving(registry) as host, serving(other) as elsewhere:
        registry.answers["POST"] = says(202, Location=f"http://{elsewhere}/v2/x")
        assert await inspect(a_target(host, http=True, credentials=JOE)) == FINE
    assert other.seen == []


async def test_nobody_listens() -> None:
    report = await inspect(a_target("127.0.0.1:1"))
    trouble_of(report, Reason.REGISTRY_UNREACHABLE, "127.0.0.1:1", "connection refused")


async def test_the_address_of_a_name_is_told_where_nobody_listens() -> None:
    report = await inspect(a_target("localhost:1"))
    trouble_of(report, Reason.REGISTRY_UNREACHABLE, "registry localhost:1 (at ", "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "named"),
    [("nowhere.invalid", "nowhere.invalid"), (f"{'x' * 64}.com", "x.com"), ("r:port", "r:port")],
)
async def test_a_name_that_nobody_knows(host: str, named: str) -> None:
    report = await inspect(a_target(host))
    trouble_of(report, Reason.REGISTRY_NOT_FOUND, named, "correct cache.registry.ref")


async def test_a_server_that_never_answers_is_not_waited_for() -> None:
    started = asyncio.get_running_loop().time()
    async with talking(None, hang_up=False) as host:
        report = await inspect(a_target(host, http=True), limit=SHORT)
        trouble_of(report, Reason.REGISTRY_UNREACHABLE, "does not answer in time (0.3 s")
        report = await inspect(a_target(host), limit=SHORT)
        trouble_of(report, Reason.REGISTRY_UNREACHABLE, "does not answer in time (0.3 s")
    assert asyncio.get_running_loop().time() - started < 3


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    async with talking(None, hang_up=False) as host:
        look = asyncio.create_task(inspect(a_target(host, http=True, keeper=host)))
        done, _ = await asyncio.wait([look], timeout=0.2)
        assert not done
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
    left = [task.get_coro().cr_code.co_qualname for task in asyncio.all_tasks()]
    assert not [name for name in left if not name.startswith(("test_", "talking."))]


OK = b"HTTP/1.1 200 OK\r\n"
UNREACHABLE = Reason.REGISTRY_UNREACHABLE
STRANGERS = {
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", NO_REGISTRY, "not HTTP"),
    "noise": (bytes(range(256)), NO_REGISTRY, "not HTTP"),
    "a header without end": (OK + b"X: " + b"x" * 100_000, NO_REGISTRY, "not HTTP"),
    "silence": (b"", UNREACHABLE, "hangs up"),
    "half an answer": (OK + b"Content-Length: 10\r\n\r\nhalf", UNREACHABLE, "hangs up"),
    "chunks that are none": (
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        NO_REGISTRY,
        "not HTTP",
    ),
}


@pytest.mark.parametrize(("words", "reason", "told"), STRANGERS.values(), ids=STRANGERS.keys())
async def test_what_speaks_another_language(words: bytes, reason: Reason, told: str) -> None:
    async with talking(words) as host:
        trouble_of(await inspect(a_target(host, http=True)), reason, told)
        trouble = (await inspect(a_target(host))).trouble
        assert trouble is not None


async def test_a_body_without_end_is_not_read_to_its_end() -> None:
    async with talking(OK + b"\r\n<html>" + b"x" * 200_000, hang_up=False) as host:
        report = await inspect(a_target(host, http=True))
    trouble_of(report, NO_REGISTRY, "/v2/ answers 200")
