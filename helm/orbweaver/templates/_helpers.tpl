{{/* The first part of every object's name. Not the release's name: a cluster has room for one installation only,
     and fixed names let documents, policies and dashboards name the objects. */}}
{{- define "orbweaver.name" -}}
{{- default "orbweaver" .Values.global.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "orbweaver.agent" -}}{{ include "orbweaver.name" . }}-agent{{- end -}}
{{- define "orbweaver.controller" -}}{{ include "orbweaver.name" . }}-controller{{- end -}}
{{- define "orbweaver.conflistName" -}}{{ include "orbweaver.name" . }}-conflist{{- end -}}

{{/* What never changes about a Pod of a role. Give: root, component. */}}
{{- define "orbweaver.selectorLabels" -}}
app.kubernetes.io/name: orbweaver
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels and annotations of an object. Give: root, component. */}}
{{- define "orbweaver.labels" -}}
{{ include "orbweaver.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The rest of an object's metadata. Give: root, component, and keep: true for what must outlive the release. */}}
{{- define "orbweaver.metadata" -}}
labels:
  {{- include "orbweaver.labels" . | nindent 2 }}
{{- $annotations := deepCopy .root.Values.global.commonAnnotations -}}
{{- if .keep }}{{- $_ := set $annotations "helm.sh/resource-policy" "keep" -}}{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "orbweaver.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.global.imageRegistryOverride -}}
{{- /* The part before the first slash is a registry if it looks like a host: it has a dot or a port. */ -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* conf.yml: the keys are those that the program knows; it refuses others. */}}
{{- define "orbweaver.conf" -}}
{{- if not (or .Values.ipam.enableIPv4 .Values.ipam.enableIPv6) -}}
{{- fail "ipam.enableIPv4 and ipam.enableIPv6 are both false: no Pod could get an address; set one of them to true" -}}
{{- end -}}
ipamUnixSocketPath: {{ .Values.global.ipamUNIXSocketHostPath }}
enableIPv4: {{ .Values.ipam.enableIPv4 }}
enableIPv6: {{ .Values.ipam.enableIPv6 }}
enableStatefulSet: {{ .Values.ipam.enableStatefulSet }}
enableKubevirtStaticIP: {{ .Values.ipam.enableKubevirtStaticIP }}
spiderEndpoints: {{ .Values.ipam.spiderEndpoint.mode }}
enableIPConflictDetection: {{ .Values.ipam.enableIPConflictDetection }}
enableGatewayDetection: {{ .Values.ipam.enableGatewayDetection }}
earlyBinding: {{ and .Values.ipam.allocator.enable .Values.ipam.allocator.earlyBinding }}
enableSpiderSubnet: {{ .Values.ipam.spiderSubnet.enable }}
enableAutoPoolForApplication: {{ .Values.ipam.spiderSubnet.autoPool.enable }}
clusterSubnetAutoPoolDefaultRedundantIPNumber: {{ .Values.ipam.spiderSubnet.autoPool.defaultRedundantIPNumber | int }}
thirdPartyControllers: {{ .Values.ipam.spiderSubnet.autoPool.thirdPartyControllers | toJson }}
{{- end -}}

{{/* A rule for the objects of each kind in thirdPartyControllers. Give: root, verbs. */}}
{{- define "orbweaver.thirdPartyRules" -}}
{{- $verbs := .verbs -}}
{{- range .root.Values.ipam.spiderSubnet.autoPool.thirdPartyControllers }}
- apiGroups: [{{ include "orbweaver.group" .apiVersion | quote }}]
  resources: [{{ .resource }}]
  verbs: {{ $verbs | toJson }}
{{- end }}
{{- end -}}

{{/* The group of an apiVersion; empty for the core group. */}}
{{- define "orbweaver.group" -}}
{{- if contains "/" . }}{{ index (splitList "/" .) 0 }}{{ end -}}
{{- end -}}

{{/* The conflist, with the agent's socket named where it is not the one the plugin assumes. */}}
{{- define "orbweaver.conflist" -}}
{{- $default := "/var/run/spidernet/spiderpool.sock" -}}
{{- $plugins := list -}}
{{- range .Values.conflist.plugins -}}
{{- $plugin := deepCopy . -}}
{{- if and (eq (dig "ipam" "type" "" $plugin) "spiderpool") (ne $.Values.global.ipamUNIXSocketHostPath $default) -}}
{{- $_ := set $plugin.ipam "ipam_unix_socket_path" $.Values.global.ipamUNIXSocketHostPath -}}
{{- end -}}
{{- $plugins = append $plugins $plugin -}}
{{- end -}}
{{ dict "cniVersion" .Values.conflist.cniVersion "name" .Values.conflist.name "plugins" $plugins | toPrettyJson }}
{{- end -}}

{{/* The environment of both roles. Give: root, role (the role's values). */}}
{{- define "orbweaver.env" -}}
- name: SPIDERPOOL_LOG_LEVEL
  value: {{ .role.debug.logLevel }}
- name: SPIDERPOOL_HEALTH_PORT
  value: {{ .role.httpPort | int | quote }}
- name: SPIDERPOOL_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: SPIDERPOOL_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: SPIDERPOOL_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- with .role.prometheus }}
{{- if .enabled }}
- name: SPIDERPOOL_ENABLED_METRIC
  value: "true"
- name: SPIDERPOOL_METRIC_HTTP_PORT
  value: {{ .port | int | quote }}
{{- if .enabledDebugMetric }}
- name: SPIDERPOOL_ENABLED_DEBUG_METRIC
  value: "true"
{{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.apiServer }}
{{- if and .host (not .port) }}{{ fail "apiServer.host is set and apiServer.port is not: set both" }}{{ end }}
{{- if and .port (not .host) }}{{ fail "apiServer.port is set and apiServer.host is not: set both" }}{{ end }}
{{- if .host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | int | quote }}
{{- end }}
{{- end }}
{{- with .role.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A time with its unit; a bare number is days. */}}
{{- define "orbweaver.days" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int . }}d{{ end -}}
{{- end -}}

{{/* The three probes of a role. Give: role. */}}
{{- define "orbweaver.probes" -}}
{{- range $kind := list "startup" "liveness" "readiness" }}
{{ $kind }}Probe:
  httpGet: {path: /v1/runtime/{{ $kind }}, port: health}
  timeoutSeconds: 5
  {{- get $.role.healthChecking (printf "%sProbe" $kind) | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The ports of a role's container. Give: role. */}}
{{- define "orbweaver.ports" -}}
- {name: health, containerPort: {{ .role.httpPort }}, protocol: TCP}
{{- with .role.prometheus }}
{{- if .enabled }}
- {name: metrics, containerPort: {{ .port }}, protocol: TCP}
{{- end }}
{{- end }}
{{- end -}}

{{/* How Prometheus finds a role's metrics: a Service without an address, and a ServiceMonitor.
     Give: root, role, component, name. */}}
{{- define "orbweaver.serviceMonitor" -}}
{{- $prometheus := .role.prometheus -}}
{{- if $prometheus.serviceMonitor.install -}}
{{- if not $prometheus.enabled }}{{ fail (printf "%s: serviceMonitor.install needs prometheus.enabled" .component) }}{{ end -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}-metrics
  namespace: {{ .root.Release.Namespace }}
  {{- include "orbweaver.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "orbweaver.selectorLabels" . | nindent 4 }}
  ports:
    - {name: metrics, port: {{ $prometheus.port }}, targetPort: metrics, protocol: TCP}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- merge (deepCopy $prometheus.serviceMonitor.labels) (include "orbweaver.labels" . | fromYaml) | toYaml | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "orbweaver.selectorLabels" . | nindent 6 }}
  endpoints:
    - {port: metrics, interval: {{ $prometheus.serviceMonitor.interval }}}
{{- end }}
{{- end -}}

{{/* A role's alerts; the files have its objects' default name. Give: root, role, component, name. */}}
{{- define "orbweaver.prometheusRule" -}}
{{- if .role.prometheus.prometheusRule.install -}}
{{- if not .role.prometheus.enabled }}{{ fail (printf "%s: prometheusRule.install needs prometheus.enabled: without series its alerts are wrong" .component) }}{{ end -}}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- merge (deepCopy .role.prometheus.prometheusRule.labels) (include "orbweaver.labels" . | fromYaml) | toYaml | nindent 4 }}
spec:
  {{- .root.Files.Get (printf "files/%s-rules.yaml" .component) | replace (printf "orbweaver-%s-metrics" .component) (printf "%s-metrics" .name) | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A container's rights, as few as can be, under what the user lays over them. Give: role. */}}
{{- define "orbweaver.containerSecurity" -}}
{{- $least := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $least (deepCopy .role.securityContext) | toYaml -}}
{{- end -}}

{{/* What both roles' Pods share at the Pod's level. Give: root, role. */}}
{{- define "orbweaver.podBasics" -}}
enableServiceLinks: false
{{- with .role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A Pod template's metadata. The program reads its configuration once, so a change of it replaces the Pods.
     Give: root, role, component. */}}
{{- define "orbweaver.podMetadata" -}}
labels:
  {{- include "orbweaver.selectorLabels" . | nindent 2 }}
  {{- with .root.Values.global.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .role.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "orbweaver.conf" .root | sha256sum }}
  {{- if and .root.Values.conflist.install (eq .component "agent") }}
  checksum/conflist: {{ include "orbweaver.conflist" .root | sha256sum }}
  {{- end }}
  {{- with .role.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
