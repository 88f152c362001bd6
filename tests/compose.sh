#!/usr/bin/env bash
# The system on a container engine, as docker-compose.yml has it: a line for each step, with its time. Everything that it makes is
# called `muster-test`, and is gone afterwards.
# usage: tests/compose.sh [--scale] [DIRECTORY WITH THE PROGRAMS]     (default: target/release)
#   --scale                   with docker-compose.scale.yml: two of each service, on PostgreSQL and Mosquitto. Their images are made of Debian's
#                             packages, as official ones cannot be had everywhere
#   MUSTER_PREVIOUS=DIR       programs of the version before (tests/previous.sh), from which an installation is upgraded
#   MUSTER_CUT_SECONDS=N      how long five collectors are cut off (default: 120)
set -euo pipefail
cd "$(dirname "$0")/.."
services="orchestrator repository pes-evaluator"
files=(-f docker-compose.yml)
if [ "${1:-}" = --scale ]; then
  shift
  services="orchestrator orchestrator-2 repository repository-2 pes-evaluator pes-evaluator-2"
  files+=(-f docker-compose.scale.yml)
fi
programs=${1:-target/release}
previous=${MUSTER_PREVIOUS:-}
cut_seconds=${MUSTER_CUT_SECONDS:-120}

skip() {
  echo "SKIPPED, NOT PASSED: the system on containers: $1" >&2
  [ -z "${MUSTER_REQUIRE_DOCKER:-}" ] || exit 1
  exit 0
}
docker info >/dev/null 2>&1 || skip "no container engine answers"
if docker compose version >/dev/null 2>&1; then
  engine=(docker compose)
elif command -v docker-compose >/dev/null; then
  engine=(docker-compose)
else
  skip "neither \`docker compose\` nor \`docker-compose\` is there"
fi

