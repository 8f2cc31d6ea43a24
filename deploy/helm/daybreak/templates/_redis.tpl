{{- define "daybreak.redisName" -}}
{{- include "daybreak.fullname" . }}-redis
{{- end -}}

{{/* The Secret with the password, or nothing. */}}
{{- define "daybreak.redisSecret" -}}
{{- if .Values.redis.enabled -}}
{{- .Values.redis.existingSecret | default (include "daybreak.redisName" .) -}}
{{- else -}}
{{- .Values.redis.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "daybreak.redisPasswordKey" -}}
{{- if .Values.redis.enabled -}}{{ .Values.redis.passwordKey }}{{- else -}}{{ .Values.redis.external.passwordKey }}{{- end -}}
{{- end -}}

{{/* host:port as processes of any namespace reach it; KEDA runs in one of its own. */}}
{{- define "daybreak.redisAddress" -}}
{{- if .Values.redis.enabled -}}
{{- printf "%s.%s.svc:6379" (include "daybreak.redisName" .) .Release.Namespace -}}
{{- else -}}
{{- printf "%s:%v" .Values.redis.external.host .Values.redis.external.port -}}
{{- end -}}
{{- end -}}

{{/* Kubernetes itself puts the password into the address: no pod needs a shell for it. */}}
{{- define "daybreak.redisEnv" -}}
{{- $external := .Values.redis.external -}}
{{- $secret := include "daybreak.redisSecret" . -}}
{{- $scheme := "redis" -}}{{- $user := "" -}}{{- $database := 0 -}}
{{- if not .Values.redis.enabled -}}
{{- if $external.tls.enabled -}}{{- $scheme = "rediss" -}}{{- end -}}
{{- $user = $external.username | default "" -}}
{{- $database = $external.database -}}
{{- end -}}
{{- if $secret -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ include "daybreak.redisPasswordKey" . }}
{{ end -}}
- name: DAYBREAK_REDIS__URL
  value: {{ printf "%s://%s%s/%v" $scheme (ternary (printf "%s:$(REDIS_PASSWORD)@" $user) "" (ne $secret "")) (include "daybreak.redisAddress" .) $database | quote }}
{{- end -}}
