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
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress.enabled needs ingress.hosts: without one its rules answer for every host. Write [daybreak.example.com], or [\"\"] where every host is meant." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "\n\nhttpRoute.enabled needs httpRoute.parentRefs: the Gateways that it belongs to, such as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- include "daybreak.checks.settings" (list "settings" .Values.settings (include "daybreak.settings.elsewhere" . | fromYaml)) -}}
{{- $ofPools := include "daybreak.poolSettings.elsewhere" "poolDefaults" | fromYaml -}}
{{- include "daybreak.checks.settings" (list "poolDefaults.settings" .Values.poolDefaults.settings $ofPools) -}}
{{- $root := . -}}
{{- range $name, $own := .Values.pools -}}
{{- $where := printf "pools.%s" $name -}}
{{- $ofPool := include "daybreak.poolSettings.elsewhere" $where | fromYaml -}}
{{- include "daybreak.checks.settings" (list (printf "%s.settings" $where) (get ($own | default dict) "settings") $ofPool) -}}
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

{{/* Settings that are refused, each with what to do instead: another value says them, or templates hold them fixed. */}}
{{- define "daybreak.settings.elsewhere" -}}
pools: gateways would follow it, and groups would not. Write pools.<pool>.settings, or poolDefaults.settings.
http.host: gateways listen on every address of their pods.
http.port: gateways listen on 8000, as probes and policies have it. What clients see is gateway.service.port.
operator.namespace: the operator keeps the pools of its release's namespace, and has rights in no other.
operator.host: the operator listens on every address of its pod.
operator.liveness_port: it is 8080, as the operator's probes have it.
operator.metrics_port: it is 9090, as monitors and policies have it.
redis.url: write redis.external.
redis.prefix: write redis.prefix, which KEDA's triggers follow too.
redis.sentinels: write redis.external.sentinel.addresses.
redis.sentinel_master: write redis.external.sentinel.master.
redis.sentinel_password: write redis.external.sentinel.existingSecret.
redis.wait_replicas: write redis.external.waitReplicas.
redis.ca_file: write redis.external.tls.caSecret.
redis.cert_file: write redis.external.tls.clientSecret.
redis.key_file: write redis.external.tls.clientSecret.
artifacts.url: write artifacts.url.
artifacts.s3.endpoint_url: write artifacts.s3.endpointUrl, which policies follow too.
artifacts.s3.public_endpoint_url: write artifacts.s3.publicEndpointUrl.
artifacts.s3.region: write artifacts.s3.region.
artifacts.s3.path_style: write artifacts.s3.pathStyle.
artifacts.s3.presign: write artifacts.s3.presign.
{{- end -}}

{{/* The same of a pool: the operator sets these in its pods. Call with where the pool is in the values. */}}
{{- define "daybreak.poolSettings.elsewhere" -}}
workload: write {{ ternary "pools.<pool>" . (eq . "poolDefaults") }}.workload.
model: write {{ . }}.model.
ranks: write {{ . }}.ranks.
groups: write {{ . }}.maxGroups and {{ . }}.minWarm.
drain_s: write {{ . }}.drainSeconds.
device: it follows from {{ . }}.resources.gpus.
cpus_per_rank: write {{ . }}.resources.cpus.
gpus_per_rank: write {{ . }}.resources.gpus.
{{- end -}}

{{/* Call with (list where settings elsewhere). */}}
{{- define "daybreak.checks.settings" -}}
{{- $where := index . 0 -}}{{- $settings := index . 1 -}}
{{- range $path, $instead := index . 2 -}}
{{- $at := $settings | default dict -}}
{{- $found := true -}}
{{- range splitList "." $path -}}
{{- $found = and $found (hasKey $at .) -}}
{{- $at = get $at . | default dict -}}
{{- end -}}
{{- if $found -}}
{{- fail (printf "\n\n%s.%s cannot be set there: %s" $where $path $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
