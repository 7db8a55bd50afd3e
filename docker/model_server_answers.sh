#!/bin/bash
# Succeeds if the model server in this container answers by REST ("not found" is an answer) and
# listens for gRPC. Its image has no HTTP client.
set -euo pipefail
exec 4<>"/dev/tcp/127.0.0.1/${1:-8500}"
exec 3<>"/dev/tcp/127.0.0.1/${2:-8501}"
printf 'GET /v1/models/any HTTP/1.0\r\n\r\n' >&3
IFS= read -r -t 3 answer <&3
[[ $answer == HTTP/* ]]
