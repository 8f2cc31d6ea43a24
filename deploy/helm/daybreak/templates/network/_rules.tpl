{{/* Rules that several policies share. */}}

{{/* A peer: pods of this release of one component. */}}
{{- define "daybreak.peer" -}}
- podSelector:
    matchLabels: {{- include "daybreak.selector" . | nindent 6 }}
{{- end -}}

{{/* Ray's pods, of every pool. */}}
{{- define "daybreak.rayPeer" -}}
- podSelector:
    matchLabels: {{- include "daybreak.rayLabels" . | nindent 6 }}
{{- end -}}

{{/* The ports at which groups answer requests. Ray uses none of them. */}}
{{- define "daybreak.groupPorts" -}}20100-20199{{- end -}}

{{/* The same, as ports of a rule. */}}
{{- define "daybreak.groupPortRange" -}}
{{- $ends := splitList "-" (include "daybreak.groupPorts" .) -}}
- {port: {{ first $ends }}, endPort: {{ last $ends }}, protocol: TCP}
{{- end -}}

{{- define "daybreak.toDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .Values.networkPolicy.dns.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "daybreak.toRedis" -}}
{{- if .Values.redis.enabled -}}
- ports:
    - {port: 6379, protocol: TCP}
  to: {{- include "daybreak.peer" (list . "redis") | nindent 4 }}
{{- else -}}
{{- $ports := dict (toString .Values.redis.external.port) true -}}
{{- range .Values.redis.external.sentinel.addresses -}}
{{- $_ := set $ports (splitList ":" . | last) true -}}
{{- end -}}
- ports:
    {{- range $port, $_ := $ports }}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.externalRedis.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "daybreak.toArtifacts" -}}
{{- if hasPrefix "s3://" .Values.artifacts.url -}}
{{- include "daybreak.toServer" (list .Values.networkPolicy.artifacts (.Values.artifacts.s3.endpointUrl | default "https://s3.amazonaws.com")) -}}
{{- end -}}
{{- end -}}

{{- define "daybreak.toCollector" -}}
{{- if .Values.tracing.enabled -}}
{{- include "daybreak.toServer" (list .Values.networkPolicy.tracing .Values.tracing.endpoint) -}}
{{- end -}}
{{- end -}}

{{/* A rule to a server outside the release. Call with (list rule url); without ports, the rule opens the URL's port. */}}
{{- define "daybreak.toServer" -}}
{{- $rule := index . 0 -}}
{{- $ports := $rule.ports -}}
{{- if not $ports -}}
{{- $url := urlParse (index . 1) -}}
{{- $written := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = list ($written | default (ternary "443" "80" (eq $url.scheme "https"))) -}}
{{- end -}}
- ports:
    {{- range $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $rule.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "daybreak.toApiServer" -}}
- ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.apiServer.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
