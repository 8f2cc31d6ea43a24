{{/* Whether to render KEDA's objects: from `keda.enabled`, or from what the cluster has. */}}
{{- define "daybreak.keda" -}}
{{- if kindIs "bool" .Values.keda.enabled -}}
{{- .Values.keda.enabled -}}
{{- else -}}
{{- .Capabilities.APIVersions.Has "keda.sh/v1alpha1" -}}
{{- end -}}
{{- end -}}

{{/* Whether Prometheus can reach the metrics of the operator and of Ray: "true", or nothing. Gateways have rules of their
     own. */}}
{{- define "daybreak.podsScraped" -}}
{{- if or (not .Values.networkPolicy.enabled) .Values.networkPolicy.monitoring.from -}}
true
{{- end -}}
{{- end -}}

{{/* Whether the cluster's CRD of GeneratorPool differs from the chart's: "true" or "false". Helm installs what is in
     crds/ and never updates it. */}}
{{- define "daybreak.staleCrd" -}}
{{- if .Values.crds.upgrade -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "generatorpools.daybreak.dev" -}}
{{- $wanted := (.Files.Get "crds/generatorpools.yaml" | fromYaml).metadata.annotations -}}
{{- $has := dig "metadata" "annotations" "daybreak.dev/definition" "" ($found | default dict) -}}
{{- and (not (empty $found)) (ne $has (index $wanted "daybreak.dev/definition")) -}}
{{- else -}}
false
{{- end -}}
{{- end -}}

{{- define "daybreak.crdHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
