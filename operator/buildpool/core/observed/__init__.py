"""What was seen, as values: the adapters hand it in, and decisions are made on it. Pure.

observation   everything a pass has read
load          the builds of one daemon
cache         a shared cache: whom to ask, and the answer
usage         what the keeper of a managed cache reports
dockerconfig  credentials out of a docker configuration
"""
