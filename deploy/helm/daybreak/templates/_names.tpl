{{/* Names and labels. If the release's name contains daybreak, the names of objects do not repeat it. */}}
{{- define "daybreak.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels for selectors, which must never change. Call with (list $ "gateway"). */}}
{{- define "daybreak.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels without a version, for pods that an upgrade must not restart. Network policies select pods by these labels. */}}
{{- define "daybreak.lastingLabels" -}}
{{ include "daybreak.selector" . }}
app.kubernetes.io/part-of: daybreak
{{- end -}}

{{- define "daybreak.labels" -}}
{{- $root := index . 0 -}}
{{ include "daybreak.lastingLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of Ray's pods. KubeRay sets app.kubernetes.io/name itself. The labels contain no version, because a
     change of any of them replaces all groups. */}}
{{- define "daybreak.rayLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ray
app.kubernetes.io/part-of: daybreak
{{- end -}}

{{- define "daybreak.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "daybreak.rayTokenSecret" -}}
{{- .Values.rayToken.existingSecret | default (printf "%s-ray-token" (include "daybreak.fullname" .)) -}}
{{- end -}}

{{/* The name of the Secret with the token of gateways, workers and the job that registers models. Empty if there is none. */}}
{{- define "daybreak.workersTokenSecret" -}}
{{- $made := ternary (printf "%s-workers-token" (include "daybreak.fullname" .)) "" (or (not (empty .Values.workers)) (not (empty .Values.models))) -}}
{{- .Values.workersToken.existingSecret | default $made -}}
{{- end -}}

{{- define "daybreak.serviceAccount" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $of := index $root.Values.serviceAccounts $component -}}
{{- if $of.create -}}
{{- $of.name | default (printf "%s-%s" (include "daybreak.fullname" $root) $component) -}}
{{- else -}}
{{- $of.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* kube-score checks that do not apply to these pods: a CPU limit only slows a process that has work to do; images
     have fixed tags or digests, so nodes need not pull them again; the image's user is 1000. */}}
{{- define "daybreak.scored" -}}
kube-score/ignore: container-resources,container-image-pull-policy,container-security-context-user-group-id
{{- end -}}
