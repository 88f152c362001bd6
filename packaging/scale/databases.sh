#!/bin/sh
# Run by the database's image when its volume is new: a database for each service, and a role that owns it and nothing else.
set -eu
for service in orchestrator repository; do
  password=$(sed "s,^postgres://$service:,,; s,@.*,," "/run/secrets/$service-database")
  psql -v ON_ERROR_STOP=1 -U postgres -d postgres -v service="$service" -v password="$password" <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password' CONNECTION LIMIT 40;
CREATE DATABASE :"service" OWNER :"service";
REVOKE CONNECT ON DATABASE :"service" FROM PUBLIC;
SQL
done
