"""The command line: wires the parts together. Decides nothing about pools.

run      the operator
explain  why a pool has the size it has, and what it will do next
render   the objects of a pool, without a cluster
crd      the CustomResourceDefinition
docs     generated reference pages
"""

from buildpool.cli.entry import main

__all__ = ["main"]
