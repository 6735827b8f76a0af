"""Programs that run beside the main one of a pod, each with one duty that the main one lacks.

``keeper`` runs beside the registry of a pool's managed cache: it vouches for what lies there and
makes room. ``guard`` runs beside each builder: it lets no cache through that nobody vouches for.

Nothing here knows Kubernetes.
"""
