{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "clipper.name" -}}
{{- if contains "clipper" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-clipper" (.Release.Name | trunc 32 | trimSuffix "-") }}{{ end }}
{{- end }}

{{/* Labels by which the pods of a component are selected: of (root, component). */}}
{{- define "clipper.selector" -}}
app.kubernetes.io/name: clipper
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "clipper.labels" -}}
{{ include "clipper.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "clipper.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What all pods of the suite have: of (root, component). */}}
{{- define "clipper.pod" -}}
{{- $values := index .root.Values .component }}
{{- with .root.Values.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "clipper.selector" . | nindent 8 }}
{{- end }}

{{/* What all containers of the suite have: of (root, component, opsPort). */}}
{{- define "clipper.container" -}}
{{- $values := index .root.Values .component }}
name: {{ .component }}
image: {{ include "clipper.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml $values.resources | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: {{ .ops }}{{ if .root.Values.tls.secret }}, scheme: HTTPS{{ end }}}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .ops }}{{ if .root.Values.tls.secret }}, scheme: HTTPS{{ end }}}
  periodSeconds: 2
{{- end }}

{{/* Settings that all have, and those of the values: of (root, component). */}}
{{- define "clipper.settings" -}}
- --log-level={{ .root.Values.logLevel }}
- --log-format=json
- --shutdown-delay=5s
{{- $values := index .root.Values .component }}
{{- range $key, $value := $values.settings }}
- {{ printf "--%s=%s" $key (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}

{{/* TLS of a listener, whose flags begin with a prefix; mutual, or not: of (root, listener, mutual). */}}
{{- define "clipper.listenerTLS" -}}
{{- if .root.Values.tls.secret }}
- --{{ .listener }}-tls-cert=/etc/clipper-tls/tls.crt
- --{{ .listener }}-tls-key=/etc/clipper-tls/tls.key
{{- if .mutual }}
- --{{ .listener }}-tls-client-ca=/etc/clipper-tls/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* How a service calls the others. */}}
{{- define "clipper.linksTLS" -}}
{{- if .Values.tls.secret }}
- --services-tls-ca=/etc/clipper-tls/ca.crt
- --services-tls-cert=/etc/clipper-tls/tls.crt
- --services-tls-key=/etc/clipper-tls/tls.key
- --services-tls-server-name={{ .Values.tls.serverName }}
{{- end }}
{{- end }}

{{- define "clipper.tlsMount" -}}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /etc/clipper-tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "clipper.tlsVolume" -}}
{{- with .Values.tls.secret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* The store's address, as environment. */}}
{{- define "clipper.store" -}}
{{- if and .Values.redis.enabled .Values.store.secret }}
{{- fail "store.secret names a Redis of your own, and redis.enabled makes another one: set one of the two" }}
{{- end }}
{{- if .Values.store.secret }}
- name: CLIPPER_STORE
  valueFrom:
    secretKeyRef: {name: {{ .Values.store.secret }}, key: url}
{{- else if not .Values.redis.enabled }}
{{- fail "several instances need a store that they share: set redis.enabled, or store.secret to the name of a Secret with the address of your Redis" }}
{{- else if .Values.redis.passwordSecret }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.redis.passwordSecret }}, key: password}
- name: CLIPPER_STORE
  value: redis://:$(REDIS_PASSWORD)@{{ include "clipper.name" . }}-redis:6379/0
{{- else }}
- name: CLIPPER_STORE
  value: redis://{{ include "clipper.name" . }}-redis:6379/0
{{- end }}
{{- end }}

{{/* A budget and an autoscaler: of (root, component, kind). */}}
{{- define "clipper.scaling" -}}
{{- $values := index .root.Values .component }}
{{- $name := printf "%s-%s" (include "clipper.name" .root) .component }}
{{- if .root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "clipper.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "clipper.selector" . | nindent 6 }}
{{- end }}
{{- if $values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "clipper.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ $name }}}
  minReplicas: {{ $values.autoscaling.minReplicas }}
  maxReplicas: {{ $values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $values.autoscaling.targetCPUPercent }}}
{{- end }}
{{- end }}

{{/* A monitor of a component's Service: of (root, component). */}}
{{- define "clipper.monitor" -}}
{{- if .root.Values.serviceMonitor.enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "clipper.name" .root }}-{{ .component }}
  labels: {{- include "clipper.labels" . | nindent 4 }}
    {{- with .root.Values.serviceMonitor.labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  selector:
    matchLabels: {{- include "clipper.selector" . | nindent 6 }}
      clipper.metrics: "true"
  endpoints:
    - port: ops
      path: /metrics
      interval: {{ .root.Values.serviceMonitor.interval }}
      {{- with .root.Values.tls.secret }}
      scheme: https
      tlsConfig:
        ca: {secret: {name: {{ . }}, key: ca.crt}}
        serverName: {{ $.root.Values.tls.serverName }}
      {{- end }}
{{- end }}
{{- end }}
