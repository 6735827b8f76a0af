"""One pass over one pool, and what wakes it: the only place where plans meet the cluster.

Knows no Kopf. Decides nothing: it observes, asks the core, and does as told.

    observe     read what bears on a pool
    act         carry out a plan, object by object
    reconcile   one pass: observe → plan → act → report
    tending     passes over one pool, one after the other, for as long as it lives
    wakeups     who is to be looked at now
    clock       the wall clock, for all of them
    sentinel    notices changed Secrets, which we may not watch
    inspector   asks the registries of shared caches how they are
    loads       asks build daemons what runs on them, each by a watcher of its own
    survey      what passes and loads tell each other
    sweep       removes authorities whose pool is gone
"""
