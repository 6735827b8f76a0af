"""No build is ever lost, and no running pod changed, whatever becomes of a pool's spec."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.objects.pods import name_of_builder, serves
from buildpool.core.objects.refs import is_builder, is_terminating
from buildpool.core.resources import has_guard
from memory_cluster import MemoryCluster, settled
from plans import deleted, image, removed, retired
from samples import a_pool, specs

NUMBERS = range(6)
loads = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from([1, 1, 2, 0]), max_size=4),
        st.sets(st.sampled_from(NUMBERS), max_size=2),
    ),
    min_size=4,
    max_size=8,
)
"""In each pass: on which builders builds begin or end, and which do not answer."""


def take(cluster: MemoryCluster, builds: dict[int, int], silent: set[int]) -> None:
    """Builds begin where the Service leads to, and end anywhere; those of others go on."""
    reached = {name_of_builder(pod) for pod in cluster.pods.values() if serves(pod)}
    for index, wanted in builds.items():
        name = f"ci-builder-{index}"
        now = cluster.builds.get(name, 0)
        cluster.builds[name] = wanted if name in reached else min(now, wanted)
    cluster.silent = {f"ci-builder-{index}" for index in silent}


@given(specs, st.lists(specs, min_size=1, max_size=2), loads)
def test_whatever_a_spec_becomes_no_builder_goes_that_may_have_builds(
    before: dict[str, object],
    afters: list[dict[str, object]],
    passes: list[tuple[dict[int, int], set[int]]],
) -> None:
    cluster = settled(a_pool(**before))
    for number, (builds, silent) in enumerate(passes):
        take(cluster, builds, silent)
        there = {name_of_builder(pod) for pod in cluster.pods.values()}
        busy = {name for name in there if cluster.builds.get(name) or name in cluster.silent}
        todo = cluster.step(a_pool(**afters[number * len(afters) // len(passes)]))
        assert not busy.intersection(removed(todo))
        assert not any(f"PersistentVolumeClaim/{name}" in deleted(todo) for name in busy)
        ended = {name_of_builder(p) for p in cluster.pods.values() if is_terminating(p)}
        assert not busy & ended
        if any(has_guard(pod) for pod in cluster.pods.values()):
            assert "Deployment/ci-cache" in [f"{r.kind}/{r.name}" for r in cluster.objects]
            assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 1
    cluster.builds, cluster.silent = {}, set()
    cluster.settle(a_pool(**afters[-1]))


@given(specs, specs)
def test_the_pod_of_a_builder_never_changes(
    before: dict[str, object], after: dict[str, object]
) -> None:
    cluster = settled(a_pool(**before))
    pool = a_pool(**after)
    there = set(cluster.names("Deployment"))
    while not (todo := cluster.step(pool)).is_empty:
        written = {change.ref.name for change in todo.apply if is_builder(change.object)}
        assert not written & there
        there = set(cluster.names("Deployment")) | {
            name_of_builder(pod) for pod in cluster.pods.values()
        }


@given(specs, specs)
def test_no_builder_retires_for_another_one_that_takes_no_builds_yet(
    before: dict[str, object], after: dict[str, object]
) -> None:
    former = a_pool(**before)
    cluster = settled(former)
    pool = a_pool(**{**after, "builders": image("v3"), "replicas": former.spec.builder_count})
    cluster.bad_images = {"r.example/buildkit:v3"}
    plans = cluster.settle(pool)
    assert not any(retired(todo) or removed(todo) for todo in plans)
