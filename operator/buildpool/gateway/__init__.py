"""The router beside Envoy: it decides which pools Envoy serves, and where each request goes.

Envoy carries the bytes. The router never touches them, but for the message that starts a build, and
for the history of a pool, which no builder knows alone. It decides by ``core.routing``, and knows
no Kopf. Each part may use those below it:

    server        all of it, wired together
    ext_proc      answers Envoy's question about each request: where it goes, and with what
    histories     answers what clients ask about all builds of a pool
    access_log    what Envoy says of connections that have ended
    xds           configures Envoy: which pools there are
    reports       what is reported of builds: the build log, and the status of pools
    pools         the pools that are served, as the operator configures them, and their builders
    slots         which connection has a slot, which one waits, and where builds are

Below all of these:

    metrics       what is counted and measured
    draining      the ``preStop`` hook: ends a pod once nothing runs through it any more
"""