work=$(mktemp -d)
export MUSTER_SECRETS="$work/secrets" MUSTER_POSTGRES_IMAGE=muster-test-debian MUSTER_MOSQUITTO_IMAGE=muster-test-debian
compose() { "${engine[@]}" -p muster-test "${files[@]}" "$@"; }
is_scale() { [ ${#files[@]} = 4 ]; }
quiet() { "$@" >"$work/said" 2>&1 || { cat "$work/said"; return 1; }; }
finish() {
  code=$?
  [ "$code" = 0 ] || { compose ps || true; compose logs --tail=20 || true; } >&2
  down || true
  docker rmi -f muster-server muster-agent muster-test-debian >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

began=$(date +%s%N)
step() {
  now=$(date +%s%N)
  printf '%6.1f s  %s\n' "$(((now - began) / 100000000))e-1" "$*"
  began=$(date +%s%N)
}
# The orchestrator that is active.
active() {
  local service said
  is_scale || { echo orchestrator; return; }
  for _ in $(seq 60); do
    for service in orchestrator orchestrator-2; do
      said=$(timeout 10 docker exec "$(ids $service)" muster status -o json 2>/dev/null) || continue
      grep -q '"is-standby": *true' <<<"$said" || { echo $service; return; }
    done
    sleep 0.5
  done
  echo "no orchestrator is active" >&2
  return 1
}
muster() { timeout 300 docker exec -i "$(ids "$(active)")" muster "$@"; }
# Ends with 2 where a rule fails, which containers without anything in them do.
evaluate() { muster evaluate --timeout 60 "$@" || [ $? = 2 ]; }
ids() { compose ps -q "$1"; }

# Waits until so many containers of a service are healthy.
healthy() {
  for _ in $(seq 240); do
    count=0
    for id in $(ids "$1"); do
      state=$(docker inspect -f '{{.State.Health.Status}}' "$id" 2>/dev/null || true)
      [ "$state" != healthy ] || count=$((count + 1))
    done
    [ "$count" -lt "$2" ] || return 0
    sleep 0.5
  done
  echo "$1: $count of $2 are healthy after two minutes" >&2
  return 1
}

# `ENDPOINTS VERDICTS` of what is stored, and all of it in a file, without times.
results() {
  muster results -o json | python3 -c '
import json, sys
stored = json.load(sys.stdin)
found = {s["endpoint"]: {r["rule"]: r["verdict"] for r in of} for s, of in zip(stored["summaries"], stored["results"])}
json.dump(found, open(sys.argv[1], "w"), sort_keys=True)
print(len(found), sum(len(rules) for rules in found.values()))' "$1"
}

expect() { [ "$1" = "$2" ] || { echo "expected $3: $2, found $1" >&2; exit 1; }; }

fail() { echo "FAILED: $*" >&2; exit 1; }
same() { # FILE FILE WHEN
  cmp -s "$1" "$2" || { diff <(python3 -m json.tool "$1") <(python3 -m json.tool "$2") | head -n 20 >&2; fail "the verdicts are others $3"; }
}

make_images() { # DIRECTORY WITH THE PROGRAMS
  rm -rf "$work/dist"
  quiet packaging/rootfs "$work/dist/server" "$1"/muster "$1"/muster-{orchestrator,repository,pes-evaluator}
  quiet packaging/rootfs "$work/dist/agent" "$1"/muster-pcs-agent
  for kind in server agent; do
    quiet docker build -q -f packaging/Dockerfile.prebuilt --build-arg KIND=$kind -t muster-$kind "$work/dist"
  done
}
size() { echo $(($(docker image inspect -f '{{.Size}}' "$1") / 1000000)); }

everybody_is_healthy() { # HOW MANY COLLECTORS
  for service in $services; do healthy "$service" 1; done
  healthy pcs-agent "$1"
}

# Evaluates, and expects so many endpoints with verdicts, which go to a file.
assessed() { # HOW MANY FILE WHEN
  evaluate >"$work/evaluated" 2>&1 || { cat "$work/evaluated" >&2; fail "muster evaluate $3"; }
  read -r endpoints verdicts <<<"$(results "$2")"
  expect "$endpoints" "$1" "endpoints with verdicts $3"
}

chains_are_whole() {
  muster audit verify >/dev/null
  muster verify >"$work/verified" 2>&1 || { tail -n 5 "$work/verified" >&2; fail "muster verify"; }
}

components() { muster roster -o json | python3 -c 'import json, sys; print("\n".join(sorted(e["component"] for e in json.load(sys.stdin))))'; }

# An engine may keep the endpoint of a container that was cut off and is gone. Its network cannot be removed then, and what would be
# removed after it is: the next installation would begin with the volumes of this one.
down() {
  quiet compose --profile backup down -v --remove-orphans --timeout 2 || true
  docker volume ls -q -f label=com.docker.compose.project=muster-test | xargs -r docker volume rm >/dev/null
}

upgrade_from_the_version_before() {
  make_images "$previous"
  quiet compose up -d --no-build --scale pcs-agent=5
  everybody_is_healthy 5
  assessed 5 "$work/before.json" "of the version before"
  components >"$work/components.before"
  step "the version before: five collectors, $verdicts verdicts"
  make_images "$programs"
  # One after the other, while somebody evaluates: at each moment some are of the one version and some of the other.
  for service in orchestrator repository pes-evaluator pcs-agent; do
    (evaluate || true) >"$work/load" 2>&1 &
    load=$!
    sleep 1
    count=1
    [ $service != pcs-agent ] || count=5
    quiet compose up -d --no-build --no-deps --scale pcs-agent=5 $service
    healthy $service $count
    wait $load || true
    assessed 5 "$work/after.json" "after $service was upgraded"
    same "$work/before.json" "$work/after.json" "after $service was upgraded"
    step "$service was upgraded under load: the same verdicts"
  done
  components >"$work/components.after"
  cmp -s "$work/components.before" "$work/components.after" || fail "components are others after the upgrade"
  chains_are_whole
  step "upgraded: the same components, the log of acts and every verdict's chain are whole"
  down
}

# What a start has to say where something is wrong with its volume.
wrong_starts() {
  said() { # WHAT IS EXPECTED WORDS OF docker run
    local expected=$1
    shift
    timeout -k 5 20 docker run --rm --init --read-only --cap-drop ALL "$@" >"$work/said" 2>&1 && fail "it started: $*"
    grep -q "$expected" "$work/said" || { cat "$work/said" >&2; fail "it does not say \`$expected\`: $*"; }
  }
  echo 99 >"$work/version"
  chmod 644 "$work/version"
  said 'layout version 99' --tmpfs /data:uid=10001,mode=700 -v "$work/version:/data/version:ro" muster-server muster-orchestrator
  said '/data cannot be used' -e MUSTER_JOIN_TOKEN=muster1.none muster-server muster-repository
  said 'join token' --tmpfs /data:uid=10001,mode=700 -e MUSTER_JOIN_TOKEN=muster1.wrong muster-agent muster-pcs-agent
  said 'ca-passphrase-file' --tmpfs /data:uid=10001,mode=700 -e MUSTER_CA_PASSPHRASE_FILE=/run/secrets/none muster-server muster-orchestrator
  said 'No space left\|disk is full' --tmpfs /data:uid=10001,mode=700,size=8k muster-server muster-orchestrator
  said 'did you mean' --tmpfs /data:uid=10001,mode=700 -e MUSTER_KEEP_VERDICT=1d muster-server muster-repository
  step "wrong starts: a volume of a later version, read-only, full; a token, a secret, a key that is wrong: each says so, and ends"
}

backup_destroy_restore() {
  components >"$work/components.before"
  assessed 20 "$work/kept.json" "before the backup"
  # While it is at work.
  (evaluate || true) >"$work/load" 2>&1 &
  load=$!
  quiet compose run --rm backup /backup/one
  wait $load || true
  assessed 20 "$work/kept.json" "after the backup"
  step "a backup, taken under load"
  # Collectors are machines elsewhere; everything else is lost.
  ! is_scale || docker exec "$(ids postgres)" pg_dumpall -U postgres >"$work/dump.sql"
  # shellcheck disable=SC2086
  quiet compose rm --stop --force $services $(! is_scale || echo postgres mosquitto)
  for volume in $services join-repository join-evaluator $(! is_scale || echo postgres broker); do
    docker volume rm "muster-test_$volume" >/dev/null
  done
  quiet compose run --rm restore /backup/one
  if is_scale; then
    quiet compose up -d --no-build postgres
    healthy postgres 1
    for service in orchestrator repository; do docker exec "$(ids postgres)" dropdb -U postgres "$service"; done
    # The roles and the administrator's own database are there already.
    docker exec -i "$(ids postgres)" psql -q -U postgres -d postgres <"$work/dump.sql" >"$work/restored" 2>&1
  fi
  quiet compose up -d --no-build --scale pcs-agent=20
  everybody_is_healthy 20
  read -r endpoints verdicts <<<"$(results "$work/restored.json")"
  expect "$endpoints" 20 "endpoints with verdicts after the restore"
  same "$work/kept.json" "$work/restored.json" "after the restore"
  components >"$work/components.after"
  cmp -s "$work/components.before" "$work/components.after" || fail "components are others after the restore"
  assessed 20 "$work/again.json" "after the restore"
  same "$work/kept.json" "$work/again.json" "after the restore and an evaluation"
  chains_are_whole
  step "destroyed and restored: the same components and verdicts, chains are whole, and it goes on"
}

# Memory of these containers together, and of each.
memory_of() {
  docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' "$@" | python3 -c '
import re, sys
units = {"B": 1e-6, "KiB": 1024e-6, "MiB": 1.048576, "GiB": 1073.741824}
each = []
for line in sys.stdin:
    name, used = line.split()[:2]
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", used).groups()
    each.append((re.sub("^muster-test[-_]", "", name), float(number) * units[unit]))
listed = ", ".join(f"{name} {used:.0f}" for name, used in each)
print(f"{sum(used for _, used in each):.0f} MB ({listed})")'
}

first_verdicts() {
  began_up=$(date +%s)
  quiet compose up -d --no-build
  everybody_is_healthy 1
  step "up: everybody is healthy, with no token given to anybody"
  assessed 1 "$work/one.json" "on one collector"
  step "first verdicts: $verdicts on one collector"
}

twenty_collectors() {
  quiet compose up -d --no-build --scale pcs-agent=20
  healthy pcs-agent 20
  assessed 20 "$work/twenty.json" "on twenty collectors"
  step "twenty collectors joined by themselves and are assessed: $verdicts verdicts, $(($(date +%s) - began_up)) s after \`up\`"
  # shellcheck disable=SC2046
  step "memory with one collector of the twenty: $(memory_of $(for service in $services; do ids "$service"; done) $(ids pcs-agent | sed -n 1p))"
}

# For whom one is away the request waits; nobody is lost from the count.
cut_off_and_back() {
  local network away follower transaction
  network=$(docker network ls -q -f name=muster-test_default)
  away=$(ids pcs-agent | sed -n 1,5p)
  for id in $away; do docker network disconnect -f "$network" "$id"; done
  (muster evaluate --timeout 20 --catch-up 10m -o json || true) >"$work/cut.json" 2>"$work/cut.err" &
  follower=$!
  sleep "$cut_seconds"
  for id in $away; do docker network connect "$network" "$id"; done
  wait $follower
  transaction=$(muster transactions -o json | python3 -c 'import json, sys; print(max(t["transaction"] for t in json.load(sys.stdin)))')
  muster wait "$transaction" --all --timeout 3m -o json >"$work/waited.json" || [ $? = 2 ]
  python3 - "$work/waited.json" <<'PY'
import json, sys
account = json.load(open(sys.argv[1]))["account"]
if account["asked"] != 20 or account["answered"] != 20:
    sys.exit(f"not everybody has caught up: {account}")
PY
  step "five were cut off for $cut_seconds s, and have caught up: 20 of 20 are accounted for"
}

killed_under_load() {
  local service load
  for service in $services $(! is_scale || echo mosquitto postgres); do
    (evaluate || true) >"$work/load" 2>&1 &
    load=$!
    sleep 1
    docker kill -s KILL "$(ids $service)" >/dev/null
    sleep 1
    docker start "$(ids $service)" >/dev/null
    [ "$service" = mosquitto ] || healthy "$service" 1
    wait $load || true
    # What is under way goes on; what was asked of a process that is dead is asked again.
    assessed 20 "$work/after.json" "after $service was killed"
    same "$work/twenty.json" "$work/after.json" "after $service was killed"
    step "$service was killed under load and started again: the same $verdicts verdicts"
  done
}

# Kept under its own name and identity when its container is made anew.
made_anew() {
  quiet compose up -d --no-build --force-recreate --scale pcs-agent=20
  everybody_is_healthy 20
  assessed 20 "$work/again.json" "after every container was made anew"
  step "every container was made anew: still the same twenty endpoints"
}

# PostgreSQL and Mosquitto as Debian has them, in one image that takes the words and variables of the official ones.
make_debian() {
  local root=$work/debian
  debootstrap --variant=minbase --include=postgresql,mosquitto bookworm "$root" >"$work/said" 2>&1 || { tail -n 5 "$work/said" >&2; skip "debootstrap cannot make a root"; }
  install -m 755 tests/compose/postgres-entrypoint.sh "$root/usr/local/bin/docker-entrypoint.sh"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/postgresql/15
  tar -C "$root" -c . | docker import -c 'ENTRYPOINT ["docker-entrypoint.sh"]' -c 'CMD ["postgres"]' - muster-test-debian >/dev/null
  rm -rf "$root"
  quiet packaging/scale/secrets.sh "$MUSTER_SECRETS"
  step "PostgreSQL and Mosquitto of Debian's packages"
}

# Whoever is active dies; the other one takes over.
failover() {
  local before after
  before=$(active)
  after=orchestrator-2
  [ "$before" = orchestrator ] || after=orchestrator
  (evaluate || true) >"$work/load" 2>&1 &
  local load=$!
  sleep 1
  docker kill -s KILL "$(ids "$before")" >/dev/null
  local killed
  killed=$(date +%s%N)
  until docker exec "$(ids $after)" muster roster >/dev/null 2>&1; do sleep 0.2; done
  local seconds=$((($(date +%s%N) - killed) / 100000000))
  wait $load || true
  docker start "$(ids "$before")" >/dev/null
  healthy "$before" 1
  expect "$(active)" "$after" "the active orchestrator"
  assessed 20 "$work/after.json" "after the other orchestrator took over"
  same "$work/twenty.json" "$work/after.json" "after the other orchestrator took over"
  step "$before was killed, and $after was active $((seconds / 10)).$((seconds % 10)) s later: the same $verdicts verdicts"
}

# What a run that was killed has left.
down
if is_scale; then
  make_debian
else
  [ -z "$previous" ] || upgrade_from_the_version_before
fi
make_images "$programs"
step "images: server $(size muster-server) MB, agent $(size muster-agent) MB"
is_scale || wrong_starts
first_verdicts
twenty_collectors
cut_off_and_back
! is_scale || failover
killed_under_load
made_anew
backup_destroy_restore
