"""Programs that run beside the main one of a pod, each with one duty that the main one lacks.

Nothing here knows Kubernetes.

    keeper  beside the registry of a managed cache: vouches for what lies there, and makes room
    guard   beside each builder: lets no cache through that nobody vouches for
    names   the names of what lies in a registry; pure
    tls     certificates that are read again when they change
"""
