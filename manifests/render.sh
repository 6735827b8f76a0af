#!/bin/sh
# Renders the plain manifests from the chart, so that the two never drift apart.
#
#   HELM=helm manifests/render.sh [folder]     default: manifests/kustomize
set -eu
here=$(dirname "$0")
out=${1:-$here/kustomize}

render() {
    echo "# Generated from the chart by \`make generate\`; do not edit."
    for template; do
        rendered=$("${HELM:-helm}" template buildpool "$here/helm/buildpool" \
            --namespace buildpool-system --show-only "templates/$template.yaml")
        printf '%s\n' "$rendered" |
            sed -e '/^$/d' -e '/^# Source: /d' -e '/app.kubernetes.io\/managed-by: Helm/d' -e '/helm.sh\/chart: /d'
    done
}

cp "$here/helm/buildpool/files/buildkitpools.buildpool.dev.yaml" "$out/crd.yaml"
render serviceaccount rbac gateway-rbac user-roles > "$out/rbac.yaml"
render deployment gateway metrics > "$out/deployment.yaml"
