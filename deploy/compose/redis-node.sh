#!/bin/sh
# Starts a Redis server with the settings that it is given, and with the password in the secret `redis_password`: by its standard input, as
# arguments of a process can be read by everybody on the machine, and no file has to be written.
set -eu

# As the syntax of redis.conf has it between quotes.
password=$(sed 's/[\\"]/\\&/g' "${REDIS_PASSWORD_FILE:-/run/secrets/redis_password}")

exec docker-entrypoint.sh redis-server - "$@" <<CONF
requirepass "$password"
masterauth "$password"
CONF
