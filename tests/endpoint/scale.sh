#!/usr/bin/env bash
# What collecting costs beside `oscap` where there is much to look at: half a million files, twenty thousand that match, all rules of a
# benchmark. Both engines look at the same plain chroot in one run (OSCAP_PROBE_ROOT), nothing in it is alive, and what each says is compared.
# Prints a line for each step, then a table: seconds of the processor, seconds by the clock and memory of both, and what was aimed at.
# Exit 1 where a verdict differs that nothing explains; what is missed in the table is told, and no error. Takes half an hour; needs root.
# usage: tests/endpoint/scale.sh [--machine] [THE muster PROGRAM]           (default: target/release/muster)
#   --machine                   also this machine itself, as it is; it is only read
#   MUSTER_ENDPOINT_ROOT=DIR    a Debian root to take a copy of, such as target/endpoint/root (default: one with nearly nothing in it)
#   MUSTER_ENDPOINT_CONTENT=DIR data streams *-ds.xml to take instead of Debian's packages ssg-debian and ssg-debderived
#   MUSTER_SCALE_DIR=DIR        where the chroot is made, and removed at the end (default: /var/tmp)
#   MUSTER_SCALE_FILES=N        files in it (default: 500000)
#   MUSTER_SCALE_MATCHING=N     files that match (default: 20000)
#   MUSTER_SCALE_RULES=N        rules that walk the whole file system, 1 to 5 (default: 4; oscap walks once for each)
#   MUSTER_SCALE_SECONDS=N      the longest that one command may take (default: 3600); with files that match 300
set -euo pipefail
cd "$(dirname "$0")/../.."
is_machine_wanted=""
if [ "${1:-}" = --machine ]; then
  is_machine_wanted=1
  shift
fi
program=$(realpath -m "${1:-target/release/muster}")
files=${MUSTER_SCALE_FILES:-500000}
matching=${MUSTER_SCALE_MATCHING:-20000}
rules=${MUSTER_SCALE_RULES:-4}
deadline=${MUSTER_SCALE_SECONDS:-3600}
matching_deadline=$((deadline < 300 ? deadline : 300))
base=$(realpath -m "${MUSTER_SCALE_DIR:-/var/tmp}")
given=${MUSTER_ENDPOINT_ROOT:-}
content=${MUSTER_ENDPOINT_CONTENT:-/usr/share/xml/scap/ssg/content}

skip() {
  echo "SKIPPED, NOT PASSED: many files, compared with oscap: $1" >&2
  [ -z "${MUSTER_REQUIRE_ENDPOINT:-}" ] || exit 1
  exit 0
}
wrong() {
  echo "$1" >&2
  exit 64
}
[ -x "$program" ] || wrong "there is no program $program: cargo build --release --bins"
for number in "$files" "$matching" "$rules" "$deadline"; do
  [[ $number =~ ^[1-9][0-9]{0,7}$ ]] || wrong "\`$number\` is no number of files, rules or seconds"
done
[ "$rules" -le 5 ] || wrong "there are 5 rules that walk, not $rules"
[ "$matching" -ge 10 ] || wrong "MUSTER_SCALE_MATCHING is at least 10"
[ -z "$given" ] || [ -d "$given/etc" ] || wrong "MUSTER_ENDPOINT_ROOT: $given is no root directory"
[ "$(id -u)" = 0 ] || skip "only root makes files of nobody, and reads all"
for needed in oscap python3 awk; do
  command -v "$needed" >/dev/null || skip "there is no $needed"
done
mkdir -p "$base"
left=$(df --output=iavail "$base" | tail -n 1)
[ "${left//[!0-9]/}" = "" ] || [ "$left" -eq 0 ] || [ "$left" -gt $((files + matching + 100000)) ] || skip "$base has room for $left files"

