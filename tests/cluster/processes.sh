# shellcheck shell=bash
# processes.sh: starting, finding and ending what a cluster consists of. Sourced by cluster.sh.

# is_alive CGROUP PID_FILE : the process runs, and in that control group: numbers are given out again, to strangers
is_alive() { [ -s "$2" ] && grep -qxF "$(<"$2")" "$cgroup_root/$naming_hierarchy/$1/cgroup.procs" 2>/dev/null; }

daemon_is_alive() { is_alive "$name-control-plane" "$control/$1.pid"; }

# start_daemon PART COMMAND... : runs on by itself, in the control group of the control plane; its output goes to PART.log
start_daemon() {
  local part=$1
  shift
  (
    echo "$BASHPID" >"$cgroup_root/$naming_hierarchy/$name-control-plane/cgroup.procs"
    echo "$BASHPID" >"$control/$part.pid"
    exec setsid "$@"
  ) >"$control/$part.log" 2>&1 </dev/null 9>&- &
}

kill_daemon() {
  ! daemon_is_alive "$1" || kill -KILL "$(<"$control/$1.pid")"
  rm -f "$control/$1.pid"
}

# cgroups PART : the control groups of a part (control-plane, node1, …; a pattern of find), the deepest first
cgroups() {
  local hierarchy
  for hierarchy in $cgroup_hierarchies; do
    find "$cgroup_root/$hierarchy" -mindepth 1 -maxdepth 1 -type d -name "$name-$1" -exec find {} -depth -type d \; 2>/dev/null || true
  done
}

# remove_cgroups PART : ends every process in them, then removes them. Not by process numbers: a run that was killed may not have
# written them down.
remove_cgroups() { await 90 "the end of the processes of $name-$1" try_to_remove_cgroups "$1"; }

try_to_remove_cgroups() {
  local group
  for group in $(cgroups "$1"); do
    rmdir "$group" 2>/dev/null || xargs -r kill -KILL <"$group/cgroup.procs" 2>/dev/null || true
  done
  [ -z "$(cgroups "$1")" ]
}
