"""The program beside the registry of a managed cache: it vouches for caches and makes room.

server      what it answers
upkeep      its rounds, one after the other
inspection  reads blobs, and remembers what they were
verdicts    keeps that in a file
doubts      what could not be read, before it counts as damage; pure
damage      what has to be removed because it is damaged; pure
retention   what has to be removed for its age or for room; pure
clock       whether the clock is believed; pure
inventory   what lies there, as values; pure
scanning    takes the inventory
removing    removes, in short steps
storage     the layout of the registry's files
files       single files, whatever stands in their place
"""
