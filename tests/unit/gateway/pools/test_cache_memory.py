"""What a router remembers of shared caches, and what it forgets."""

from __future__ import annotations

import pytest

from buildpool.gateway.pools import cache_memory as module
from buildpool.gateway.pools.cache_memory import CacheMemory
from samples import NOW


def test_a_cache_counts_as_exported_until_the_build_that_exports_it_fails() -> None:
    caches = CacheMemory()
    caches.note_exports(("a", "b"), NOW)
    assert caches.exported == {"a": NOW, "b": NOW}
    caches.forget_exports(("b", "c"))
    assert caches.exported == {"a": NOW}


def test_variants_of_a_project_are_remembered_and_those_of_others_are_others() -> None:
    caches = CacheMemory()
    first = caches.variants("a")
    first.number_of("v", now=NOW, exports=True)
    assert caches.variants("a") is first
    assert caches.variants("b") is not first


def test_what_was_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EXPORTS", 2)
    monkeypatch.setattr(module, "MAX_PROJECTS", 2)
    caches = CacheMemory()
    a, b = caches.variants("a"), caches.variants("b")
    caches.note_exports(("a", "b", "a", "c"), NOW)
    assert set(caches.exported) == {"a", "c"}
    assert caches.variants("a") is a
    caches.variants("c")
    assert caches.variants("a") is a
    assert caches.variants("b") is not b
