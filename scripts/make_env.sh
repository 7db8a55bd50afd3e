#!/usr/bin/env bash
# Makes the .env that docker-compose.yaml needs, with random secrets that only you may read. A file
# that exists is left as it is: the data in the volumes know its passwords.
#
# make_env.sh [FILE]
set -euo pipefail
umask 077

readonly FILE=${1:-$(dirname "${BASH_SOURCE[0]}")/../.env}

# Letters, digits, '-' and '_': whole in URLs, in JSON and in configuration files.
random() { head -c "$1" /dev/urandom | base64 --wrap=0 | tr '+/' '-_' | tr -d '='; }

if [[ -e $FILE ]]; then
    printf '%s exists: left as it is\n' "$FILE" >&2
    exit 0
fi
part=$(mktemp "$FILE.XXXXXX")
trap 'rm -f "$part"' EXIT
cat >"$part" <<END
# Secrets of docker-compose.yaml, made by scripts/make_env.sh. Keep it out of version control.
POSTGRES_PASSWORD=$(random 24)
REDIS_PASSWORD=$(random 24)
S3_ACCESS_KEY=$(random 15)
S3_SECRET_KEY=$(random 30)
SPARK_SECRET=$(random 32)
AIRFLOW_ADMIN_PASSWORD=$(random 18)
AIRFLOW_API_SECRET_KEY=$(random 32)
AIRFLOW_JWT_SECRET=$(random 64)
# 32 bytes in base64, as Fernet wants it.
AIRFLOW_FERNET_KEY=$(random 32)=
END
# Unlike mv, ln never replaces a file that somebody else has made meanwhile.
ln "$part" "$FILE"
printf 'made %s; user admin, password AIRFLOW_ADMIN_PASSWORD\n' "$FILE" >&2
