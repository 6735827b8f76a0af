"""What the user is told after a pass: the status, its conditions, and Events. Pure.

report       the whole status, and the Events that lead there
conditions   what holds of a pool, and what would help
carried_out  what GitOps tools wait for
readiness    the checks of ``Ready``
conflicts    names that the pool needs and somebody else has
case         what conditions are judged by, and the checks that several share
builders     ``status.builders``
cache        the condition and the status of the shared cache
diagnosis    why a builder is not ready
losses       which builds were lost with their builder
requests     Events about what users ask for by annotations
outcome      what became of a plan
"""
