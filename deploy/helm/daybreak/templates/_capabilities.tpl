{{/* Whether KEDA's objects are rendered: by `keda.enabled`, or by what the cluster has. */}}
{{- define "daybreak.keda" -}}
{{- if kindIs "bool" .Values.keda.enabled -}}
{{- .Values.keda.enabled -}}
{{- else -}}
{{- .Capabilities.APIVersions.Has "keda.sh/v1alpha1" -}}
{{- end -}}
{{- end -}}
