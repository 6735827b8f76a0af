from __future__ import annotations

import logging

import pytest
from aiohttp import web

from buildpool.core.api import Reason
from buildpool.core.observed.cache import Credentials
from unit.preflight.servers import (
    JOE,
    REPOSITORY,
    TOKEN,
    Handler,
    Registry,
    a_certificate,
    a_target,
    by_password,
    by_token,
    inspect,
    refuses,
    says,
    serving,
)
from unit.preflight.test_probe import FINE, trouble_of

REFUSED = Reason.CREDENTIALS_REFUSED
WRONG = Credentials("joe", "cuttlefish")


class TokenService:
    """Gives everybody a token, or to those only who know the password."""

    def __init__(self, *, knows: Credentials | None = None, key: str = "token") -> None:
        self._admits = by_password(knows) if knows else lambda _: None
        self._key = key
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append({"path": request.path, **request.query})
        return self._admits(request) or web.json_response({self._key: TOKEN})


async def test_a_password_opens_a_registry() -> None:
    registry = Registry(admits=by_password())
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True, credentials=JOE)) == FINE


async def test_a_password_may_hold_any_letter() -> None:
    jose = Credentials("josé", "πβ:{}")
    async with serving(Registry(admits=by_password(jose))) as host:
        assert await inspect(a_target(host, http=True, credentials=jose)) == FINE


async def test_a_password_is_not_shown_to_a_registry_that_does_not_ask() -> None:
    registry = Registry()
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True, credentials=JOE)) == FINE
    assert set(registry.authorizations) == {None}


async def test_a_registry_that_asks_only_before_a_write_is_given_the_password_then() -> None:
    admits = by_password()
    registry = Registry(admits=lambda r: admits(r) if r.method in ("POST", "PUT") else None)
    async with serving(registry) as host:
        assert await inspect(a_target(host, http=True, credentials=JOE)) == FINE
        report = await inspect(a_target(host, http=True))
    trouble_of(report, REFUSED, "asks for credentials for a write to team/cache")


async def test_without_credentials_a_secret_is_asked_for() -> None:
    async with serving(Registry(admits=by_password())) as host:
        report = await inspect(a_target(host, http=True))
    trouble_of(report, REFUSED, "there are none; name a Secret", "cache.registry.credentials")


async def test_a_wrong_password_is_told_and_tried_only_once() -> None:
    registry = Registry(admits=by_password())
    async with serving(registry) as host:
        report = await inspect(a_target(host, http=True, credentials=WRONG))
    trouble_of(report, REFUSED, "refuses user joe; correct the Secret")
    assert len(registry.seen) == 2


RIGHTS = {
    "read": ({"HEAD": says(403)}, REFUSED, "does not let user joe read team/cache"),
    "write": (
        {"POST": says(403, refuses("DENIED"))},
        Reason.WRITE_REFUSED,
        "joe read team/cache, but not write",
    ),
    "end a write": ({"PUT": says(401)}, Reason.WRITE_REFUSED, "joe read team/cache, but not write"),
}


@pytest.mark.parametrize(("answers", "reason", "words"), RIGHTS.values(), ids=RIGHTS.keys())
async def test_a_right_that_a_user_lacks(
    answers: dict[str, Handler], reason: Reason, words: str
) -> None:
    async with serving(Registry(answers, admits=by_password())) as host:
        report = await inspect(a_target(host, http=True, credentials=JOE))
    trouble_of(report, reason, words, "grant the user the right")


@pytest.mark.parametrize("key", ["token", "access_token"])
async def test_a_token_opens_a_registry(key: str) -> None:
    service = TokenService(knows=JOE, key=key)
    async with serving(service) as realm:
        # As ghcr.io does, the registry proposes a scope that is not the one that is needed.
        admits = by_token(f"http://{realm}/auth?a=b", service="r", scope="repository:x:pull")
        registry = Registry(admits=admits)
        async with serving(registry) as host:
            assert await inspect(a_target(host, http=True, credentials=JOE)) == FINE
    scope = f"repository:{REPOSITORY}:pull,push"
    assert service.asked == [{"path": "/auth", "a": "b", "service": "r", "scope": scope}]
    assert all(not (a or "").startswith("Basic") for a in registry.authorizations)


async def test_anybody_may_get_a_token_where_the_service_gives_one() -> None:
    async with (
        serving(TokenService()) as realm,
        serving(Registry(admits=by_token(f"http://{realm}/"))) as host,
    ):
        assert await inspect(a_target(host, http=True)) == FINE


