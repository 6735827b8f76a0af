"""How Envoy is told about the pools.

bootstrap   what Envoy starts with: where the router is, and nothing of any pool
resources   one pool as a filter chain, a cluster and secrets; pure
publishing  from the pools to what Envoy shall have, in few updates
discovery   the protocol (delta ADS)
"""
