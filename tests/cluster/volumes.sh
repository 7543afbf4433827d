# shellcheck shell=bash
# volumes.sh: PersistentVolumes in folders of this machine. Both nodes see the same file system, and each volume names both in its
# affinity: it follows its pod to the other node, as a network volume would. Sourced by cluster.sh.

# provide_volumes N : empties what was released, then makes new ones until N are free
provide_volumes() {
  local free phase volume next
  while read -r phase volume; do
    if [ "$phase" = Released ]; then
      kubectl delete persistentvolume "$volume" >/dev/null
      rm -rf "${folder:?}/volumes/$volume"
    fi
  done < <(volume_phases)
  free=$(volume_phases | grep -cE '^(Available|Pending)' || true)
  next=$(cat "$folder/volumes/made" 2>/dev/null || echo 0)
  [ "$free" -lt "$1" ] || return 0
  while [ "$free" -lt "$1" ]; do
    next=$((next + 1)) free=$((free + 1))
    mkdir -p "$folder/volumes/volume-$next"
    # A name is used once: whoever still looks at a released volume shall not see another under the same name.
    echo "$next" >"$folder/volumes/made"
    volume=volume-$next
    fill "$here/manifests/volume.yaml" volume folder
  done | kubectl apply -f - >/dev/null
}

volume_phases() {
  kubectl get persistentvolumes --selector postroad.test/cluster -o jsonpath='{range .items[*]}{.status.phase}{" "}{.metadata.name}{"\n"}{end}'
}
