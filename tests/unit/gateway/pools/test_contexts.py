"""Whose session says what: a client chooses the ids of its sessions, and may choose another's."""

from __future__ import annotations

import asyncio

import pytest

from buildpool.gateway.pools.contexts import SessionContexts


def test_the_id_of_another_clients_session_says_nothing_about_it() -> None:
    contexts = SessionContexts()
    with contexts.session("ana", "s", "ana/shop"), contexts.session("bob", "s", "bob/blog"):
        assert contexts.known("ana", "s") == "ana/shop"
        assert contexts.known("bob", "s") == "bob/blog"
        assert contexts.known("eve", "s") == ""


def test_a_session_without_an_id_is_nobodys() -> None:
    contexts = SessionContexts()
    with contexts.session("ana", "", "ana/shop"):
        assert contexts.known("ana", "") == ""
        assert asyncio.run(contexts.soon_known("ana", "", seconds=60)) == ""


def test_of_two_sessions_with_one_id_the_one_that_is_open_counts() -> None:
    contexts = SessionContexts()
    with contexts.session("ana", "s", "shop"):
        with contexts.session("ana", "s", "blog"):
            assert contexts.known("ana", "s") == "blog"
        assert contexts.known("ana", "s") == "shop"
    assert contexts.known("ana", "s") == ""


def test_a_session_that_fails_is_forgotten() -> None:
    contexts = SessionContexts()
    with pytest.raises(ConnectionError), contexts.session("ana", "s", "shop"):
        raise ConnectionError
    assert contexts.known("ana", "s") == ""


async def test_a_session_may_open_a_moment_later() -> None:
    contexts = SessionContexts()
    asked = asyncio.create_task(contexts.soon_known("ana", "s", seconds=60))
    await asyncio.sleep(0)
    with contexts.session("bob", "s", "blog"):
        await asyncio.sleep(0)
        assert not asked.done()
    with contexts.session("ana", "s", "shop"):
        assert await asked == "shop"
