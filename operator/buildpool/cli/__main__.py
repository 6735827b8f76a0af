"""``python -m buildpool.cli`` is ``buildpool``."""

from buildpool.cli.entry import main

main()