work=$(mktemp -d "$base/muster-scale.XXXXXX")
root=$work/root
running=""
finish() {
  # What measures ends what it runs.
  [ -z "$running" ] || kill "$running" 2>/dev/null || true
  [ -z "$running" ] || wait "$running" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

began=$(date +%s%N)
step() {
  now=$(date +%s%N)
  printf '%6.1f s  %s\n' "$(((now - began) / 100000000))e-1" "$*"
}
helper() { python3 tests/endpoint/scale.py "$@"; }
# In the background: a signal ends a wait, and would not end a command.
waited() {
  "$@" &
  running=$!
  local code=0
  wait "$running" || code=$?
  running=""
  return "$code"
}

# `run NAME SECONDS COMMAND…`: what it takes goes to NAME.cost.
run() {
  local name=$1 seconds=$2
  shift 2
  waited python3 tests/endpoint/scale.py measure "$seconds" "$work/$name.cost" "$@" >"$work/$name.out" 2>"$work/$name.err"
  # 2 of both: not all rules are met.
  case $(field "$name" 5) in 0 | 2 | late) ;; *)
    tail -n 5 "$work/$name.err" >&2
    echo "FAILED: $name ended with $(field "$name" 5)" >&2
    exit 1
    ;;
  esac
}
field() { cut -d' ' -f"$2" "$work/$1.cost"; }
is_late() { [ "$(field "$1" 5)" = late ]; }
took() { awk '{ printf "%s%.2f", $5 == "late" ? "more than " : "", $1 + $2 }' "$work/$1.cost"; }

