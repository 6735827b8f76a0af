{{/*
Puts into .Values what they lack: every template says this first. With `helm upgrade --reuse-values` they
are those of the chart that was installed before, and know nothing of what has come since; and what
somebody sets to null, Helm takes out.
*/}}
{{- define "buildpool.complete" -}}
{{- include "buildpool.fill" (list "" .Values (.Files.Get "files/defaults.yaml" | fromYaml)) }}
{{- end }}

{{/*
From (list path values defaults). Of what is no section, such as the resources of a container, nothing is
added to what is there: there, a field that was taken out stays out.
*/}}
{{- define "buildpool.fill" -}}
{{- $sections := list "gateway" "gateway.image" "gateway.resources" "gateway.service" "gateway.tracing" "image" "metrics"
      "metrics.dashboards" "metrics.rules" "metrics.serviceMonitor" "crds" "rbac" "serviceAccount" }}
{{- $values := index . 1 }}
{{- $path := index . 0 }}
{{- range $name, $default := index . 2 }}
{{- $below := printf "%s.%s" $path $name | trimPrefix "." }}
{{- if kindIs "invalid" (index $values $name) }}
{{- $_ := set $values $name $default }}
{{- else if has $below $sections }}
{{- include "buildpool.fill" (list $below (index $values $name) $default) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The name of the objects, and the start of the names of those that need another. The longest of them is
a Service's, NAME-gateway-metrics, and that has at most 63 characters, no dots, and a letter first.
*/}}
{{- define "buildpool.name" -}}
{{- $own := .Release.Name }}
{{- with .Values.nameOverride }}{{ $own = printf "%s-%s" $own . }}{{ end }}
{{- $name := .Values.fullnameOverride | default $own }}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,45}[a-z0-9])?$" $name) }}
{{- fail (printf "the objects cannot be named %q: set fullnameOverride to at most 47 lower-case letters, digits and hyphens, a letter first and no hyphen last" $name) }}
{{- end }}
{{- $name -}}
{{- end }}

{{- define "buildpool.gatewayName" -}}
{{ include "buildpool.name" . }}-gateway
{{- end }}

{{/*
What a selector may hold: these never change, whatever the objects are called, because the operator
knows its own parts by them. The component tells the operator from its builders.
*/}}
{{- define "buildpool.selectorLabels" -}}
app.kubernetes.io/name: buildpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "buildpool.gatewaySelectorLabels" -}}
app.kubernetes.io/name: buildpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Of all objects. Not of pods: another version of the chart alone does not replace them. */}}
{{- define "buildpool.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: buildpool
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "buildpool.labels" -}}
{{ include "buildpool.selectorLabels" . }}
{{ include "buildpool.commonLabels" . }}
{{- end }}

{{- define "buildpool.gatewayLabels" -}}
{{ include "buildpool.gatewaySelectorLabels" . }}
{{ include "buildpool.commonLabels" . }}
{{- end }}

{{/* Of pods, from (list $ labels-that-select labels-of-the-user): the user's never replace ours. */}}
{{- define "buildpool.podLabels" -}}
{{- $root := index . 0 }}
{{- $own := merge (include (index . 1) $root | fromYaml) (dict
      "app.kubernetes.io/version" $root.Chart.AppVersion
      "app.kubernetes.io/part-of" "buildpool"
      "app.kubernetes.io/managed-by" $root.Release.Service) }}
{{- merge $own (index . 2) | toYaml }}
{{- end }}

{{- define "buildpool.gatewaySubjects" -}}
- kind: ServiceAccount
  name: {{ include "buildpool.gatewayName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "buildpool.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "buildpool.name" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{/* A reference, from {repository, tag, digest}. */}}
{{- define "buildpool.reference" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "buildpool.image" -}}
{{- include "buildpool.reference" (merge (dict "tag" (.Values.image.tag | default .Chart.AppVersion)) .Values.image) -}}
{{- end }}

{{/* The one who is given the roles. */}}
{{- define "buildpool.subjects" -}}
- kind: ServiceAccount
  name: {{ include "buildpool.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/*
Where pods may run, from (list $ values labels-that-select). Two pods of a kind prefer two nodes, unless
the user has constraints of their own.
*/}}
{{- define "buildpool.scheduling" -}}
{{- $root := index . 0 }}
{{- $values := index . 1 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with $values.topologySpreadConstraints }}
{{ toYaml . }}
{{- else }}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include (index . 2) $root | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{/* Of several pods, evictions take one after the other; from (list $ name labels labels-that-select). */}}
{{- define "buildpool.disruptionBudget" -}}
{{- $root := index . 0 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include (index . 2) $root | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include (index . 3) $root | nindent 6 }}
{{- end }}

{{/*
For the Prometheus operator; from (list $ name labels labels-that-select). Honor labels: a metric of a
pool has the label namespace, which is the pool's and not that of the pod that serves it.
*/}}
{{- define "buildpool.serviceMonitor" -}}
{{- $root := index . 0 }}
{{- $monitor := $root.Values.metrics.serviceMonitor }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- merge (deepCopy $monitor.labels) (include (index . 2) $root | fromYaml) | toYaml | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include (index . 3) $root | nindent 6 }}
  endpoints:
  - port: metrics
    interval: {{ $monitor.interval }}
    honorLabels: true
{{- end }}
