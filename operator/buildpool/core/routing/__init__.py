"""Which builder takes which build, and who waits. The decisions of the gateway.

Pure: time is an argument, and nothing here talks to anybody. ``gateway`` carries out what is
decided.
"""