costs=()
cost() { # WHAT NAME TARGET                        of a target `1/N`, `N s`, `N MiB` or none
  costs+=("$(cat "$work/oscap-$2.cost" "$work/muster-$2.cost" | awk -v what="$1" -v target="$3" '
    { cpu[NR] = $1 + $2; wall[NR] = $3; mib[NR] = $4 / 1024; late[NR] = $5 == "late" }
    END {
      ratio = cpu[1] / (cpu[2] > 0.01 ? cpu[2] : 0.01)
      split(target, word, /[ \/]/)
      is_met = target ~ /^1\// ? ratio >= word[2] : target ~ / s$/ ? cpu[2] < word[1] : mib[2] < word[1]
      # Who was cut off would have taken more.
      if (late[2] || (late[1] && target ~ /^1\// && !is_met)) said = late[2] ? "missed" : "open"
      else said = is_met ? "met" : "missed"
      printf "%-48s %9s %9s %8s  %-7s %-6s %8s %8s %7.0f %7.0f", what, (late[1] ? ">" : "") sprintf("%.2f", cpu[1]), (late[2] ? ">" : "") sprintf("%.2f", cpu[2]),
        sprintf("1/%.1f", ratio), target, target == "" ? "" : said, sprintf("%.1f", wall[1]), sprintf("%.1f", wall[2]), mib[1], mib[2]
    }')")
}

failed=0
compare() { helper "$@" || failed=1; }
both() { # NAME SECONDS OPTION WORDS…              `oscap WORDS` and `muster scap WORDS`, with the results where OPTION says
  local name=$1 seconds=$2 option=$3 module=$4 command=$5
  shift 5
  run "oscap-$name" "$seconds" oscap "$module" "$command" "$option" "$work/oscap-$name.xml" "$@"
  run "muster-$name" "$seconds" "$program" scap "$module" "$command" "$option" "$work/muster-$name.xml" "$@"
  step "$name: oscap $(took "oscap-$name") s, muster $(took "muster-$name") s of the processor"
  ! is_late "muster-$name" || { echo "  muster was not done in $seconds s"; failed=1; }
  ! is_late "oscap-$name" || echo "  oscap was not done in $seconds s"
}
is_answered() { ! is_late "oscap-$1" && ! is_late "muster-$1"; }
both_rules() { # NAME WHAT TARGET COMPARE…         all rules of the stream
  local name=$1 what=$2 target=$3
  shift 3
  both "$name" "$deadline" --results-arf xccdf eval --profile '(all)' "$stream"
  ! is_answered "$name" || compare "$@" "$work/oscap-$name.xml" "$work/muster-$name.xml"
  cost "$what" "$name" "$target"
}

stream=""
for name in debian12 debian11 ubuntu2204; do
  for found in "$content/ssg-$name-ds.xml" "$content/ssg-$name-ds.xml.xz"; do
    if [ -n "$stream" ] || ! [ -e "$found" ]; then continue; fi
    stream=$work/$name.xml
    case $found in *.xz) xz -dc "$found" ;; *) cat "$found" ;; esac | python3 tests/endpoint/unplatformed.py >"$stream"
  done
done
[ -n "$stream" ] || echo "LEFT OUT: all rules of a benchmark: there are no data streams in $content (packages ssg-debian and ssg-debderived)" >&2
helper content "$work" "$rules"

mkdir -p "$root/etc" "$root/srv" "$root/usr/bin"
if [ -n "$given" ]; then
  waited cp -a --one-file-system "$given/." "$root"
  # What tests/endpoint.sh leaves there.
  rm -rf "$root/var/tmp/assess" "$root/srv/many" "$root/srv/writable"
else
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
fi
rm -rf "$root/srv/scale" "$root/srv/matching"
export OSCAP_PROBE_ROOT=$root
step "a plain chroot, $(du -sh "$root" | cut -f1)${given:+, a copy of $given}"

if [ -n "$stream" ]; then
  both_rules all "all rules, plan to ARF" 1/8 rules --offline
fi

waited python3 tests/endpoint/scale.py matching "$root/srv/matching" "$matching"
both filtered "$matching_deadline" --results oval eval "$work/filtered.xml"
! is_answered filtered || compare definitions "$work/oscap-filtered.xml" "$work/muster-filtered.xml"
cost "$matching files match, filters leave three" filtered "10 s"
both existing "$matching_deadline" --results oval eval "$work/existing.xml"
if is_answered existing; then
  compare definitions "$work/oscap-existing.xml" "$work/muster-existing.xml"
elif ! is_late muster-existing; then
  compare definitions "$work/muster-existing.xml"
fi
cost "$matching files match, whether there are any" existing "10 s"
rm -rf "$root/srv/matching"

waited python3 tests/endpoint/scale.py tree "$root/srv/scale" "$files"
step "$files files in $(find "$root/srv/scale" -type d | wc -l) directories"
both walks "$deadline" --results-arf xccdf eval "$work/benchmark.xml"
! is_answered walks || compare items "$work/oscap-walks.xml" "$work/muster-walks.xml"
cost "$rules rules that walk $files files" walks 1/40
if [ -n "$stream" ]; then
  both_rules files "all rules, with $files files" 1/40 rules --offline
fi

# The collector itself, where the daemons are beside the program. It reads no content, and makes no document of what it found.
agent=""
if [ -n "$stream" ] && [ -x "$(dirname "$program")/muster-pcs-agent" ]; then
  mkdir "$work/system"
  cp "$program" "$(dirname "$program")"/muster-{orchestrator,repository,pes-evaluator,pcs-agent} tests/endpoint/system.sh "$work/system"
  cp "$stream" "$work/system/stream.xml"
  run system "$deadline" env MUSTER_ROOT="$root" sh -c "cd '$work/system' && exec ./system.sh stream.xml"
  step "all rules, with $files files, by an installation of four daemons"
  compare installation "$work/system/system.json" "$work/muster-files.xml"
  agent=$(awk '{ printf "its collector: %.1f MiB idle, %.1f MiB at most; aim: under 48 MiB, %s", $1 / 1024, $2 / 1024, $2 / 1024 < 48 ? "met" : "missed" }' "$work/system/system.cost")
fi

if [ -n "$is_machine_wanted" ]; then
  unset OSCAP_PROBE_ROOT
  if [ -n "$stream" ]; then
    # What was made is not looked at.
    rm -rf "$root"
    both_rules machine "all rules, this machine" 1/8 rules
  else
    echo "LEFT OUT: this machine: there is no benchmark" >&2
  fi
fi

printf '\n%-48s %9s %9s %8s  %-7s %-6s %8s %8s %7s %7s\n' "" "oscap s" "muster s" "" "aim" "" "clock s" "clock s" "MiB" "MiB"
printf '%s\n' "${costs[@]}"
[ -z "$agent" ] || echo "$agent"
exit "$failed"
