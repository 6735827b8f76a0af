"""The router beside Envoy: it decides which pools Envoy serves, and where each request goes.

Envoy carries the bytes. The router never touches them, but for the message that starts a build. It
decides by ``core.routing``, and knows no Kopf. Each part may use those below it:

    server        all of it, wired together
    ext_proc      answers Envoy's question about each request: where it goes, and with what
    access_log    what Envoy says of connections that have ended
    xds           configures Envoy: which pools there are
    reports       what is reported of builds: the build log, and the status of pools
    pools         the pools that are served, as the operator configures them, and their builders
    slots         which connection has a slot, which one waits, and where builds are

Below all of these:

    metrics       what is counted and measured
    draining      the ``preStop`` hook: ends a pod once nothing runs through it any more
"""
