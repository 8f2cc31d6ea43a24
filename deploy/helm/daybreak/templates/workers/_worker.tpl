{{/* The values of workers, merged with workerDefaults. Call with (list $ name). */}}
{{- define "daybreak.worker" -}}
{{- $root := index . 0 -}}
{{- toYaml (mergeOverwrite (deepCopy $root.Values.workerDefaults) (deepCopy (index $root.Values.workers (index . 1) | default dict))) -}}
{{- end -}}

{{- define "daybreak.workerName" -}}
{{- printf "%s-workers-%s" (include "daybreak.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* Whether KEDA sets the number of these workers: "true" or "false". */}}
{{- define "daybreak.workerScaled" -}}
{{- $worker := fromYaml (include "daybreak.worker" .) -}}
{{- and (eq (include "daybreak.keda" (index . 0)) "true") (kindIs "invalid" $worker.replicas) -}}
{{- end -}}

{{- define "daybreak.workerSelector" -}}
daybreak.dev/workers: {{ index . 1 }}
{{ include "daybreak.selector" (list (index . 0) "worker") }}
{{- end -}}

{{/* The settings file of workers: the part `workers` of the gateways' settings, with what these workers add. */}}
{{- define "daybreak.workerSettings" -}}
{{- $root := index . 0 -}}
{{- $worker := fromYaml (include "daybreak.worker" .) -}}
{{- $settings := mergeOverwrite (deepCopy ($root.Values.settings.workers | default dict)) (deepCopy $worker.settings) -}}
{{- $_ := set $settings "drain_s" (int $worker.drainSeconds) -}}
{{- $file := dict "data_dir" "/tmp/daybreak" "workers" $settings -}}
{{- with $root.Values.settings.log -}}{{- $_ := set $file "log" . -}}{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* Seconds until the kubelet kills a worker: requests end, then engines stop, each after its `stop_s` at the latest. */}}
{{- define "daybreak.workerGrace" -}}
{{- $settings := (fromYaml (include "daybreak.workerSettings" .)).workers -}}
{{- $stop := 15 -}}
{{- range $_, $engine := $settings.engines -}}{{- $stop = max $stop (ceil (get $engine "stop_s" | default 0)) -}}{{- end -}}
{{- add $settings.drain_s $stop 20 -}}
{{- end -}}

{{/* The variable with the token of workers, or empty if the release has no such token. */}}
{{- define "daybreak.workersTokenEnv" -}}
{{- with include "daybreak.workersTokenSecret" . }}
- name: DAYBREAK_WORKERS__TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.workersToken.key }}}
{{- end }}
{{- end -}}
