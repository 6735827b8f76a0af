"""From what a pass knows of a pool to what shall be done about it. Pure.

plan          the heart: the difference between what shall be and what is
removal       how a deleted pool is removed
desired       the objects a pool shall consist of
names         their names
turns         whose turn it is to replace builders that we have changed
marks         what has to stand on objects that are there
issuances     which certificates are due
situation     what a pass knows, each thing read once
fleet         one builder, as it is decided on
certificates  which certificates there shall be, and where they lie
caches        whom to ask about the shared cache
backlog       the builds that wait, as the gateway reports them
"""
