"""The operator's process: the only importer of Kopf. Nothing is decided here.

Events wake, daemons tend. Kopf brings the watches, a daemon for each pool, and its finalizer; the
``Operator`` in its memo brings everything else.

    terms     terms of leadership, from the first connection to the last
    handlers  what Kopf calls, a few lines each, and how Kopf is set up
    assembly  the parts, wired together
"""
