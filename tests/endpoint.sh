#!/usr/bin/env bash
# Assesses a real endpoint with `oscap` and with Muster and compares them: a Debian root made by debootstrap with services that
# content asks about, booted by systemd-nspawn. Prints a line for each step, and a table of what each costs.
# Nothing reaches the machine itself: the root has a network, mounts and processes of its own, and /proc/sys is read-only in it.
# usage: tests/endpoint.sh [THE muster PROGRAM]                (default: target/release/muster)
#   MUSTER_ENDPOINT_DIR=DIR     where the root is kept from one run to the next (default: target/endpoint)
#   MUSTER_ENDPOINT_CONTENT=DIR data streams *-ds.xml to take instead of Debian's packages ssg-debian and ssg-debderived
#   MUSTER_ENDPOINT_FILES=N     also with so many files below /srv/many (default: 0)
#   MUSTER_ENDPOINT_WRITABLE=N  also with so many files that anybody may write (default: 0)
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/muster}")
directory=$(realpath -m "${MUSTER_ENDPOINT_DIR:-target/endpoint}")
root=$directory/root
packages=systemd,systemd-sysv,dbus,openssh-server,auditd,rsyslog,nftables,ufw,aide,chrony,sudo,linux-base,libpam-pwquality,cron,logrotate,procps,iproute2,kmod,acl,apparmor,netbase,openscap-scanner,openscap-utils,time

skip() {
  echo "SKIPPED, NOT PASSED: a real endpoint, compared with oscap: $1" >&2
  [ -z "${MUSTER_REQUIRE_ENDPOINT:-}" ] || exit 1
  exit 0
}
[ -x "$program" ] || { echo "there is no program $program: cargo build --release --bin muster" >&2; exit 64; }
[ "$(id -u)" = 0 ] || skip "only root boots it"
for needed in debootstrap systemd-nspawn nsenter python3; do
  command -v "$needed" >/dev/null || skip "there is no $needed"
done

began=$(date +%s%N)
step() {
  now=$(date +%s%N)
  printf '%6.1f s  %s\n' "$(((now - began) / 100000000))e-1" "$*"
}

mkdir -p "$directory"
exec 9>"$directory/lock"
flock -n 9 || skip "$directory is in use"
if ! [ -e "$directory/made" ]; then
  rm -rf "$root"
  debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$directory/debootstrap.log" 2>&1 || {
    tail -n 5 "$directory/debootstrap.log" >&2
    skip "debootstrap cannot make a root"
  }
  touch "$directory/made"
  step "a Debian 12 root, $(du -sh "$root" | cut -f1)"
fi

work=$root/var/tmp/assess
rm -rf "$work" "$root/srv/many" "$root/srv/writable"
mkdir -p "$work"
cp "$program" "$work/muster"
content=${MUSTER_ENDPOINT_CONTENT:-/usr/share/xml/scap/ssg/content}
streams=()
for name in debian12 debian11 ubuntu2204; do
  for stream in "$content/ssg-$name-ds.xml" "$content/ssg-$name-ds.xml.xz"; do
    [ -e "$stream" ] || continue
    # Debian 11's content says the same of Debian 12, where there is none for it.
    [ "$name" = debian11 ] && [ ${#streams[@]} -gt 0 ] && continue
    case $stream in *.xz) xz -dc "$stream" ;; *) cat "$stream" ;; esac | python3 tests/endpoint/unplatformed.py >"$work/$name.xml"
    streams+=("$name")
  done
done
[ ${#streams[@]} -gt 0 ] || skip "there are no data streams in $content (packages ssg-debian and ssg-debderived)"

# Before anything runs in it: which units are enabled, from their files.
if command -v systemctl >/dev/null; then
  systemctl --root="$root" list-unit-files --no-legend --no-pager >"$work/units.txt" 2>/dev/null
  OSCAP_PROBE_ROOT=$root "$program" scap oval collect --syschar "$work/units.xml" tests/endpoint/units-oval.xml >/dev/null
  agreed=$(python3 tests/endpoint/units.py "$work/units.txt" "$work/units.xml") || { echo "$agreed" >&2; exit 1; }
  step "$agreed"
fi

systemd-nspawn --boot --directory="$root" --register=no --keep-unit --quiet --private-network </dev/null >"$directory/boot.log" 2>&1 &
nspawn=$!
leader() { pgrep -P "$nspawn" | sed -n 1p; }
finish() {
  # What runs in the root ends with its first process.
  kill -KILL "$(leader)" 2>/dev/null || kill -KILL "$nspawn" 2>/dev/null || true
  wait "$nspawn" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM
inside() { nsenter -t "$(leader)" -m -p -n -u -i -r -w -- "$@"; }
for _ in $(seq 120); do
  sleep 0.5
  # A unit that failed does not keep the others from being looked at.
  state=$([ -n "$(leader)" ] && inside systemctl is-system-running 2>/dev/null || true)
  case $state in running | degraded) break ;; esac
done
case $state in running | degraded) ;; *)
  tail -n 20 "$directory/boot.log" >&2
  skip "the root does not boot here"
  ;;
