# MLflow's server on Postgres and S3, at the version whose client the steps use.

# By digest, NAME@sha256:…; a Debian with Python 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/venv PATH=/opt/uv/bin:$PATH
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet uv==${UV_VERSION} \
    && python3 -m venv --without-pip /opt/venv
COPY requirements/work.txt /requirements.txt
ARG PSYCOPG_VERSION=3.3.9
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --constraints /requirements.txt mlflow boto3 "psycopg[binary]==${PSYCOPG_VERSION}"

FROM ${BASE_IMAGE} AS mlflow
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=mlflow \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /tmp
USER 10001:10001
COPY --from=dependencies /opt/venv /opt/venv
EXPOSE 5000
CMD ["mlflow", "server", "--help"]
