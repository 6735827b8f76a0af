"""The program beside each builder: it lets no cache through that nobody vouches for.

server    what buildkitd asks, and what it is answered
upstream  what the guard asks registry and keeper
"""
