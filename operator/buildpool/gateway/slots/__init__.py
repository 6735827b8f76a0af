"""Which connection has a slot, which one waits, and where builds are.

scheduler     lets connections wait, and gives them slots and builders
locator       which builder answers a request that needs no slot of its own
arrivals      solves that have come and not begun, and who waits for each
callers       who waits for any builder at all
store         which connection builds where: what the next router of the pod has to know
changes       waiting until something is so
refusals      why a request gets nothing
"""
