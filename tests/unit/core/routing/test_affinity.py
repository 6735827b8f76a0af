"""Which builder a build goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api import AffinityKey
from buildpool.core.routing.affinity import Candidate, Traits, choose, key_of, ranked

NAMES = st.lists(st.sampled_from([f"ci-builder-{n}" for n in range(40)]), min_size=1, unique=True)
KEYS = st.text(min_size=1, max_size=20)


def of(*used: int, slots: int = 2) -> list[Candidate]:
    """Builders with so many slots taken."""
    return [Candidate(f"ci-builder-{n}", taken, slots) for n, taken in enumerate(used)]


@given(KEYS, NAMES)
def test_a_key_always_likes_the_same_builder_whatever_their_order(
    key: str, names: list[str]
) -> None:
    assert ranked(key, names) == ranked(key, reversed(names))


@given(KEYS, NAMES, st.data())
def test_where_a_builder_goes_only_its_own_keys_move(
    key: str, names: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(names))
    left = [name for name in names if name != gone]
    assert ranked(key, left) == [name for name in ranked(key, names) if name != gone]


@given(KEYS, NAMES)
def test_where_a_builder_comes_a_key_stays_or_moves_to_it(key: str, names: list[str]) -> None:
    before, after = ranked(key, names)[0], ranked(key, [*names, "ci-builder-new"])[0]
    assert after in (before, "ci-builder-new")


def test_keys_spread_over_all_builders() -> None:
    names = [f"ci-builder-{n}" for n in range(4)]
    first = [ranked(f"project {n}", names)[0] for n in range(1000)]
    assert all(200 <= first.count(name) <= 300 for name in names)


@given(KEYS, st.lists(st.integers(0, 3), min_size=1, max_size=10))
def test_a_build_goes_to_its_favourite_or_to_the_least_loaded(key: str, used: list[int]) -> None:
    builders = of(*used)
    choice = choose(key, builders)
    assert choice is not None
    favourite = ranked(key, [b.name for b in builders])[0]
    taken = {b.name: b.used for b in builders}
    assert choice.is_favourite == (choice.name == favourite)
    if taken[favourite] < 2:
        assert choice.name == favourite
    else:
        assert taken[choice.name] == min(used)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10))
def test_a_build_without_a_key_goes_to_the_least_loaded(used: list[int]) -> None:
    choice = choose(None, of(*used))
    assert choice is not None
    assert dict(zip([b.name for b in of(*used)], used, strict=True))[choice.name] == min(used)
    assert not choice.is_favourite


def test_where_there_is_no_builder_nobody_is_chosen() -> None:
    assert choose("any", []) is None


def test_the_first_trait_that_a_build_has_is_its_key() -> None:
    traits = Traits(image="r.example/app", client="ci")
    order = (AffinityKey.SOURCE, AffinityKey.IMAGE, AffinityKey.CLIENT)
    assert key_of(traits, order) == (AffinityKey.IMAGE, "r.example/app")
    assert key_of(traits, order[::-1]) == (AffinityKey.CLIENT, "ci")
    assert key_of(traits, ()) is None
    assert key_of(Traits(), order) is None
