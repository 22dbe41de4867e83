# Airflow with our DAGs: scheduler, DAG processor, API server and triggerer. No step's dependencies: steps run in pods.
# A changed DAG rebuilds only the last, small layer.

# By digest, NAME@sha256:…; a Debian with Python 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/venv PATH=/opt/uv/bin:$PATH
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet uv==${UV_VERSION} \
    && python3 -m venv --without-pip /opt/venv
COPY requirements/airflow.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --requirements /requirements.txt

FROM ${BASE_IMAGE} AS airflow
# The user, group and home that Airflow's own Helm chart expects.
RUN install --directory --owner=50000 --group=0 --mode=0775 /opt/airflow /opt/airflow/logs
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=airflow \
    AIRFLOW_HOME=/opt/airflow AIRFLOW__CORE__LOAD_EXAMPLES=false
WORKDIR /opt/airflow
USER 50000:0
COPY --from=dependencies /opt/venv /opt/venv
COPY dags dags
CMD ["airflow", "version"]
