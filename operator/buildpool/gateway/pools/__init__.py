"""The pools that are served, as the operator configures them, and their builders.

config        one pool as the operator configures it; values only
directory     watches what the operator writes for the gateway, and the builders' pods
served        each pool with its scheduler, its connections and what its daemons say
bounds        how many requests a pool, a client and all together may have
messages      how much of messages is in memory at once
records       which builder has the record of a build, and its content
whereabouts   where something is, as daemons say of themselves
fleet         asks all daemons of a pool one question
leaving       a daemon that drains: asked once, without a connection that stays
listeners     who listens to what happens to the builds of a pool
cancellations builds of a pool that are to end, and the conversations that wait to hear it
unsent        the lists of builds that clients have not taken yet
tickets       requests that were let in, and that the router answers by itself
cache_memory  when shared caches were exported, and which variants have caches of their own
contexts      what the clients of a pool call the contexts that their sessions upload
"""
