{{/* Checks that no schema can express: values that must fit each other. Each error says what to write instead. */}}
{{- define "daybreak.checks" -}}
{{- if not .Values.artifacts.url -}}
{{- fail "\n\nartifacts.url is not set: results must be stored somewhere. Write --set artifacts.url=s3://bucket/prefix (and artifacts.s3.existingSecret, or annotations of serviceAccounts.gateway and serviceAccounts.ray)." -}}
{{- end -}}
{{- if and (hasPrefix "file://" .Values.artifacts.url) (not .Values.artifacts.volume) -}}
{{- fail "\n\nartifacts.url is a folder, but artifacts.volume is not set: gateway and ranks must share a volume, such as {persistentVolumeClaim: {claimName: results}}." -}}
{{- end -}}
{{- with .Values.redis -}}
{{- if and (not .enabled) (not .external.host) (not .external.sentinel.addresses) -}}
{{- fail "\n\nredis.enabled is false, but redis.external names no server: set redis.external.host, or redis.external.sentinel.addresses." -}}
{{- end -}}
{{- if and .enabled (or .external.host .external.sentinel.addresses) -}}
{{- fail "\n\nredis.external and redis.enabled are both set: set redis.enabled=false to use the external server." -}}
{{- end -}}
{{- if and .external.username (not .external.existingSecret) -}}
{{- fail "\n\nredis.external.username is set without a password: name its Secret in redis.external.existingSecret." -}}
{{- end -}}
{{- if and (not .external.tls.enabled) (or .external.tls.caSecret .external.tls.clientSecret) -}}
{{- fail "\n\nredis.external.tls has certificates but is not enabled: set redis.external.tls.enabled=true." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress.enabled needs ingress.hosts: without one its rules answer for every host. Write [daybreak.example.com], or [\"\"] for every host." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "\n\nhttpRoute.enabled needs httpRoute.parentRefs: name its Gateways, such as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- if and .Values.tracing.enabled (not .Values.tracing.endpoint) -}}
{{- fail "\n\ntracing.enabled needs tracing.endpoint: write the collector's address for OTLP over HTTP, such as http://otel-collector.monitoring.svc:4318." -}}
{{- end -}}
{{- if hasSuffix "/v1/traces" (trimSuffix "/" .Values.tracing.endpoint) -}}
{{- fail "\n\ntracing.endpoint ends in /v1/traces, which Daybreak adds: remove it." -}}
{{- end -}}
{{- include "daybreak.checks.settings" (list "settings" .Values.settings (include "daybreak.settings.elsewhere" . | fromYaml)) -}}
{{- $ofPools := include "daybreak.poolSettings.elsewhere" "poolDefaults" | fromYaml -}}
{{- include "daybreak.checks.settings" (list "poolDefaults.settings" .Values.poolDefaults.settings $ofPools) -}}
{{- $ofWorkers := include "daybreak.workerSettings.elsewhere" "workerDefaults" | fromYaml -}}
{{- include "daybreak.checks.settings" (list "workerDefaults.settings" .Values.workerDefaults.settings $ofWorkers) -}}
{{- include "daybreak.checks.workers" . -}}
{{- $root := . -}}
{{- range $name, $own := .Values.pools -}}
{{- $where := printf "pools.%s" $name -}}
{{- $ofPool := include "daybreak.poolSettings.elsewhere" $where | fromYaml -}}
{{- include "daybreak.checks.settings" (list (printf "%s.settings" $where) (get ($own | default dict) "settings") $ofPool) -}}
{{- $pool := fromYaml (include "daybreak.pool" (list $root $name)) -}}
{{- if mod (int $pool.ranks) (int $pool.hostsPerGroup) -}}
{{- fail (printf "\n\npools.%s: hostsPerGroup (%v) must divide ranks (%v): every host of a group runs the same number of ranks." $name $pool.hostsPerGroup $pool.ranks) -}}
{{- end -}}
{{- if and $pool.targetLoad (not (has $pool.kind (list "online" "sessions"))) -}}
{{- fail (printf "\n\npools.%s: targetLoad (%v) is only for pools that answer requests or hold sessions: remove it, or set kind to online or sessions." $name $pool.targetLoad) -}}
{{- end -}}
{{- if and (eq $pool.kind "sessions") (ne (int $pool.ranks) 1) -}}
{{- fail (printf "\n\npools.%s: ranks (%v) must be 1: a group that holds sessions has one rank." $name $pool.ranks) -}}
{{- end -}}
{{- if gt (int $pool.minWarm) (int $pool.maxGroups) -}}
{{- fail (printf "\n\npools.%s: minWarm (%v) is greater than maxGroups (%v)." $name $pool.minWarm $pool.maxGroups) -}}
{{- end -}}
{{- if and (gt (float64 $pool.resources.gpus) 1.0) (ne (float64 $pool.resources.gpus) (floor $pool.resources.gpus)) -}}
{{- fail (printf "\n\npools.%s: resources.gpus (%v) must be a fraction of one GPU or a whole number of GPUs." $name $pool.resources.gpus) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings that are rejected in the settings of workers, each with what to do instead: gateways use them, or another
     value sets them. Call with the workers' path in the values. */}}
{{- define "daybreak.workerSettings.elsewhere" -}}
token: write workersToken.existingSecret.
drain_s: write {{ . }}.drainSeconds, from which the pod's grace period follows.
allowed_networks: gateways use it. Write settings.workers.allowed_networks.
heartbeat_s: gateways use it. Write settings.workers.heartbeat_s.
lease_s: gateways use it. Write settings.workers.lease_s.
idle_s: gateways use it. Write settings.workers.idle_s.
{{- end -}}

{{- define "daybreak.checks.workers" -}}
{{- $scaled := list -}}
{{- range $name, $own := .Values.workers -}}
{{- $where := printf "workers.%s" $name -}}
{{- $elsewhere := include "daybreak.workerSettings.elsewhere" $where | fromYaml -}}
{{- include "daybreak.checks.settings" (list (printf "%s.settings" $where) (get ($own | default dict) "settings") $elsewhere) -}}
{{- $worker := fromYaml (include "daybreak.worker" (list $ $name)) -}}
{{- if not $worker.image -}}
{{- fail (printf "\n\n%s.image is not set: write the image of the engine, such as vllm/vllm-openai:v0.11.0." $where) -}}
{{- end -}}
{{- if gt (int $worker.minReplicas) (int $worker.maxReplicas) -}}
{{- fail (printf "\n\n%s: minReplicas (%v) is greater than maxReplicas (%v)." $where $worker.minReplicas $worker.maxReplicas) -}}
{{- end -}}
{{- if eq (include "daybreak.workerScaled" (list $ $name)) "true" -}}{{- $scaled = append $scaled $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $scaled) 1 -}}
{{- fail (printf "\n\nworkers: KEDA can scale only one of %s, because the number of workers that the models need is one number for all. Set replicas of the others." (join ", " $scaled)) -}}
{{- end -}}
{{- end -}}

{{/* Settings that are rejected, each with what to do instead: another value sets them, or the templates fix them. */}}
{{- define "daybreak.settings.elsewhere" -}}
pools: gateways would use it, but groups would not. Write pools.<pool>.settings, or poolDefaults.settings.
http.host: gateways listen on every address of their pods.
http.port: gateways listen on 8000, which probes and policies use. Clients use gateway.service.port.
operator.namespace: the operator manages the pools of its release's namespace, and has no permissions in any other.
operator.host: the operator listens on every address of its pod.
operator.liveness_port: it is 8080, which the operator's probes use.
operator.metrics_port: it is 9090, which monitors and policies use.
redis.url: write redis.external.
redis.prefix: write redis.prefix, which KEDA's triggers use too.
redis.sentinels: write redis.external.sentinel.addresses.
redis.sentinel_master: write redis.external.sentinel.master.
redis.sentinel_password: write redis.external.sentinel.existingSecret.
redis.wait_replicas: write redis.external.waitReplicas.
redis.ca_file: write redis.external.tls.caSecret.
redis.cert_file: write redis.external.tls.clientSecret.
redis.key_file: write redis.external.tls.clientSecret.
artifacts.url: write artifacts.url.
artifacts.s3.endpoint_url: write artifacts.s3.endpointUrl, which policies use too.
artifacts.s3.public_endpoint_url: write artifacts.s3.publicEndpointUrl.
artifacts.s3.region: write artifacts.s3.region.
artifacts.s3.path_style: write artifacts.s3.pathStyle.
artifacts.s3.presign: write artifacts.s3.presign.
tracing.enabled: write tracing.enabled.
tracing.endpoint: write tracing.endpoint, which policies use too.
tracing.sample_ratio: write tracing.sampleRatio.
tracing.max_per_s: write tracing.maxPerSecond.
tracing.headers_file: write tracing.existingSecret.
workers.token: write workersToken.existingSecret.
workers.drain_s: write workerDefaults.drainSeconds.
{{- end -}}

{{/* Settings of a pool that the operator sets in its pods. Call with the pool's path in the values. */}}
{{- define "daybreak.poolSettings.elsewhere" -}}
workload: write {{ ternary "pools.<pool>" . (eq . "poolDefaults") }}.workload.
kind: write {{ . }}.kind, which triggers and policies use too.
model: write {{ . }}.model.
ranks: write {{ . }}.ranks.
target_load: write {{ . }}.targetLoad.
ports: groups listen on ports that the policies open.
groups: write {{ . }}.maxGroups and {{ . }}.minWarm.
drain_s: write {{ . }}.drainSeconds.
device: it follows from {{ . }}.resources.gpus.
cpus_per_rank: write {{ . }}.resources.cpus.
gpus_per_rank: write {{ . }}.resources.gpus.
{{- end -}}

{{/* Fails if `settings`, which the values have at the path `where`, contains a setting that `elsewhere` rejects.
     Call with (list where settings elsewhere). */}}
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
