"""What raw objects say, as the API server sends them. Pure.

refs      which object it is, and whose
pods      what a pod says: of its builder, its daemon, its end
drift     how an object differs from the one that was applied
security  what of a pod's rights the cluster does not store as they are wanted
"""
