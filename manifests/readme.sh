#!/bin/sh
# Prints the chart's README: how to install it, and the reference of its values.
set -eu
here=$(dirname "$0")

cat << 'END'
<!-- Generated from docs/reference/chart.md by `make generate`; do not edit. -->
# buildpool

A Kubernetes operator for fleets of BuildKit daemons. There is no public image yet: build it and push it where your
nodes can pull it.

```console
$ helm upgrade --install buildpool . --namespace buildpool-system --create-namespace --wait \
    --set image.repository=registry.example.com/buildpool
$ helm test buildpool --namespace buildpool-system
```
END
tail -n +2 "$here/../docs/reference/chart.md"
