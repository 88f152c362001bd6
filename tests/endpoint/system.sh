#!/bin/bash
# Runs in the endpoint: the four daemons as processes of their own, and all rules of a data stream. Leaves the verdicts in system.json,
# what the collector took in system.cost: KiB idle, and KiB at most; with `changes`, in a container alone, changes the mode of /etc/passwd again and
# again, and leaves in system.changes how many milliseconds it took until each verdict could be read.
# usage: system.sh STREAM.xml [changes]           (in the directory with the programs)
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
  local left=$(($1 * 20))
  shift
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "not in time: $*" >&2; exit 1; }
    sleep 0.05
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

[ "${2:-}" = changes ] || exit 0
# Never on the machine itself, nor below a root that somebody else looks at.
if [ -n "${MUSTER_ROOT:-}" ] || [ "$(cat /run/systemd/container 2>/dev/null)" != systemd-nspawn ]; then
  echo "not in a root that was booted by systemd-nspawn: nothing is changed here" >&2
  exit 1
fi

# The same policy, evaluated whenever something changes that it reads.
./muster policy assign all --policy "$policy" --profile '(all)' --on-change >/dev/null
passes() { ./muster results -o csv | grep content_rule_file_permissions_etc_passwd, | grep -q ",$1,"; }
milliseconds() { date +%s%3N; }
# The collector begins to watch, and says once what there is.
chmod 666 /etc/passwd
eventually 60 passes fail
: >system.changes
for turn in 644:pass 666:fail 644:pass 666:fail 644:pass 666:fail 644:pass 666:fail 644:pass; do
  sleep 1
  before=$(milliseconds)
  chmod "${turn%:*}" /etc/passwd
  eventually 30 passes "${turn#*:}"
  echo $(($(milliseconds) - before)) >>system.changes
done
