#!/usr/bin/env bash
# The Debian packages and their systemd units on a booted Debian: installed, joined, asked, frozen, misconfigured, upgraded, rolled back,
# removed and purged. Prints a line for each step, with its time. What docs/packages.md says is checked here.
# The root has a network, mounts and processes of its own; what is done to it is thrown away.
# usage: tests/packages.sh [--binaries DIRECTORY WITH THE PROGRAMS]     (default: target/release)
#   MUSTER_PACKAGES_DIR=DIR     where the root is kept from one run to the next (default: target/packages)
#   MUSTER_ENDPOINT_ROOT=DIR    a Debian root to take instead, such as target/endpoint/root; it is only read
set -euo pipefail
cd "$(dirname "$0")/.."
programs=target/release
[ "${1:-}" != --binaries ] || programs=$2
directory=$(realpath -m "${MUSTER_PACKAGES_DIR:-target/packages}")
lower=${MUSTER_ENDPOINT_ROOT:-$directory/lower}
root=$directory/root
packages=systemd,systemd-sysv,dbus,openssh-server,sudo,cron,procps,iproute2,netbase
daemons="orchestrator repository pes-evaluator pcs-agent"
baseline=orchestrator/policies/muster-baseline-linux-ds.xml

skip() {
  echo "SKIPPED, NOT PASSED: packages on a booted Debian: $1" >&2
  [ -z "${MUSTER_REQUIRE_PACKAGES:-}" ] || exit 1
  exit 0
}
for program in muster muster-{orchestrator,repository,pes-evaluator,pcs-agent}; do
  [ -x "$programs/$program" ] || { echo "there is no program $programs/$program: cargo build --release --bins" >&2; exit 64; }
done
[ "$(id -u)" = 0 ] || skip "only root boots it"
for needed in debootstrap systemd-nspawn nsenter dpkg-deb python3; do
  command -v "$needed" >/dev/null || skip "there is no $needed"
done

began=$(date +%s%N)
step() {
  now=$(date +%s%N)
  printf '%6.1f s  %s\n' "$(((now - began) / 100000000))e-1" "$*"
  began=$(date +%s%N)
}
fail() { echo "FAILED: $*" >&2; exit 1; }
quiet() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }; }

