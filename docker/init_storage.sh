#!/bin/sh
# Prepares the volumes: the model servers don't start without a configuration file. One that exists
# belongs to the releases.
set -eu
for folder in "$FERRY_LAKE" "$FERRY_MODEL_DIR" ${OTHER_VOLUMES:-}; do
    if ! [ -w "$folder" ]; then
        echo "storage-init: user $(id -u) may not write to the volume at $folder: change its owner" >&2
        exit 1
    fi
done
config=$FERRY_MODEL_DIR/models.config
[ -e "$config" ] || printf 'model_config_list {\n}\n' >"$config"
