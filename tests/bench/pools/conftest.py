"""The same cluster and the same operator processes as the integration tier."""

from __future__ import annotations

from integration.conftest import api, installed, kubeconfig

__all__ = ["api", "installed", "kubeconfig"]
