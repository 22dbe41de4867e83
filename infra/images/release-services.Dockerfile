# Router, gate and reconciler: `ratchet serve-router`, `serve-gate`, `reconcile`. The project's core dependencies and
# MLflow's client, no training stack.
# A code change rebuilds only the last, small layer.

# By digest, NAME@sha256:…; a Debian with Python 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/ratchet PATH=/opt/uv/bin:$PATH
COPY requirements/images/build-tools.txt /build-tools.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet --require-hashes --requirement /build-tools.txt \
    && python3 -m venv --without-pip /opt/ratchet

FROM uv AS dependencies
COPY requirements/images/release-services.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --requirements /requirements.txt \
    && cyclonedx-py environment --output-reproducible --output-file /sbom.cdx.json /opt/ratchet/bin/python

FROM uv AS code
WORKDIR /src
COPY requirements/work.txt pyproject.toml README.md ./
COPY components components
COPY pipelines pipelines
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --prefix /code --build-constraints work.txt .

FROM ${BASE_IMAGE} AS release-services
# hadolint ignore=DL3008 # Debian serves only the newest fix of a package; the base's digest fixes the release
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
ENV PATH=/opt/ratchet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=ratchet
WORKDIR /tmp
USER 10001:10001
COPY --from=dependencies /opt/ratchet /opt/ratchet
COPY --from=dependencies /sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
COPY --from=code /code /opt/ratchet
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-release-services org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
CMD ["ratchet", "--help"]
