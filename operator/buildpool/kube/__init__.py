"""The adapter to Kubernetes. The only place that knows its HTTP API and maps its errors.

It decides nothing.

    cluster     objects as plain dicts: read, apply, delete
    informer    a mirror of the objects of one kind
    events      posts Events
    leadership  the Lease
    errors      answers and broken connections become exceptions
    metrics     requests, for Prometheus
"""