esac
step "booted, $(inside systemctl list-units --all --plain --no-legend --no-pager | wc -l) units"

# `run NAME COMMAND…` inside; its seconds of the processor and its memory go to NAME.cost.
run() {
  local name=$1
  shift
  inside sh -c "cd /var/tmp/assess && exec time --quiet -o $name.cost -f '%U %S %M' \"\$@\"" sh "$@" >"$work/$name.out" 2>"$work/$name.err" || {
    local code=$?
    # 2 of both: not all rules are met.
    [ "$code" = 2 ] || { tail -n 5 "$work/$name.err"; exit 1; }
  }
}
seconds() { awk '{ printf "%.2f", $1 + $2 }' "$work/$1.cost"; }
costs=()
cost() { # WHAT THEIRS OURS
  costs+=("$(awk -v what="$1" -v their="$(seconds "$2")" -v our="$(seconds "$3")" -v theirs="$(awk '{print $3}' "$work/$2.cost")" -v ours="$(awk '{print $3}' "$work/$3.cost")" \
    'BEGIN { printf "%-44s %9.2f %9.2f %8s %8.0f %8.0f", what, their, our, sprintf("1/%.1f", their / (our ? our : 0.01)), theirs / 1024, ours / 1024 }')")
}

failed=0
compare() { python3 tests/endpoint/compare.py "$@" || failed=1; }
both() { # STREAM SUFFIX WORDS
  run "oscap-$1$2" oscap xccdf eval --profile '(all)' --results-arf "oscap-$1$2.arf" "$1.xml"
  run "muster-$1$2" ./muster scap xccdf eval --profile '(all)' --results-arf "muster-$1$2.arf" "$1.xml"
  step "all rules of $1$3: oscap $(seconds "oscap-$1$2") s, muster $(seconds "muster-$1$2") s of the processor"
  compare rules "$work/oscap-$1$2.arf" "$work/muster-$1$2.arf"
  cost "all rules of $1$3, plan to ARF" "oscap-$1$2" "muster-$1$2"
}
for name in "${streams[@]}"; do
  both "$name" "" ""
done

# The objects of the first stream, as each collects them.
name=${streams[0]}
inside sh -c "cd /var/tmp/assess && mkdir split && oscap ds sds-split $name.xml split" >/dev/null 2>&1
python3 tests/endpoint/variables.py "$work/split"
run oscap-objects oscap oval collect --variables split/variables.xml --syschar oscap.xml split/oval.xml
run muster-objects ./muster scap oval collect --variables split/variables.xml --syschar muster.xml split/oval.xml
step "all objects of $name: oscap $(seconds oscap-objects) s, muster $(seconds muster-objects) s of the processor"
compare objects "$work/oscap.xml" "$work/muster.xml"
cost "all objects of $name, collected" oscap-objects muster-objects

# The same through a whole installation, where its daemons are beside the program.
if [ -x "$(dirname "$program")/muster-pcs-agent" ]; then
  cp "$(dirname "$program")"/muster-{orchestrator,repository,pes-evaluator,pcs-agent} tests/endpoint/system.sh "$work"
  inside bash -c "cd /var/tmp/assess && ./system.sh $name.xml changes" >"$work/system.out" 2>&1 || { tail -n 20 "$work/system.out"; exit 1; }
  step "all rules of $name by an installation of four daemons"
  python3 tests/endpoint/system.py "$work" "$work/oscap-$name.arf" || failed=1
fi

# With more files than a small server has.
if [ -n "${MUSTER_ENDPOINT_FILES:-}" ] && [ "$MUSTER_ENDPOINT_FILES" != 0 ]; then
  python3 tests/endpoint/files.py "$root/srv/many" "$MUSTER_ENDPOINT_FILES" 644
  both "$name" -files ", $MUSTER_ENDPOINT_FILES more files"
  rm -rf "$root/srv/many"
fi
if [ -n "${MUSTER_ENDPOINT_WRITABLE:-}" ] && [ "$MUSTER_ENDPOINT_WRITABLE" != 0 ]; then
  python3 tests/endpoint/files.py "$root/srv/writable" "$MUSTER_ENDPOINT_WRITABLE" 666
  rule=xccdf_org.ssgproject.content_rule_file_permissions_unauthorized_world_writable
  run muster-writable ./muster scap xccdf eval --profile '(all)' --rule "$rule" "$name.xml"
  step "$MUSTER_ENDPOINT_WRITABLE files that anybody may write, one rule: muster $(seconds muster-writable) s of the processor"
  rm -rf "$root/srv/writable"
fi

printf '\n%-44s %9s %9s %8s %8s %8s\n' "" "oscap s" "muster s" "" "MiB" "MiB"
printf '%s\n' "${costs[@]}"
exit "$failed"
