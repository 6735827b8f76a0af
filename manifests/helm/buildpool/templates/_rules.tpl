{{/*
Everything the operator may do, by API group and resource, each with its reason. Nowhere else.
*/}}

{{/* In the namespaces of pools: of all, by the ClusterRole, or of the watched ones, by a Role in each. */}}
{{- define "buildpool.poolRules" -}}
# What a pool consists of: found by label or name, applied and removed.
- apiGroups: [""]
  resources: [configmaps, persistentvolumeclaims, services]
  verbs: [get, list, watch, create, patch, delete]
# Tell users what was decided and why.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
# See whether builders run and why not. They are made and removed by their Deployments. Patch: labels
# that take a builder out of its Service and tell evictions which ones are busy.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Certificates, by name. Never list or watch: other Secrets are none of the operator's business.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# One for each builder.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# What is left of a Deployment that is gone, where Kubernetes overlooks it.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, delete]
# Memory of builders, where builders.recycle.maxMemory asks for it.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
# Keeps evictions away from builders that are busy.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Keeps clients of pools with Gateway routing from going past the gateway.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# What users want. Patch: the finalizer that keeps a deleted pool until it is drained, and a request
# for a rotation that is fulfilled.
- apiGroups: [buildpool.dev]
  resources: [buildkitpools]
  verbs: [get, list, watch, patch]
# Needed to own objects whose deletion the pool's own waits for.
- apiGroups: [buildpool.dev]
  resources: [buildkitpools/finalizers]
  verbs: [update]
# What users see.
- apiGroups: [buildpool.dev]
  resources: [buildkitpools/status]
  verbs: [patch]
{{- end }}

{{/* What the gateway's router may do in the namespaces of pools. */}}
{{- define "buildpool.gatewayPoolRules" -}}
# Where builders are, and whether they take builds.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Find what an earlier process of the same pod told.
- apiGroups: [buildpool.dev]
  resources: [buildkitpools]
  verbs: [list]
# Tell the operator what waits.
- apiGroups: [buildpool.dev]
  resources: [buildkitpools/status]
  verbs: [patch]
{{- end }}

{{/* And in its own namespace. */}}
{{- define "buildpool.gatewayOwnRules" -}}
# What it is told about pools. The authorities of pools lie here, too, and rules know no prefixes: the
# router is trusted as the operator is. Envoy, which faces the network, gets no token.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}

{{/* In the operator's own namespace, always by a Role. */}}
{{- define "buildpool.ownRules" -}}
# The authorities of all pools. List: find those whose pool is gone.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, create, patch, delete]
# See which pods of the gateway there are and whether any is ready.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Only one operator is active.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch]
{{- end }}
