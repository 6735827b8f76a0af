"""Configures Envoy: which pools there are.

bootstrap         what Envoy starts with: where the router is, and nothing of any pool
resources         one pool as a filter chain, a cluster and secrets; pure
limits            what one pool, and one connection, may have; pure
ext_proc_filter   what Envoy asks the router about each request; pure
publisher         from the pools to what Envoy shall have, in few updates
discovery         the protocol (delta ADS): one stream for each Envoy
subscriptions     what one Envoy wants, has and has answered to; pure
"""
