{{/* Parts that all pods with Daybreak's image share. */}}
{{- define "daybreak.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "daybreak.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Secrets are mounted as files, and a process reads a Secret's file each time that it uses the Secret. The kubelet
     updates the files within two minutes after a Secret has changed, so no pod needs a restart. The paths of the files
     come from the environment, not from the settings file: during an upgrade, pods of the previous version read this
     settings file too, and these pods may lack the files. All other settings come from the settings file. */}}
{{- define "daybreak.env" -}}
- name: DAYBREAK_CONFIG
  value: /etc/daybreak/daybreak.yaml
{{ include "daybreak.redisEnv" . }}
{{- if .Values.artifacts.s3.existingSecret }}
- name: DAYBREAK_ARTIFACTS__S3__ACCESS_KEY_ID_FILE
  value: /etc/daybreak-secrets/s3-access-key-id
- name: DAYBREAK_ARTIFACTS__S3__SECRET_ACCESS_KEY_FILE
  value: /etc/daybreak-secrets/s3-secret-access-key
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
- name: DAYBREAK_TRACING__HEADERS_FILE
  value: /etc/daybreak-secrets/tracing-headers
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The Secrets that pods read. A missing Secret does not keep pods from starting. The process that uses the Secret
     reports that the Secret is missing, and continues once the Secret exists. */}}
{{- define "daybreak.secretSources" -}}
{{- with include "daybreak.redisSecret" . }}
- secret:
    name: {{ . }}
    optional: true
    items:
      - {key: {{ include "daybreak.redisPasswordKey" $ }}, path: redis-password}
{{- end }}
{{- if include "daybreak.sentinel" . }}
{{- with .Values.redis.external.sentinel }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    optional: true
    items:
      - {key: {{ .passwordKey }}, path: sentinel-password}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.artifacts.s3 }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    optional: true
    items:
      - {key: {{ .accessKeyIdKey }}, path: s3-access-key-id}
      - {key: {{ .secretAccessKeyKey }}, path: s3-secret-access-key}
{{- end }}
{{- end }}
{{- with .Values.tracing }}
{{- if and .enabled .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    optional: true
    items:
      - {key: {{ .headersKey }}, path: tracing-headers}
{{- end }}
{{- end }}
{{- end -}}

{{- define "daybreak.mounts" -}}
- name: settings
  mountPath: /etc/daybreak
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /home/daybreak
{{- if include "daybreak.secretSources" . }}
- name: secrets
  mountPath: /etc/daybreak-secrets
  readOnly: true
{{- end }}
{{- if include "daybreak.redisFiles" . }}
- name: redis-tls
  mountPath: /etc/daybreak-redis
  readOnly: true
{{- end }}
{{- if .Values.artifacts.volume }}
- name: artifacts
  mountPath: {{ trimPrefix "file://" .Values.artifacts.url }}
{{- end }}
{{- end -}}

{{- define "daybreak.volumes" -}}
- name: settings
  configMap:
    name: {{ include "daybreak.fullname" . }}-config
- name: tmp
  emptyDir: {}
- name: home
  emptyDir: {}
{{- with include "daybreak.secretSources" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources: {{- . | nindent 6 }}
{{- end }}
{{- if include "daybreak.redisFiles" . }}
{{ include "daybreak.redisVolume" . }}
{{- end }}
{{- with .Values.artifacts.volume }}
- name: artifacts
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod may run, and its priority class. Call with the component's values. */}}
{{- define "daybreak.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
