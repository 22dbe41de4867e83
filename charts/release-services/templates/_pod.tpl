{{- /* What both services' pods have in common: given the root as .root and the service's values as .service. */ -}}
{{- define "pod.metadata" -}}
labels:
  app: {{ .service.name }}
  app.kubernetes.io/part-of: ratchet
annotations:
  ratchet.dev/settings: {{ list .root.Values.lake .root.Values.config | toJson | sha256sum }} # read once, at the start
{{- end }}

{{- define "pod.spec" -}}
serviceAccountName: {{ .service.serviceAccount.name }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: settings
    configMap: {name: ratchet-config}
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
{{- end }}

{{- define "pod.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  - name: RATCHET_LAKE
    valueFrom: {configMapKeyRef: {name: ratchet-config, key: lake}}
  - {name: RATCHET_CONFIG, value: /etc/ratchet/ratchet.yaml}
  - {name: HOME, value: /tmp}
resources: {{- toYaml .service.resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: settings, mountPath: /etc/ratchet, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}
