"""Which connection has a slot, which one waits, and where builds are.

scheduler     lets connections wait, and gives them slots and builders
locator       which builder answers a request that needs no slot of its own
store         which connection builds where: what the next router of the pod has to know
changes       waiting until something is so
refusals      why a request gets nothing
"""
