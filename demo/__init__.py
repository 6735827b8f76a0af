"""The whole way, shown: a cluster, the operator, a pool, and a real image built through it.

lab       where commands run: in a devcluster, or against a cluster that the user names for it
install   the operator's image and Helm chart, as a user installs them
tour      the steps of `make demo`
"""
