"""One pass over one pool, and what wakes it: the only place where plans meet the cluster.

Knows no Kopf. Decides nothing: it observes, asks the core, and does as told.

    loop            passes over one pool, one after the other, for as long as it lives
    lanes           slow passes make way for quick ones
    reconcile       one pass: observe → plan → act → report
    observe         reads what bears on a pool
    act             carries out a plan, object by object
    pool_writes     what is written to the BuildKitPool itself
    wakeups         who is to be looked at now
    daemon_tracker  what passes and the loads of daemons tell each other
    secret_poller   notices changed Secrets, which we may not watch
    cache_poller    asks the registries of shared caches how they are
    memory_poller   asks how much memory builders take
    gateway_watch   notices when the gateway begins or ceases to serve
    rollout_turns   lets few pools at once replace builders that we have changed
    orphans         removes what pools that are gone have left
    metrics         what Prometheus is told of pools and passes
"""
