"""Which builder takes which build, and who waits: the decisions of the gateway. Pure.

Time is an argument, and nothing here talks to anybody. ``gateway`` carries out what is decided.

    connections  the connections of a pool: who waits, who has a slot, who builds where
    connection   one of them
    states       the table: how far a connection has come, and its lease
    leases       whose lease is over, and of whom nothing runs any more
    index        connections by state, builder and build
    occupancy    how many slots of the builders are taken
    pool_state   what there is of a pool beside its connections
    fairness     whose turn it is
    affinity     which builder a build likes most
    sharing      which caches are added to a build
    variants     which variants of a project have a cache of their own
    values       what decisions are made from
"""
