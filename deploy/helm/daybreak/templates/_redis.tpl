{{- define "daybreak.redisName" -}}
{{- include "daybreak.fullname" . }}-redis
{{- end -}}

{{/* The Secret with the password, or empty. */}}
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

{{/* Whether clients find the master by Sentinel: "true" or empty. */}}
{{- define "daybreak.sentinel" -}}
{{- if and (not .Values.redis.enabled) .Values.redis.external.sentinel.addresses -}}true{{- end -}}
{{- end -}}

{{/* "true" if TLS is on, or empty. */}}
{{- define "daybreak.redisTls" -}}
{{- if and (not .Values.redis.enabled) .Values.redis.external.tls.enabled -}}true{{- end -}}
{{- end -}}

{{/* host:port that works from any namespace, because KEDA runs in another one. */}}
{{- define "daybreak.redisAddress" -}}
{{- if .Values.redis.enabled -}}
{{- printf "%s.%s.svc:6379" (include "daybreak.redisName" .) .Release.Namespace -}}
{{- else -}}
{{- printf "%s:%v" (.Values.redis.external.host | default .Values.redis.external.sentinel.master) .Values.redis.external.port -}}
{{- end -}}
{{- end -}}

{{- define "daybreak.redisEnv" -}}
{{- $external := .Values.redis.external -}}
{{- $secret := include "daybreak.redisSecret" . -}}
{{- $scheme := ternary "rediss" "redis" (eq (include "daybreak.redisTls" .) "true") -}}
{{- $user := ternary "" $external.username .Values.redis.enabled -}}
{{- $database := ternary 0 $external.database .Values.redis.enabled -}}
{{- $who := ternary (printf "%s@" $user) "" (and (not (empty $user)) (not (empty $secret))) -}}
- name: DAYBREAK_REDIS__URL
  value: {{ printf "%s://%s%s/%v" $scheme $who (include "daybreak.redisAddress" .) $database | quote }}
{{- if $secret }}
- name: DAYBREAK_REDIS__PASSWORD_FILE
  value: /etc/daybreak-secrets/redis-password
{{- end }}
{{- if and (include "daybreak.sentinel" .) $external.sentinel.existingSecret }}
- name: DAYBREAK_REDIS__SENTINEL_PASSWORD_FILE
  value: /etc/daybreak-secrets/sentinel-password
{{- end }}
{{- end -}}

{{/* Redis's part of the settings file, without secrets. */}}
{{- define "daybreak.redisSettings" -}}
prefix: {{ .Values.redis.prefix }}
{{- if not .Values.redis.enabled }}
{{- with .Values.redis.external }}
{{- if .sentinel.addresses }}
sentinels: {{- toYaml .sentinel.addresses | nindent 2 }}
sentinel_master: {{ .sentinel.master }}
{{- end }}
{{- if .waitReplicas }}
wait_replicas: {{ .waitReplicas }}
{{- end }}
{{- if .tls.enabled }}
{{- if .tls.caSecret }}
ca_file: /etc/daybreak-redis/ca.crt
{{- end }}
{{- if .tls.clientSecret }}
cert_file: /etc/daybreak-redis/tls.crt
key_file: /etc/daybreak-redis/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* "true" if certificates are mounted, or empty. */}}
{{- define "daybreak.redisFiles" -}}
{{- if and (include "daybreak.redisTls" .) (or .Values.redis.external.tls.caSecret .Values.redis.external.tls.clientSecret) -}}true{{- end -}}
{{- end -}}

{{- define "daybreak.redisVolume" -}}
- name: redis-tls
  projected:
    sources:
      {{- with .Values.redis.external.tls }}
      {{- if .caSecret }}
      - secret:
          name: {{ .caSecret }}
          items:
            - {key: {{ .caKey }}, path: ca.crt}
      {{- end }}
      {{- if .clientSecret }}
      - secret:
          name: {{ .clientSecret }}
          items:
            - {key: tls.crt, path: tls.crt}
            - {key: tls.key, path: tls.key}
      {{- end }}
      {{- end }}
{{- end -}}

{{/* The Secrets that KEDA reads to connect to Redis; empty if Redis requires none. */}}
{{- define "daybreak.kedaSecrets" -}}
{{- if include "daybreak.redisSecret" . }}
- parameter: password
  name: {{ include "daybreak.redisSecret" . }}
  key: {{ include "daybreak.redisPasswordKey" . }}
{{- end }}
{{- if not .Values.redis.enabled }}
{{- with .Values.redis.external }}
{{- if and .sentinel.addresses .sentinel.existingSecret }}
- parameter: sentinelPassword
  name: {{ .sentinel.existingSecret }}
  key: {{ .sentinel.passwordKey }}
{{- end }}
{{- if and .tls.enabled .tls.caSecret }}
- parameter: ca
  name: {{ .tls.caSecret }}
  key: {{ .tls.caKey }}
{{- end }}
{{- if and .tls.enabled .tls.clientSecret }}
- parameter: cert
  name: {{ .tls.clientSecret }}
  key: tls.crt
- parameter: key
  name: {{ .tls.clientSecret }}
  key: tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How KEDA's trigger connects to Redis. */}}
{{- define "daybreak.kedaConnection" -}}
{{- $external := .Values.redis.external -}}
{{- if include "daybreak.sentinel" . -}}
addresses: {{ join "," $external.sentinel.addresses | quote }}
sentinelMaster: {{ $external.sentinel.master }}
{{- else -}}
address: {{ include "daybreak.redisAddress" . }}
{{- end }}
{{- if not .Values.redis.enabled }}
{{- with $external.username }}
username: {{ . }}
{{- end }}
{{- end }}
{{- if include "daybreak.redisTls" . }}
enableTLS: "true"
{{- end }}
databaseIndex: {{ ternary 0 $external.database .Values.redis.enabled | quote }}
{{- end -}}
