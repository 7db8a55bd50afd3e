#!/bin/sh
# Starts a program of Ferry's image. The files that hold secrets are written first, into a folder
# that is in memory.
set -eu
umask 077

# Spark trusts whoever knows the secret: without it, who reaches the master runs what they like.
if [ -n "${SPARK_SECRET:-}" ]; then
    mkdir -p "$SPARK_CONF_DIR"
    # Executors find the driver by its name, on whichever of its networks they are.
    cat >"$SPARK_CONF_DIR/spark-defaults.conf" <<END
spark.authenticate         true
spark.authenticate.secret  $SPARK_SECRET
spark.driver.host          $(hostname)
spark.driver.bindAddress   0.0.0.0
spark.cores.max            $SPARK_CORES_OF_A_STEP
spark.executor.memory      $SPARK_EXECUTOR_MEMORY
spark.ui.killEnabled       false
END
fi

if [ -n "${AIRFLOW_ADMIN_PASSWORD:-}" ]; then
    printf '{"admin": "%s"}\n' "$AIRFLOW_ADMIN_PASSWORD" \
        >"$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
fi

exec "$@"
