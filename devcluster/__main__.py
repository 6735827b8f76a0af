"""Lets ``python -m devcluster`` run the command line."""

from __future__ import annotations

from devcluster.cli import main

if __name__ == "__main__":
    main()
