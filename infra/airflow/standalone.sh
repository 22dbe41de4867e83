#!/usr/bin/env bash
# Airflow on one machine: the DAGs, the gpu pool and the alert connection in place, steps as processes, no log-in.
# For a laptop: everyone who reaches the port is an administrator, so it listens on loopback only.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
environment=${AIRFLOW_ENVIRONMENT:-$repository/.venv-airflow}
port=${PORT:-8080}
export AIRFLOW_HOME=${AIRFLOW_HOME:-$repository/airflow-home}
export PATH=$environment/bin:$PATH # `airflow standalone` starts its parts by name

export RATCHET_EXECUTION=local
export RATCHET_LAKE=${RATCHET_LAKE:-$repository/lake}
export RATCHET_MIN_NEW_TRIPLETS=${RATCHET_MIN_NEW_TRIPLETS:-50}

export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__DAGS_FOLDER=$repository/dags
export AIRFLOW__CORE__PARALLELISM=4 # of 32: each worker takes 200 MB, and a step a model besides
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:$port/execution/
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT=$port
export AIRFLOW__API__BASE_URL=http://127.0.0.1:$port
export AIRFLOW__API__WORKERS=1
export AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT=60 # of 5: a laptop that trains is slow to answer
export AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL=error
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False

mkdir -p "$AIRFLOW_HOME"
airflow db migrate >"$AIRFLOW_HOME/migrate.log" 2>&1 || { cat "$AIRFLOW_HOME/migrate.log"; exit 1; }
# A deferred task keeps its slot: its pod is what holds the GPU.
airflow pools set gpu 1 "Steps that load a model: one at a time" --include-deferred >/dev/null
airflow connections get ratchet_alerts >/dev/null 2>&1 ||
    airflow connections add ratchet_alerts --conn-type generic \
        --conn-description "A webhook for alerts (host: https://…); without a host they go to the log" >/dev/null

echo "Airflow: http://127.0.0.1:$port  (lake $RATCHET_LAKE; DAGs start paused; stop with Ctrl-C)"
exec airflow standalone
