"""``helm upgrade --wait`` is green once the spec is carried out, and red where it cannot be."""

from __future__ import annotations

from pathlib import Path

from cluster import Api
from integration.test_gitops import chart, upgrade

NO_SUCH_IMAGE = {"builders": {"image": "127.0.0.1:1/buildkit:v1-rootless"}}


def test_a_pool_is_green_when_its_builders_serve_and_red_when_a_rollout_is_stuck(
    api: Api, namespace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pool"
    done = upgrade(chart(folder, namespace), namespace, 240)
    assert done.returncode == 0, done.stderr
    assert api.condition("ci", namespace, "Ready")["reason"] == "Ready"

    done = upgrade(chart(folder, namespace, **NO_SUCH_IMAGE), namespace, 240)
    assert done.returncode != 0
    assert "status: Failed" in done.stderr, done.stderr
    assert api.condition("ci", namespace, "Ready")["status"] == "True", "others keep serving"

    done = upgrade(chart(folder, namespace), namespace, 240)
    assert done.returncode == 0, done.stderr
    assert api.condition("ci", namespace, "Progressing")["reason"] in ("Settled", "Draining")
