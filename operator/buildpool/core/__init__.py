"""What is decided about pools, and the words for it. All of it is pure.

Nothing below this folder does I/O, reads a clock, logs, or knows Kubernetes, Kopf or gRPC: time and
what was seen are arguments. Keys are random by nature; ``cryptography`` makes them, and only when a
plan says so.

    reporting     what is told after a pass: status and Events
    planning      what to do about a pool, and why
    resources     from a pool to its objects
    observed      what was seen, as values
    objects       what a raw object says
    scaling       how many builders, and which come and go
    routing       who gets which slot, and where
    explanation   the same in words for a terminal
    api           what a user can say, and what is answered
    pki           authorities and certificates
    naming        every name there is
    domains       what the full names of a cluster's Services end with
    errors        every exception there is
    pauses        how long to wait before another try
    words         words with a meaning
"""
