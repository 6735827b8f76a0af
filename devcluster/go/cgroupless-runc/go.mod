module buildpool.dev/devcluster/cgroupless-runc

go 1.26.0
