"""What Kopf calls: the only modules that know it, a few lines each. Nothing is decided here.

Events wake, daemons tend. Kopf brings the watches, a daemon for each pool, and its finalizer; the
``Operator`` in its memo brings everything else.
"""
