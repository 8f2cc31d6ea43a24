{{/* KubeRay's RayClusterSpec of a pool, without what the operator sets: replicas, hosts, suspension, the pool's
     environment variables, probes. Any change here replaces the pool's groups one by one. */}}
{{- define "daybreak.rayCluster" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $pool := fromYaml (include "daybreak.pool" .) -}}
annotations:
  # Groups read their settings only when they start. This hash changes with the settings, so that the operator
  # replaces the groups.
  daybreak.dev/settings: {{ printf "%s\n%s" (include "daybreak.commonSettings" $root) (include "daybreak.groupSettings" .) | sha256sum }}
spec:
  rayVersion: {{ $root.Values.ray.version | quote }}
  authOptions:
    mode: token
    secretName: {{ include "daybreak.rayTokenSecret" $root }}
  headGroupSpec:
    rayStartParams: {{- toYaml $pool.head.rayStartParams | nindent 6 }}
    template:
      {{- include "daybreak.rayPod" (list $root $pool $pool.head "ray-head") | nindent 6 }}
  workerGroupSpecs:
    - rayStartParams: {{- toYaml $pool.worker.rayStartParams | nindent 8 }}
      template:
        {{- include "daybreak.rayPod" (list $root $pool $pool.worker "ray-worker") | nindent 8 }}
{{- end -}}

{{- define "daybreak.rayPod" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}{{- $of := index . 2 -}}{{- $container := index . 3 -}}
metadata:
  labels: {{- include "daybreak.rayLabels" $root | nindent 4 }}
  {{- with $of.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "daybreak.serviceAccount" (list $root "ray") }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {{- include "daybreak.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "daybreak.placement" $of | nindent 2 }}
  {{- with $of.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ $container }}
      image: {{ include "daybreak.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env:
        - name: RAY_USAGE_STATS_ENABLED
          value: "0"
        {{- include "daybreak.env" $root | nindent 8 }}
        {{- if $pool.cache.volume }}
        # The head needs this too: when Serve builds an application, it reads the settings on the head, and passes them to the
        # ranks.
        - name: DAYBREAK_MODEL_CACHE
          value: {{ $pool.cache.mountPath }}
        {{- end }}
        {{- with $of.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $of.resources }}
      resources: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "daybreak.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        {{- include "daybreak.mounts" $root | nindent 8 }}
        {{- if and $pool.cache.volume (eq $container "ray-worker") }}
        - name: cache
          mountPath: {{ $pool.cache.mountPath }}
        {{- end }}
        {{- with $of.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "daybreak.volumes" $root | nindent 4 }}
    {{- if and $pool.cache.volume (eq $container "ray-worker") }}
    - name: cache
      {{- toYaml $pool.cache.volume | nindent 6 }}
    {{- end }}
    {{- with $of.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
