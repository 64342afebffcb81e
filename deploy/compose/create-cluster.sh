#!/bin/sh
# Makes a Redis Cluster of the nodes in NODES (`host:port …`), each master with one replica, unless they are one already. Every node
# has to answer by now; the password is in the secret `redis_password`. Ends when the cluster takes commands, with an error if it does not
# within a minute.
set -eu

# Where redis-cli looks for it: its arguments can be read by everybody on the machine.
REDISCLI_AUTH=$(cat "${REDIS_PASSWORD_FILE:-/run/secrets/redis_password}")
export REDISCLI_AUTH

first=${NODES%% *}
ask() { redis-cli -h "${first%:*}" -p "${first##*:}" "$@"; }

# A node that knows others belongs to a cluster: its slots are with them, also after all were restarted.
if [ "$(ask cluster nodes | wc -l)" -gt 1 ]; then
  echo "The nodes are a cluster already."
else
  # shellcheck disable=SC2086 # one argument a node
  redis-cli --cluster create $NODES --cluster-replicas 1 --cluster-yes
fi

tries=0
until ask cluster info | grep -q '^cluster_state:ok'; do
  tries=$((tries + 1))
  if [ $tries -gt 60 ]; then
    echo "The cluster takes no commands after a minute: redis-cli --cluster check $first" >&2
    exit 1
  fi
  sleep 1
done
echo "The cluster is ready."
