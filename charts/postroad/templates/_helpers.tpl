{{/* The prefix of every object's name: at most 40 characters, so that names made of it fit in 63. */}}
{{- define "postroad.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "postroad.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "postroad.labels" -}}
{{ include "postroad.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: postroad
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "postroad.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "postroad.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Lease that the replicas elect their leader by. */}}
{{- define "postroad.leaseName" -}}
{{- printf "%s-leader" (include "postroad.fullname" .) -}}
{{- end -}}

{{/* An image reference; takes (list root image). */}}
{{- define "postroad.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A CustomResourceDefinition as the crds crate generates it, with what Helm needs; takes (list root file). */}}
{{- define "postroad.crd" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.crds.enabled -}}
{{- $crd := fromYaml ($root.Files.Get (index . 1)) -}}
{{- $labels := dict "app.kubernetes.io/name" "postroad" "app.kubernetes.io/part-of" "postroad" "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $crd.metadata "labels" (merge (default dict $crd.metadata.labels) $labels) -}}
{{- if $root.Values.crds.keep -}}
{{- $_ := set $crd.metadata "annotations" (merge (default dict $crd.metadata.annotations) (dict "helm.sh/resource-policy" "keep")) -}}
{{- end -}}
{{- toYaml $crd }}
{{- end -}}
{{- end -}}

{{/* What the operator may do with the objects it serves: in every namespace (ClusterRole) or in each one named (Role). */}}
{{- define "postroad.operatorRules" -}}
# Reads what people ask for.
- apiGroups: [postroad.dev]
  resources: [relaypools, upstreams]
  verbs: [get, list, watch]
# Puts a finalizer on a pool, so that its deletion waits for queued mail, and takes it away. Nothing else of it is ever changed.
- apiGroups: [postroad.dev]
  resources: [relaypools]
  verbs: [patch]
# Reports what became of it.
- apiGroups: [postroad.dev]
  resources: [relaypools/status, upstreams/status]
  verbs: [get, patch]
# Lists and watches the metadata of Secrets, to see that one has changed; reads the data only of those that a RelayPool or an
# Upstream names; makes, changes and deletes each pool's rendered configuration, <pool>-relay-config.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
# Makes what a pool needs: its pods with their volumes, the DNS name that apps use, an identity without rights, protection
# against node drains. Watches them, so that what is changed by hand is put right and status follows the pods.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Annotates relay pods when their configuration changes: the kubelet then refreshes the mounted Secret at once instead of
# within a minute or two. Pods are never made or deleted directly.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Removes the volume of a relay that was scaled away or whose pool is deleted, after the relay has said that it holds nothing or
# the pool's deletion policy gives its mail up; notes on the claim that it said so before the pod goes.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, patch, delete]
# Tells people about turns in a pool's or an upstream's state; patch raises the count of an Event that repeats.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