mkdir -p "$directory"
exec 9>"$directory/lock"
flock -n 9 || skip "$directory is in use"
work=$(mktemp -d "$directory/work.XXXXXX")
nspawn=""
leader() { pgrep -P "$nspawn" | sed -n 1p; }
inside() { nsenter -t "$(leader)" -m -p -n -u -i -r -w -- "$@"; }
finish() {
  code=$?
  if [ -n "$nspawn" ] && [ "$code" != 0 ]; then
    inside systemctl --no-pager --lines=0 status 'muster-*' >&2 || true
    inside journalctl --no-pager -n 40 -u 'muster-*' >&2 || true
  fi
  if [ -n "$nspawn" ]; then
    # What runs in the root ends with its first process.
    kill -KILL "$(leader)" 2>/dev/null || kill -KILL "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
  fi
  ! mountpoint -q "$root" || umount "$root" || umount -l "$root" || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

make_packages() { # OUT WORDS
  local out=$1
  shift
  quiet packaging/deb.sh --compression gzip --binaries "$programs" --out "$out" "$@"
}

make_root() {
  if [ -z "${MUSTER_ENDPOINT_ROOT:-}" ] && ! [ -e "$directory/made" ]; then
    rm -rf "$lower"
    debootstrap --variant=minbase --include="$packages" bookworm "$lower" >"$directory/debootstrap.log" 2>&1 || {
      tail -n 5 "$directory/debootstrap.log" >&2
      skip "debootstrap cannot make a root"
    }
    touch "$directory/made"
    step "a Debian 12 root, $(du -sh "$lower" | cut -f1)"
  fi
  mkdir -p "$work/upper" "$work/overlay" "$root"
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/overlay" "$root" || skip "no overlay can be mounted here"
  # What tests/endpoint.sh has left in its root.
  rm -rf "$root/var/tmp/assess"
}

boot() {
  systemd-nspawn --boot --directory="$root" --register=no --keep-unit --quiet --private-network </dev/null >"$directory/boot.log" 2>&1 9>&- &
  nspawn=$!
  for _ in $(seq 120); do
    sleep 0.5
    state=$([ -n "$(leader)" ] && inside systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) return ;; esac
  done
  tail -n 20 "$directory/boot.log" >&2
  skip "the root does not boot here"
}

# Tries a command until it succeeds.
eventually() { # SECONDS WHAT COMMAND…
  local seconds=$1 what=$2 until
  until=$(($(date +%s) + $1))
  shift 2
  while ! "$@" >"$work/eventually" 2>&1; do
    [ "$(date +%s)" -lt "$until" ] || { cat "$work/eventually" >&2; fail "$what: not after $seconds s"; }
    sleep 0.3
  done
}
expect() { [ "$1" = "$2" ] || fail "$3: expected $2, found $1"; }

unit() { inside systemctl show --value -p "$2" "muster-$1.service"; } # NAME PROPERTY
is_active() { [ "$(inside systemctl is-active "muster-$1.service" || true)" = active ]; }
all_run() { for name in $daemons; do is_active "$name" || { echo "$name is not active"; return 1; }; done; }
muster() { inside timeout 300 muster --data /var/lib/muster/orchestrator "$@"; }
# Ends with 2 where a rule fails.
evaluate() { muster evaluate --timeout 60 "$@" || [ $? = 2 ]; }

# `TYPE STATE ID` of each component, sorted.
roster() {
  muster roster -o json | python3 -c '
import json, sys
for entry in sorted(json.load(sys.stdin), key=lambda entry: entry["component"]):
    print(entry["component-type"], entry["state"], entry["component"])'
}
active_components() { roster | grep -c ' active ' || true; }
all_active() { local count; count=$(active_components); echo "$count of $1 are active"; [ "$count" = "$1" ]; }

# Every endpoint's verdicts without times, into a file; prints how many.
results() {
  muster results -o json | python3 -c '
import json, sys
stored = json.load(sys.stdin)
found = {s["endpoint"]: {r["rule"]: r["verdict"] for r in of} for s, of in zip(stored["summaries"], stored["results"])}
json.dump(found, open(sys.argv[1], "w"), sort_keys=True, indent=1)
print(sum(len(rules) for rules in found.values()))' "$1"
}

everything_is_as_before() { # WHEN
  eventually 30 "the four daemons run $1" all_run
  eventually 60 "every component is active $1" all_active 3
  roster | cut -d' ' -f1,3 >"$work/roster.now"
  cmp -s "$work/roster.before" "$work/roster.now" || { diff "$work/roster.before" "$work/roster.now" >&2 || true; fail "$1 the components are others"; }
  results "$work/results.now" >/dev/null
  cmp -s "$work/results.before" "$work/results.now" || { diff "$work/results.before" "$work/results.now" >&2 || true; fail "$1 the verdicts are others"; }
}

install_packages() { # DIRECTORY WORDS OF dpkg
  local from=$1
  shift
  rm -rf "$root/var/tmp/packages"
  cp -r "$from" "$root/var/tmp/packages"
  inside sh -c 'DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; dpkg "$@" -i /var/tmp/packages/*.deb' sh "$@" </dev/null >"$work/dpkg" 2>&1 || { cat "$work/dpkg" >&2; fail "dpkg -i"; }
}
version_of() { inside dpkg-query -W -f '${Version}' "$1"; }

packages_are_well_formed() {
  make_packages "$work/one"
  make_packages "$work/again"
  for package in "$work"/one/*.deb; do
    cmp "$package" "$work/again/$(basename "$package")" || fail "made again, it is another"
    dpkg-deb -I "$package" >/dev/null
    dpkg-deb -c "$package" >"$work/contents"
    ! grep -v '^[^ ]* root/root ' "$work/contents" || fail "not all of it is root's"
    ! command -v lintian >/dev/null || lintian --fail-on error --suppress-tags no-changelog,no-manual-page "$package" || fail "lintian"
  done
  version=$(dpkg-deb -f "$(ls "$work"/one/muster-server_*.deb)" Version)
  make_packages "$work/two" --version "$version+upgrade1"
  step "packages, the same bytes each time: $(cd "$work/one" && du -h --apparent-size -- *.deb | awk '{printf "%s%s %s", (NR > 1 ? ", " : ""), $2, $1}')"
}

install_first() {
  install_packages "$work/one"
  eventually 30 "all units are active" all_run
  for name in $daemons; do
    expect "$(unit "$name" Result)" success "the result of $name"
    expect "$(unit "$name" NRestarts)" 0 "restarts of $name"
    expect "$(unit "$name" UnitFileState)" enabled "$name"
  done
  eventually 30 "repository and evaluator are active" all_active 2
  muster status | grep '^components *2 active$' >/dev/null || fail "muster status: $(muster status)"
  inside muster config check /etc/muster/muster.toml >/dev/null
  expect "$(unit repository User)" muster "the user of the repository"
  expect "$(inside stat -c '%U %a' /var/lib/muster/repository)" "muster 700" "the data directory of the repository"
  expect "$(inside stat -c '%U %a' /var/lib/muster/pcs-agent)" "root 700" "the data directory of the collector"
  step "installed: four units run, repository and evaluator have joined without a word"
}

join_the_agent() {
  unit pcs-agent StatusText | grep /etc/muster/join-token >/dev/null || fail "the collector does not say what it waits for: $(unit pcs-agent StatusText)"
  inside sh -c 'umask 077; muster token create --data /var/lib/muster/orchestrator --type pcs >/etc/muster/join-token'
  eventually 30 "the collector is active" all_active 3
  expect "$(unit pcs-agent NRestarts)" 0 "restarts of the collector"
  is_said_to_be() { [ "$(unit pcs-agent StatusText)" = "$1" ]; }
  eventually 30 "the collector says that it is active" is_said_to_be active
  # It is looked at for the first start alone.
  inside mv /etc/muster/join-token /run/join-token
  inside systemctl restart muster-pcs-agent
  eventually 30 "the collector is active without its token" all_active 3
  inside mv /run/join-token /etc/muster/join-token
  step "a token in /etc/muster/join-token: the collector has joined"
}

# In the unit and without it: no verdict comes from the sandbox.
verdicts_are_those_without_a_sandbox() {
  evaluate --profile xccdf_dev.muster_profile_server >"$work/evaluated" 2>&1 || { cat "$work/evaluated" >&2; fail "muster evaluate"; }
  count=$(results "$work/results.before")
  cp "$baseline" "$root/var/tmp/baseline.xml"
  inside sh -c 'cd /var/tmp && muster scap xccdf eval --profile xccdf_dev.muster_profile_server baseline.xml' >"$work/outside" || [ $? = 2 ] || fail "muster scap"
  python3 - "$work/results.before" "$work/outside" <<'PY' || fail "the verdicts are not those without a sandbox"
import json, sys
(inside,) = json.load(open(sys.argv[1])).values()
outside, rule = {}, None
for line in open(sys.argv[2], newline="").read().split("\n"):
    words = line.split()
    if len(words) == 2 and words[0] == "Rule":
        rule = words[1]
    elif len(words) == 2 and words[0] == "Result":
        outside[rule] = words[1]
differ = [f"{rule}: {verdict} outside, {inside.get(rule)} in the unit" for rule, verdict in outside.items() if inside.get(rule) != verdict]
differ += [f"{rule}: {verdict}" for rule, verdict in inside.items() if verdict in ("unknown", "error")]
for line in differ:
    print(line)
sys.exit(1 if differ or len(outside) < 40 else 0)
PY
  step "$count verdicts, each that of \`muster scap\` outside the unit"
}

# What a unit does is stored long before anybody would look again.
what_systemd_tells_is_stored() {
  muster observe start units --poll 1d >"$work/observed" || { cat "$work/observed" >&2; fail "muster observe"; }
  grep 'systemd of' "$work/observed" >/dev/null || { cat "$work/observed" >&2; fail "the collector does not listen to systemd"; }
  inside sh -c 'printf "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n" >/run/systemd/system/chrony.service; systemctl daemon-reload'
  is_stored_as() { muster query "linux:systemdunitproperty where unit = chrony.service and value = $1" -o json | grep '"chrony.service"'; }
  for state in active inactive; do
    inside systemctl "$([ $state = active ] && echo start || echo stop)" chrony
    eventually 30 "a unit that is $state is stored as that" is_stored_as $state
  done
  inside sh -c 'rm /run/systemd/system/chrony.service; systemctl daemon-reload'
  quiet muster observe cancel units
  step "systemctl start and stop: what is stored is what is"
}

sandboxes_hold() {
  local shown="" exposure
  for name in orchestrator repository pes-evaluator pcs-agent; do
    exposure=$(inside systemd-analyze security --no-pager "muster-$name.service" | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\) .*/\1/p')
    [ "$name" = pcs-agent ] || awk -v exposure="$exposure" 'BEGIN { exit !(exposure < 2.5) }' || fail "the exposure of $name is $exposure"
    shown="$shown, $name $exposure"
  done
  expect "$(unit pcs-agent MemoryMax) $(unit pcs-agent Nice)" "402653184 10" "the bounds of the collector"
  capabilities() { inside sed -n 's/^CapBnd:\t//p' "/proc/$(unit "$1" MainPID)/status"; }
  mounts_of() { inside readlink "/proc/$1/ns/mnt"; }
  expect "$(capabilities orchestrator)" 0000000000000000 "the capabilities of the orchestrator"
  expect "$(capabilities pcs-agent)" 0000000000080004 "the capabilities of the collector"
  expect "$(mounts_of "$(unit pcs-agent MainPID)")" "$(mounts_of 1)" "the mounts of the collector"
  for name in orchestrator repository pes-evaluator; do
    expect "$(unit "$name" WatchdogUSec)" 30s "the watchdog of $name"
    as_it_sees() { inside nsenter -t "$(unit "$name" MainPID)" -m -- "$@" 2>/dev/null; }
    as_it_sees touch "/var/lib/muster/$name/written" || fail "$name cannot write to its directory"
    as_it_sees rm "/var/lib/muster/$name/written"
    for place in /var/lib /var/lib/muster /etc /usr/bin /opt; do
      ! as_it_sees touch "$place/written" || fail "$name can write to $place"
    done
    expect "$(as_it_sees find /home /root /tmp -mindepth 1 -maxdepth 1 | wc -l)" 0 "what $name sees of homes and /tmp"
  done
  only_with_more_rights
  local kib
  kib=$(inside sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(unit pcs-agent MainPID)/status")
  step "exposure by systemd-analyze: ${shown#, }; the collector took $((kib / 1024)) MiB at most"
}

# What the kernel tells CAP_SYS_ADMIN alone. It is there in the machine's own network alone, and is only read.
only_with_more_rights() {
  local key=/proc/sys/net/core/bpf_jit_harden
  [ -r "$key" ] || return 0
  ! setpriv --bounding-set=-all,+dac_read_search,+sys_ptrace cat "$key" >/dev/null 2>&1 || fail "$key can be read without CAP_SYS_ADMIN"
  setpriv --bounding-set=-all,+dac_read_search,+sys_ptrace,+sys_admin cat "$key" >/dev/null || fail "$key cannot be read with CAP_SYS_ADMIN"
}

a_daemon_that_hangs_is_restarted() {
  inside sh -c 'd=/run/systemd/system/muster-repository.service.d; mkdir -p $d; printf "[Service]\nWatchdogSec=4\n" >$d/watchdog.conf; systemctl daemon-reload; systemctl restart muster-repository'
  eventually 30 "the repository is active" all_active 3
  before=$(unit repository MainPID)
  inside kill -STOP "$before"
  other_process() { is_active repository && [ "$(unit repository MainPID)" != "$before" ]; }
  eventually 30 "a repository that hangs is restarted" other_process
  inside journalctl --no-pager -u muster-repository | grep -i 'watchdog timeout' >/dev/null || fail "it was not the watchdog"
  eventually 60 "every component is active" all_active 3
  inside sh -c 'rm -r /run/systemd/system/muster-repository.service.d; systemctl daemon-reload; systemctl restart muster-repository'
  eventually 60 "every component is active" all_active 3
  step "a repository that hangs is restarted by the watchdog, and is active again"
}

a_wrong_key_is_named() {
  inside sed -i '/^\[repository\]/a keep-verdict = "300d"' /etc/muster/muster.toml
  ! inside systemctl restart muster-repository 2>/dev/null || fail "it starts with a key that there is not"
  inside journalctl --no-pager -u muster-repository -n 20 >"$work/journal"
  # shellcheck disable=SC2016
  grep 'repository.keep-verdict`; did you mean `keep-verdicts`' "$work/journal" >/dev/null || { cat "$work/journal" >&2; fail "the key is not named"; }
  for name in orchestrator pes-evaluator pcs-agent; do is_active $name || fail "$name has ended"; done
  inside sed -i 's/^keep-verdict =/keep-verdicts =/' /etc/muster/muster.toml
  # Without a word: it is tried again.
  eventually 30 "every component is active" all_active 3
  step "a wrong key in muster.toml: not started, named with the nearest one; corrected: it runs by itself"
}

a_changed_file_is_read_again() {
  local before
  eventually 30 "the repository runs again" is_active repository
  before=$(unit repository MainPID)
  inside sed -i '/^\[repository\]/a keep-evaluations = "20d"' /etc/muster/muster.toml
  inside systemctl reload muster-repository
  has_taken_effect() { inside journalctl --no-pager -u muster-repository -n 30 | grep 'takes effect now.*keep-evaluations'; }
  eventually 10 "a changed age takes effect" has_taken_effect
  inside sed -i 's/^keep-evaluations =/keep-evaluation =/' /etc/muster/muster.toml
  ! inside systemctl reload muster-repository 2>/dev/null || fail "a file that cannot be used is read"
  inside sed -i '/^keep-evaluation =/d' /etc/muster/muster.toml
  inside systemctl reload muster-repository
  is_active repository || fail "the repository has ended"
  expect "$(unit repository MainPID)" "$before" "the process after it was reloaded"
  step "systemctl reload: a changed age takes effect, a wrong key changes nothing, and the process is the same"
}

what_was_put_out_stays_out() {
  local component
  component=$(roster | sed -n 's/^posture-evaluation-service active //p')
  [ -n "$component" ] || fail "there is no evaluator in the roster: $(roster)"
  quiet muster evict "$component" --reason "tried out"
  has_ended() { [ "$(unit pes-evaluator SubState) $(unit pes-evaluator ExecMainStatus)" = "failed 77" ]; }
  eventually 30 "an evicted evaluator ends" has_ended
  unit pes-evaluator StatusText | grep "tried out" >/dev/null || fail "its status does not say why: $(unit pes-evaluator StatusText)"
  sleep 3
  has_ended || fail "an evicted evaluator is started again"
  # With a word of an operator's it comes back.
  inside sh -c 'cp /var/lib/muster/join/pes-evaluator/token /run/token; d=/run/systemd/system/muster-pes-evaluator.service.d; mkdir -p $d
    printf "[Service]\nEnvironment=MUSTER_JOIN_TOKEN=%s\n" "$(cat /run/token)" >$d/token.conf; systemctl daemon-reload; systemctl start muster-pes-evaluator'
  eventually 30 "every component is active" all_active 3
  inside sh -c 'rm -r /run/token /run/systemd/system/muster-pes-evaluator.service.d; systemctl daemon-reload; systemctl restart muster-pes-evaluator'
  eventually 30 "every component is active" all_active 3
  step "an evicted evaluator ends, says why, and is not started again until an operator gives it a token"
}

upgrade() {
  inside sed -i '/^\[pcs-agent\]/a name = "ours"' /etc/muster/agent.toml
  inside sh -c 'cat /etc/muster/*.toml' >"$work/edited"
  roster | cut -d' ' -f1,3 >"$work/roster.before"
  local pids=""
  for name in $daemons; do pids="$pids $(unit "$name" MainPID)"; done
  evaluate --profile xccdf_dev.muster_profile_server >"$work/under-way" 2>&1 &
  local follower=$!
  sleep 0.5
  install_packages "$work/two"
  wait $follower || true
  expect "$(version_of muster-server) $(version_of muster-agent)" "$version+upgrade1 $version+upgrade1" "versions"
  inside sh -c 'cat /etc/muster/*.toml' | cmp -s "$work/edited" - || fail "an edited configuration was not kept"
  everything_is_as_before "after the upgrade"
  no_task_is_open() { muster status | grep '^open workflows *0$'; }
  eventually 90 "the task that was under way is done" no_task_is_open
  for name in $daemons; do case " $pids " in *" $(unit "$name" MainPID) "*) fail "$name was not restarted" ;; esac; done
  evaluate --profile xccdf_dev.muster_profile_server >"$work/evaluated" 2>&1 || { cat "$work/evaluated" >&2; fail "muster evaluate"; }
  everything_is_as_before "after the upgrade and an evaluation"
  step "upgraded during an evaluation: configuration, components and verdicts are kept"
}

roll_back() {
  inside systemctl --quiet disable --now muster-pes-evaluator 2>/dev/null
  inside systemctl --quiet mask --now muster-pcs-agent 2>/dev/null
  install_packages "$work/one" --force-downgrade
  expect "$(version_of muster-server)" "$version" "the version"
  expect "$(unit pes-evaluator UnitFileState) $(unit pes-evaluator ActiveState)" "disabled inactive" "a unit that was disabled"
  expect "$(unit pcs-agent UnitFileState) $(unit pcs-agent ActiveState)" "masked inactive" "a unit that was masked"
  inside systemctl --quiet enable --now muster-pes-evaluator 2>/dev/null
  inside systemctl --quiet unmask muster-pcs-agent 2>/dev/null
  inside systemctl start muster-pcs-agent
  everything_is_as_before "after the way back"
  step "rolled back: the same; what was disabled or masked stays so"
}

remove_and_install() {
  quiet inside dpkg -r muster-agent muster-server
  for name in $daemons; do ! is_active "$name" || fail "$name runs without its package"; done
  ! inside test -e /usr/bin/muster || fail "the command is still there"
  for name in $daemons; do inside test -d "/var/lib/muster/$name" || fail "the data of $name are gone"; done
  install_packages "$work/one"
  inside sh -c 'cat /etc/muster/*.toml' | cmp -s "$work/edited" - || fail "the configuration was not kept"
  everything_is_as_before "after a removal"
  muster audit verify >/dev/null
  muster verify >"$work/verified" 2>&1 || { tail -n 5 "$work/verified" >&2; fail "muster verify"; }
  step "removed and installed: data and configuration were kept, the log of acts and every verdict's chain are whole"
}

purge() {
  quiet inside dpkg -P muster-agent muster-server
  rm -rf "$root/var/tmp/packages"
  inside find / -xdev \( -path /proc -o -path /sys -o -path /run/systemd \) -prune -o -name '*muster*' -print >"$work/left"
  [ ! -s "$work/left" ] || { cat "$work/left" >&2; fail "something is left"; }
  ! inside getent passwd muster >/dev/null || fail "the user is left"
  ! inside systemctl list-units --all --plain --no-legend 'muster-*' | grep muster >&2 || fail "units are left"
  step "purged: nothing is left"
}

packages_are_well_formed
make_root
boot
step "booted, $(inside systemctl list-units --all --plain --no-legend --no-pager | wc -l) units"
install_first
join_the_agent
verdicts_are_those_without_a_sandbox
what_systemd_tells_is_stored
sandboxes_hold
a_daemon_that_hangs_is_restarted
a_wrong_key_is_named
a_changed_file_is_read_again
what_was_put_out_stays_out
upgrade
roll_back
remove_and_install
purge
