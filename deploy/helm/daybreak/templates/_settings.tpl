{{/* A pool's values, merged with poolDefaults. Call with (list $ name). */}}
{{- define "daybreak.pool" -}}
{{- $root := index . 0 -}}
{{- toYaml (mergeOverwrite (deepCopy $root.Values.poolDefaults) (deepCopy (index $root.Values.pools (index . 1)))) -}}
{{- end -}}

{{/* A pool's part of the settings file. */}}
{{- define "daybreak.poolSettings" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $pool := fromYaml (include "daybreak.pool" .) -}}
{{- $settings := dict "workload" ($pool.workload | default $name) "ranks" (int $pool.ranks) "drain_s" (int $pool.drainSeconds) -}}
{{- with $pool.kind -}}{{- $_ := set $settings "kind" . -}}{{- end -}}
{{- if eq $pool.kind "online" -}}{{- $_ := set $settings "ports" (include "daybreak.groupPorts" $root) -}}{{- end -}}
{{- with $pool.model -}}{{- $_ := set $settings "model" . -}}{{- end -}}
{{- toYaml (mergeOverwrite $settings (deepCopy ($pool.settings | default dict))) -}}
{{- end -}}

{{/* A pool's part of the settings file, without the settings that only gateways use. A change of such a setting
     restarts the gateways, but replaces no group. */}}
{{- define "daybreak.groupSettings" -}}
{{- $settings := omit (fromYaml (include "daybreak.poolSettings" .)) "routing" "max_queued" "retention_s" -}}
{{- with $settings.sessions -}}
{{- $own := omit . "max_sessions" "session_timeout_s" -}}
{{- $settings = omit $settings "sessions" -}}
{{- with $own -}}{{- $_ := set $settings "sessions" . -}}{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "daybreak.commonSettings" -}}
{{- $s3 := dict -}}
{{- with .Values.artifacts.s3.endpointUrl -}}{{- $_ := set $s3 "endpoint_url" . -}}{{- end -}}
{{- with .Values.artifacts.s3.publicEndpointUrl -}}{{- $_ := set $s3 "public_endpoint_url" . -}}{{- end -}}
{{- with .Values.artifacts.s3.region -}}{{- $_ := set $s3 "region" . -}}{{- end -}}
{{- $_ := set $s3 "path_style" .Values.artifacts.s3.pathStyle -}}
{{- $_ := set $s3 "presign" .Values.artifacts.s3.presign -}}
{{- $redis := fromYaml (include "daybreak.redisSettings" .) -}}
{{- $settings := dict "data_dir" "/tmp/daybreak" "redis" $redis "artifacts" (dict "url" .Values.artifacts.url "s3" $s3) -}}
{{- if .Values.tracing.enabled -}}
{{- $_ := set $settings "tracing" (dict "enabled" true "endpoint" .Values.tracing.endpoint) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The settings file of all processes. It holds only settings that the chart's values set, never a default: during an
     upgrade, pods of the previous version read the file too, and would reject a setting that they do not know. */}}
{{- define "daybreak.settings" -}}
{{- $root := . -}}
{{- $settings := fromYaml (include "daybreak.commonSettings" .) -}}
{{- $_ := set $settings "http" (dict "host" "0.0.0.0" "port" 8000) -}}
{{- if .Values.tracing.enabled -}}
{{- /* The gateway that accepts a submit decides whether to sample it. Groups do not use these two settings, so a
       change of them must not replace groups. */ -}}
{{- $_ := set $settings.tracing "sample_ratio" .Values.tracing.sampleRatio -}}
{{- $_ := set $settings.tracing "max_per_s" .Values.tracing.maxPerSecond -}}
{{- end -}}
{{- $pools := dict -}}
{{- range $name, $_ := .Values.pools -}}
{{- $pool := fromYaml (include "daybreak.pool" (list $root $name)) -}}
{{- /* Gateways show how many GPUs a group has and how many groups a pool may have, even while the pool has none. */ -}}
{{- $shown := dict "groups" (int $pool.maxGroups) -}}
{{- if gt (float64 $pool.resources.gpus) 0.0 -}}
{{- $_ := set $shown "gpus_per_rank" $pool.resources.gpus -}}
{{- else -}}
{{- $_ := set $shown "device" "cpu" -}}
{{- end -}}
{{- $_ := set $pools $name (mergeOverwrite $shown (fromYaml (include "daybreak.poolSettings" (list $root $name)))) -}}
{{- end -}}
{{- $_ := set $settings "pools" $pools -}}
{{- toYaml (mergeOverwrite $settings (deepCopy .Values.settings)) -}}
{{- end -}}
