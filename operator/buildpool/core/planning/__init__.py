"""From what was seen of a pool to what shall be done about it. Pure.

plan          the heart: the difference between what shall be and what is
removal       how a deleted pool goes
desired       what a pool shall consist of: names and objects
fleet         its builders, as they are decided on
marks         what has to stand on objects that are there
certificates  which certificates there are, and which are due
caches        whom to ask about the shared cache
backlog       the builds that wait, as the gateway reports them
"""
