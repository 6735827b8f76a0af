"""What is reported of builds: to the log, and to the operator in the status of pools.

builds        the build log: one line for each build
details       what is found out about a build once it has ended
traces        what the router does with a build, in the trace of its client
status        what waits at this pod, in the status of pools
"""
