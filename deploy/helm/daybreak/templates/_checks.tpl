{{/* What no schema can say: values that must fit each other. Each failure says what to write instead. */}}
{{- define "daybreak.checks" -}}
{{- if not .Values.artifacts.url -}}
{{- fail "\n\nartifacts.url is not set: results need a place. Write --set artifacts.url=s3://bucket/prefix (and artifacts.s3.existingSecret, or annotations of serviceAccounts.gateway and serviceAccounts.ray)." -}}
{{- end -}}
{{- if and (hasPrefix "file://" .Values.artifacts.url) (not .Values.artifacts.volume) -}}
{{- fail "\n\nartifacts.url is a folder, and artifacts.volume is not set: gateway and ranks must share a volume, such as {persistentVolumeClaim: {claimName: results}}." -}}
{{- end -}}
{{- with .Values.redis -}}
{{- if and (not .enabled) (not .external.host) (not .external.sentinel.addresses) -}}
{{- fail "\n\nredis.enabled is false, and redis.external names no server: set redis.external.host, or redis.external.sentinel.addresses." -}}
{{- end -}}
{{- if and .enabled (or .external.host .external.sentinel.addresses) -}}
{{- fail "\n\nredis.external is set, and so is redis.enabled: set redis.enabled=false to use the external one." -}}
{{- end -}}
{{- if and .external.username (not .external.existingSecret) -}}
{{- fail "\n\nredis.external.username is set without a password: name its Secret in redis.external.existingSecret." -}}
{{- end -}}
{{- if and (not .external.tls.enabled) (or .external.tls.caSecret .external.tls.clientSecret) -}}
{{- fail "\n\nredis.external.tls has certificates but is not enabled: set redis.external.tls.enabled=true." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "\n\nhttpRoute.enabled needs httpRoute.parentRefs: the Gateways that it belongs to, such as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.pools -}}
{{- $pool := fromYaml (include "daybreak.pool" (list $root $name)) -}}
{{- if mod (int $pool.ranks) (int $pool.hostsPerGroup) -}}
{{- fail (printf "\n\npools.%s: hostsPerGroup (%v) must divide ranks (%v): each host of a group carries as many ranks as the others." $name $pool.hostsPerGroup $pool.ranks) -}}
{{- end -}}
{{- if gt (int $pool.minWarm) (int $pool.maxGroups) -}}
{{- fail (printf "\n\npools.%s: minWarm (%v) is more than maxGroups (%v)." $name $pool.minWarm $pool.maxGroups) -}}
{{- end -}}
{{- if and (gt (float64 $pool.resources.gpus) 1.0) (ne (float64 $pool.resources.gpus) (floor $pool.resources.gpus)) -}}
{{- fail (printf "\n\npools.%s: resources.gpus (%v) is a part of one GPU or a whole number of them." $name $pool.resources.gpus) -}}
{{- end -}}
{{- end -}}
{{- end -}}
