# Airflow with our DAGs: scheduler, DAG processor, API server and triggerer, on Airflow's own image, whose entrypoint,
# log cleaner, user and auth manager its Helm chart expects. No step's dependencies: steps run in pods.
# A changed DAG rebuilds only the last, small layer.

# Airflow's image by digest, docker.io/apache/airflow@sha256:…, of the version in requirements/airflow.txt, for Python
# 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS distributions
USER 50000:0
# Airflow's own distributions at the versions that the DAGs are tested with: what the base has already stays untouched,
# and all else stays as Airflow chose it. A base of another version fails here, or does not read the DAGs below.
COPY requirements/images/airflow.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml,uid=50000 \
    uv pip install --no-cache --no-deps --require-hashes --requirements /requirements.txt \
    && uv pip check

FROM distributions AS sbom
COPY requirements/images/build-tools.txt /build-tools.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf,uid=50000 \
    python -m venv /tmp/tools \
    && PIP_USER=false /tmp/tools/bin/pip install --no-cache-dir --quiet --require-hashes --requirement /build-tools.txt \
    && /tmp/tools/bin/cyclonedx-py environment --output-reproducible --output-file /tmp/sbom.cdx.json "$(command -v python)"

FROM distributions AS airflow
USER 50000:0
COPY --from=sbom /tmp/sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AIRFLOW__CORE__LOAD_EXAMPLES=false
COPY dags /opt/airflow/dags
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-airflow org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
