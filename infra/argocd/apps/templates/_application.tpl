{{- /*
What all Applications have in common. Takes: root, name, wave, project, namespace, and paths: what its manifests are made
of, besides its own folder, as Argo CD's manifest-generate-paths. A commit that touches none of them renders nothing anew.
*/ -}}
{{- define "application.head" -}}
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: {{ .name }}
  namespace: argocd
  annotations:
    argocd.argoproj.io/sync-wave: {{ .wave | quote }}
    argocd.argoproj.io/manifest-generate-paths: {{ join ";" .paths }}
    # Gone from Git, or renamed, it would take its objects with it: a person says yes first.
    argocd.argoproj.io/sync-options: Prune=confirm,Delete=confirm
  finalizers: [resources-finalizer.argocd.argoproj.io]
spec:
  project: {{ .project }}
  destination: {server: https://kubernetes.default.svc, namespace: {{ .namespace }}}
{{- end -}}

{{- /* Takes more syncOptions. Without `refresh` a retry stays at the commit that failed. */ -}}
{{- define "application.sync" -}}
syncPolicy:
  automated: {prune: true, selfHeal: true}
  retry: {limit: 5, refresh: true}
  syncOptions: {{ toJson (concat (list "ServerSideApply=true") .) }}
{{- end -}}

{{- define "role" -}}
arn:aws:iam::{{ .root.Values.awsAccount }}:role/{{ .root.Values.prefix }}-{{ .role }}
{{- end -}}
