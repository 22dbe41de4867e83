# MLflow's server on Postgres and S3, at the version whose client the steps use.

# By digest, NAME@sha256:…; a Debian with Python 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS dependencies
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/venv PATH=/opt/uv/bin:$PATH
COPY requirements/images/build-tools.txt /build-tools.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet --require-hashes --requirement /build-tools.txt \
    && python3 -m venv --without-pip /opt/venv
COPY requirements/images/mlflow.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --requirements /requirements.txt \
    && cyclonedx-py environment --output-reproducible --output-file /sbom.cdx.json /opt/venv/bin/python

FROM ${BASE_IMAGE} AS mlflow
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=mlflow \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /tmp
USER 10001:10001
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=dependencies /sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-mlflow org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
EXPOSE 5000
CMD ["mlflow", "server", "--help"]
