"""``buildpool render``: what it prints can be applied as it is."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from buildpool.cli.render import rendered
from buildpool.core.naming import Installation

OPERATOR = Installation("buildpool-system", "buildpool:1")


def printed(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    pool = {"kind": "BuildKitPool", "metadata": metadata, "spec": {"scaling": {"min": 1}}}
    found = rendered(yaml.safe_dump(pool), namespace="builds", operator=OPERATOR)
    return list(yaml.safe_load_all(found))


@pytest.mark.parametrize(("uid", "owners"), [("", set()), ("0-1", {"0-1"})])
def test_objects_name_the_pool_as_owner_only_where_it_has_been_created(
    uid: str, owners: set[str]
) -> None:
    """An API server refuses a reference to an owner without a uid."""
    references = [
        owner
        for each in printed({"name": "ci", "uid": uid})
        for owner in each["metadata"].get("ownerReferences", ())
    ]
    assert {owner["uid"] for owner in references} == owners
