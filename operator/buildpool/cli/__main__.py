"""``python -m buildpool.cli`` is ``buildpool``."""

from buildpool.cli.app import main

main()
