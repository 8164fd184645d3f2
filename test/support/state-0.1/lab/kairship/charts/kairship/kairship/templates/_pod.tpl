{{- /*
Shared by the lab's charts. Both take a dict: root, name, component, registry, and for a Job the
order for its program ("serve" otherwise).
*/}}
{{- define "labels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "pod" -}}
metadata:
  labels: {{- include "labels" . | nindent 4 }}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: {{ ternary "Never" "Always" (hasKey . "order") }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .name "api" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: DoNotSchedule
      labelSelector:
        matchLabels: {{- include "labels" . | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ .registry }}/{{ .component.image.repository }}:{{ .component.image.tag }}
      imagePullPolicy: {{ .root.Values.imagePullPolicy }}
      {{- with .component.command }}
      command: {{- toYaml . | nindent 8 }}
      {{- end }}
      args: {{- concat (list (.order | default "serve")) (.component.extraArgs | default list) | toYaml | nindent 8 }}
      env:
        - name: LOG_LEVEL
          value: {{ .component.logLevel | default "info" | quote }}
      resources: {{- toYaml .root.Values.resources | nindent 8 }}
      {{- if not (hasKey . "order") }}
      readinessProbe:
        httpGet: { path: /, port: 8080 }
        periodSeconds: 1
      {{- end }}
{{- end }}
