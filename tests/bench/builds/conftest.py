"""The same cluster, with the operator installed, as the end-to-end tier."""

from __future__ import annotations

from e2e.conftest import api, shared_namespace

__all__ = ["api", "shared_namespace"]
