"""The router beside Envoy: it tells Envoy which pools there are, and where each request goes.

Envoy carries the bytes; this decides and never touches them, but for the message that starts a
build. What is decided is ``routing``'s business. Knows no Kopf.

    tenants       the pools that the gateway serves, as the operator tells about them
    directory     watches what the operator tells, and the builders' pods
    xds           tells Envoy about the pools
    house         the pools, each with its desk
    processor     answers Envoy's question about each request (ext_proc); calls, answers: its words;
                  messages: what of a request is read, and what is added to it
    builds        one line in the log for each build; inquiry: what is found out for it
    desk          lets connections wait, and gives them slots and builders
    memory        what the next router of the pod has to know: which connection builds where
    journal       what Envoy tells about connections that ended or failed (access logs)
    news          tells the operator what waits, in the pools' status
    draining      ends a pod of the gateway when nothing runs through it any more
    server        all of it, wired together
"""
