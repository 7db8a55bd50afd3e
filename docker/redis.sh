#!/bin/sh
# Starts Redis with its password in a file in memory: on a command line `ps` would show it.
set -eu
umask 077
printf 'requirepass "%s"\nmaxmemory %s\n' "$REDIS_PASSWORD" "$REDIS_MAXMEMORY" \
    >/run/redis/instance.conf
exec redis-server /etc/ferry/redis.conf
