#!/bin/sh
# Runs Mosquitto with the directory that the active orchestrator keeps for it, and has it read its access list and its certificate again
# whenever they change.
set -u
directory=${1:-/broker}
until [ -s "$directory/mosquitto.conf" ] && [ -s "$directory/acl" ]; do sleep 0.5; done
mosquitto -c "$directory/mosquitto.conf" &
broker=$!
trap 'kill -TERM $broker; wait $broker; exit 0' TERM INT
state() { cksum "$directory/acl" "$directory/certificate.pem" "$directory/ca.pem" 2>/dev/null; }
known=$(state)
while kill -0 $broker 2>/dev/null; do
  sleep 0.5
  now=$(state)
  if [ "$now" != "$known" ]; then
    known=$now
    kill -HUP $broker
  fi
done
wait $broker
