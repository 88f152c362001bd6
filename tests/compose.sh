#!/usr/bin/env bash
# The system on a container engine, as docker-compose.yml has it: a line for each step, with its time. Everything that it makes is
# called `muster-test`, and is gone afterwards.
# usage: tests/compose.sh [DIRECTORY WITH THE PROGRAMS]     (default: target/release)
set -euo pipefail
cd "$(dirname "$0")/.."
programs=${1:-target/release}
cut_seconds=${MUSTER_CUT_SECONDS:-30}

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
compose() { "${engine[@]}" -p muster-test "$@"; }
quiet() { "$@" >"$work/said" 2>&1 || { cat "$work/said"; return 1; }; }
finish() {
  code=$?
  [ "$code" = 0 ] || { compose ps || true; compose logs --tail=20 || true; } >&2
  quiet compose down -v --remove-orphans --timeout 2 || true
  docker rmi -f muster-server muster-agent >/dev/null 2>&1 || true
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
muster() { timeout 300 "${engine[@]}" -p muster-test exec -T orchestrator muster "$@"; }
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

quiet packaging/rootfs "$work/dist/server" "$programs"/muster "$programs"/muster-{orchestrator,repository,pes-evaluator}
quiet packaging/rootfs "$work/dist/agent" "$programs"/muster-pcs-agent
for kind in server agent; do
  quiet docker build -q -f packaging/Dockerfile.prebuilt --build-arg KIND=$kind -t muster-$kind "$work/dist"
done
size() { echo $(($(docker image inspect -f '{{.Size}}' "$1") / 1000000)); }
step "images: server $(size muster-server) MB, agent $(size muster-agent) MB"

up=$(date +%s)
quiet compose up -d --no-build
for service in orchestrator repository pes-evaluator pcs-agent; do healthy $service 1; done
step "up: all four are healthy, with no token given to anybody"

evaluate >"$work/first" 2>&1
read -r endpoints verdicts <<<"$(results "$work/one.json")"
expect "$endpoints" 1 "endpoints with verdicts"
step "first verdicts: $verdicts on one collector"

quiet compose up -d --no-build --scale pcs-agent=20
healthy pcs-agent 20
evaluate >"$work/all" 2>&1
read -r endpoints verdicts <<<"$(results "$work/twenty.json")"
expect "$endpoints" 20 "endpoints with verdicts"
step "twenty collectors joined by themselves and are assessed: $verdicts verdicts, $(($(date +%s) - up)) s after \`up\`"

memory=$(docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' $(ids orchestrator) $(ids repository) $(ids pes-evaluator) $(ids pcs-agent | sed -n 1p) | sed 's, / .*,,; s,muster-test[-_],,' | paste -sd, -)
step "memory: $memory"

# For whom one is away the request waits; nobody is lost from the count.
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

for service in orchestrator repository pes-evaluator; do
  (evaluate || true) >"$work/load" 2>&1 &
  load=$!
  sleep 1
  docker kill -s KILL "$(ids $service)" >/dev/null
  sleep 1
  docker start "$(ids $service)" >/dev/null
  healthy $service 1
  wait $load || true
  # What is under way goes on; what was asked of a process that is dead is asked again.
  evaluate >"$work/after" 2>&1
  read -r endpoints _ <<<"$(results "$work/after.json")"
  expect "$endpoints" 20 "endpoints with verdicts after $service was killed"
  cmp -s "$work/twenty.json" "$work/after.json" || { echo "verdicts changed" >&2; diff <(python3 -m json.tool "$work/twenty.json") <(python3 -m json.tool "$work/after.json") | head -n 20 >&2; exit 1; }
  step "$service was killed under load and started again: the same $verdicts verdicts"
done

# Kept under its own name and identity when its container is made anew.
quiet compose up -d --no-build --force-recreate --scale pcs-agent=20
for service in orchestrator repository pes-evaluator; do healthy $service 1; done
healthy pcs-agent 20
evaluate >"$work/again" 2>&1
read -r endpoints _ <<<"$(results "$work/again.json")"
expect "$endpoints" 20 "endpoints with verdicts after every container was made anew"
step "every container was made anew: still the same twenty endpoints"

muster audit verify >/dev/null
muster verify >/dev/null 2>&1 || { echo "muster verify fails" >&2; muster verify | tail -n 5 >&2; exit 1; }
step "the log of acts and every verdict's chain are whole"
