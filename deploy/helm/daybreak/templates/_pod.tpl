{{/* What all pods of Daybreak's image have in common. */}}
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

{{/* Secrets come by the environment alone, everything else by the settings file. */}}
{{- define "daybreak.env" -}}
- name: DAYBREAK_CONFIG
  value: /etc/daybreak/daybreak.yaml
{{ include "daybreak.redisEnv" . }}
{{- with .Values.artifacts.s3.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.artifacts.s3.accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.artifacts.s3.secretAccessKeyKey }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
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
{{- if include "daybreak.redisFiles" . }}
{{ include "daybreak.redisVolume" . }}
{{- end }}
{{- with .Values.artifacts.volume }}
- name: artifacts
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod may and should run; call with the component's values. */}}
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
