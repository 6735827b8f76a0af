"""The tree of exceptions, as it is drawn and as it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import buildpool
from buildpool.core import errors

DRAWN = re.compile(r"^    (?P<indent>[ │├└─]*)(?P<name>\w+)(?:  +\S.*)?$", re.MULTILINE)


def drawn() -> dict[str, str]:
    """The parent of each exception in the drawing."""
    parents, path = {}, ["Exception"]
    for line in DRAWN.finditer((inspect.getdoc(errors) and errors.__doc__) or ""):
        depth = len(line["indent"]) // 4 + 1
        path[depth:] = [line["name"]]
        parents[line["name"]] = path[depth - 1]
    return parents


def defined() -> Iterator[type[BaseException]]:
    """Every exception class of the package."""
    for module in pkgutil.walk_packages(buildpool.__path__, "buildpool."):
        if module.name.endswith("__main__"):
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(found, BaseException) and found.__module__ == module.name:
                yield found


def test_the_drawn_tree_is_that_of_the_package() -> None:
    assert drawn() == {found.__name__: found.__bases__[0].__name__ for found in defined()}