async def test_a_token_that_does_not_open_is_a_lack_of_rights() -> None:
    service = TokenService()
    async with serving(service) as realm:
        admits = by_token(f"http://{realm}/")
        challenge = f'Bearer realm="http://{realm}/",scope="more"'
        registry = Registry({"POST": says(401, WWW_Authenticate=challenge)}, admits=admits)
        async with serving(registry) as host:
            report = await inspect(a_target(host, http=True, credentials=JOE))
            trouble_of(report, Reason.WRITE_REFUSED, "lets user joe read team/cache, but not write")
            assert len(service.asked) == 1
            report = await inspect(a_target(host, http=True))
            trouble_of(report, REFUSED, "asks for credentials for a write")


SERVICES = {
    "a wrong password": (TokenService(knows=WRONG), REFUSED, "refuses user joe"),
    "an error": (says(503), Reason.REGISTRY_UNREACHABLE, "answers 503"),
    "a wrong address": (says(404), Reason.NO_REGISTRY, "404"),
    "a page": (says(200, "<html>"), Reason.NO_REGISTRY, "gives no token; correct the realm"),
    "no token": (says(200, '{"token": 7}'), Reason.NO_REGISTRY, "gives no token"),
    "a token that fits no header": (
        says(200, '{"token": "a\\r\\nX: y"}'),
        Reason.NO_REGISTRY,
        "gives no token",
    ),
}


@pytest.mark.parametrize(("service", "reason", "words"), SERVICES.values(), ids=SERVICES.keys())
async def test_trouble_with_a_token_service_names_it(service, reason, words) -> None:
    async with (
        serving(service) as realm,
        serving(Registry(admits=by_token(f"http://{realm}/"))) as host,
    ):
        report = await inspect(a_target(host, http=True, credentials=JOE))
    trouble_of(report, reason, words, f"token service {realm} of registry {host}")


async def test_a_token_service_that_knows_no_guests() -> None:
    async with (
        serving(TokenService(knows=JOE)) as realm,
        serving(Registry(admits=by_token(f"http://{realm}/"))) as host,
    ):
        report = await inspect(a_target(host, http=True))
    trouble_of(report, REFUSED, "token service", "asks for credentials and there are none")


REALMS = {
    "nobody listens": ("http://localhost:1/t", Reason.REGISTRY_UNREACHABLE, "localhost:1"),
    "nobody knows it": ("https://t.invalid/", Reason.REGISTRY_NOT_FOUND, "correct the realm"),
    "it is relative": ("/token", Reason.NO_REGISTRY, "names no service"),
    "it is garbled": ("http://[x", Reason.NO_REGISTRY, "names no service"),
    "it is a file": ("file:///etc/passwd", Reason.NO_REGISTRY, "names no service"),
    "it is missing": ("", Reason.NO_REGISTRY, "names no service"),
}


@pytest.mark.parametrize(("realm", "reason", "words"), REALMS.values(), ids=REALMS.keys())
async def test_a_realm_that_leads_nowhere(realm, reason, words) -> None:
    async with serving(Registry(admits=by_token(realm))) as host:
        report = await inspect(a_target(host, http=True, credentials=JOE))
    trouble_of(report, reason, words, f"registry {host}")


async def test_a_password_never_leaves_tls_for_a_token(tmp_path) -> None:
    service = TokenService()
    async with serving(service) as realm:
        registry = Registry(admits=by_token(f"http://{realm}/"))
        async with serving(registry, certificate=a_certificate(), folder=tmp_path) as host:
            report = await inspect(a_target(host, credentials=JOE))
    trouble_of(report, Reason.REGISTRY_NOT_TRUSTED, f"token service {realm} without TLS")
    assert service.asked == []


async def test_what_was_sent_in_secret_is_never_told(caplog) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.Request) -> web.Response:
        sent = request.headers.get("Authorization", "")
        errors = [{"code": sent, "message": sent, "detail": sent}]
        return web.json_response({"errors": errors}, status=418)

    async with serving(TokenService()) as realm:
        answers = {"POST": echo}
        for admits in (by_password(), by_token(f"http://{realm}/")):
            async with serving(Registry(answers, admits=admits)) as host:
                told = repr(await inspect(a_target(host, http=True, credentials=JOE))) + caplog.text
            assert "418" in told
            assert JOE.password not in told
            assert TOKEN not in told
            assert "Basic " not in told
