"""The command line: wires the parts together. Decides nothing about pools.

run      the operator
render   the objects of a pool, without a cluster
crd      the CustomResourceDefinition
docs     generated reference pages
"""

from buildpool.cli.app import main

__all__ = ["main"]
