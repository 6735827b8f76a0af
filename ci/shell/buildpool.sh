#!/bin/sh
# Runs a command with pools as the builder of buildx, and disconnects when it ends:
#     BUILDPOOL_POOLS=ci BUILDPOOL_NAMESPACE=builds sh buildpool.sh docker buildx build .
# docs/how-to/ci.md lists the variables.
set -euf
: "${BUILDPOOL_POOLS:?names the pools, separated by spaces}"
random=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
BUILDX_BUILDER=${BUILDPOOL_NAME:-buildpool-$random}
export BUILDX_BUILDER
folder=$(mktemp -d)
connected=
finish() {
    code=$?
    trap '' HUP INT TERM
    if [ "$connected" ]; then buildpool disconnect "$BUILDX_BUILDER" || :; fi
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
if ! command -v buildpool >/dev/null; then
    : "${BUILDPOOL_PACKAGE:?says what pip installs, unless buildpool is on the PATH}"
    python3 -m venv "$folder/client"
    "$folder/client/bin/pip" install --quiet -- "$BUILDPOOL_PACKAGE"
    PATH=$folder/client/bin:$PATH
fi
connected=yes
buildpool connect --detach --name="$BUILDX_BUILDER" \
    ${BUILDPOOL_NAMESPACE:+"--namespace=$BUILDPOOL_NAMESPACE"} \
    ${BUILDPOOL_CLIENT:+"--client=$BUILDPOOL_CLIENT"} \
    ${BUILDPOOL_VIA:+"--via=$BUILDPOOL_VIA"} \
    -- $BUILDPOOL_POOLS
"$@"
