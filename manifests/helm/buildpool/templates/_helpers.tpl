{{/* The name of the objects, and the start of the names of those that need another. */}}
{{- define "buildpool.name" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end }}

{{/* What a selector may hold: these never change. The component tells the operator from its builders. */}}
{{- define "buildpool.selectorLabels" -}}
app.kubernetes.io/name: buildpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "buildpool.gatewayName" -}}
{{ include "buildpool.name" . }}-gateway
{{- end }}

{{- define "buildpool.gatewaySelectorLabels" -}}
app.kubernetes.io/name: buildpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "buildpool.gatewayLabels" -}}
{{ include "buildpool.gatewaySelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "buildpool.gatewaySubjects" -}}
- kind: ServiceAccount
  name: {{ include "buildpool.gatewayName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "buildpool.labels" -}}
{{ include "buildpool.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "buildpool.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "buildpool.name" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "buildpool.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The one who is given the roles. */}}
{{- define "buildpool.subjects" -}}
- kind: ServiceAccount
  name: {{ include "buildpool.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A container that Pod Security calls restricted. */}}
{{- define "buildpool.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
