"""A real single-node Kubernetes on one Linux machine, for demonstrations and end-to-end tests.

Everything it runs is compiled from Go modules or taken from Debian packages on this machine, and
lives in its own namespaces. It must never change anything of the machine outside of them, except
its two folders (state and cache) and the Debian packages it says it needs.
"""
