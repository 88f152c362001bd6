#!/bin/sh
# Makes what docker-compose.scale.yml keeps secret, once: a passphrase for the CA's key, a password for the database's administrator, and a
# URL with a password of its own for each service that has a database. What is there stays.
# usage: packaging/scale/secrets.sh [DIRECTORY]     (default: secrets)
set -eu
directory=${1:-secrets}
mkdir -p "$directory"
chmod 700 "$directory"
word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
put() { # NAME CONTENT
  [ -s "$directory/$1" ] || printf '%s\n' "$2" >"$directory/$1"
  # Containers have users of their own; the directory is closed.
  chmod 644 "$directory/$1"
}
put ca-passphrase "$(word)"
put database-administrator "$(word)"
for service in orchestrator repository; do
  put "$service-database" "postgres://$service:$(word)@postgres:5432/$service"
done
