#!/bin/bash
# Runs in the endpoint: the four daemons as processes of their own, and all rules of a data stream. Leaves the verdicts in system.json,
# and what the collector took in system.cost: KiB idle, and KiB at most.
# usage: system.sh STREAM.xml           (in the directory with the programs)
set -euo pipefail
stream=$1
here=$PWD
export MUSTER_DATA=$here/orchestrator MUSTER_LOG=warn
rm -rf orchestrator repository pes-evaluator pcs-agent join
pids=()
finish() {
  kill "${pids[@]}" 2>/dev/null || true
  # What is measured next has the processor to itself.
  wait "${pids[@]}" 2>/dev/null || true
}
trap finish EXIT
./muster-orchestrator --listen 127.0.0.1:18883 --join-tokens "$here/join" &
pids+=($!)
for daemon in repository pes-evaluator pcs-agent; do
  "./muster-$daemon" --data "$here/$daemon" --join-token-file "$here/join/$daemon/token" &
  pids+=($!)
done
collector=${pids[3]}

eventually() { # SECONDS COMMAND…
  local left=$(($1 * 5))
  shift
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "not in time: $*" >&2; exit 1; }
    sleep 0.2
  done
}
is_active() { ./muster status 2>/dev/null | grep -q '^components *3 active'; }
kib() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$collector/status"; }

eventually 60 is_active
sleep 1
idle=$(kib VmRSS)
./muster policy import "$stream" >/dev/null
policy=$(basename "$stream" .xml)
code=0
./muster evaluate --policy "$policy" --profile '(all)' >/dev/null || code=$?
[ "$code" = 0 ] || [ "$code" = 2 ]
./muster results -o json >system.json
echo "$idle $(kib VmHWM)" >system.cost
