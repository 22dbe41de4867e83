# Every step of the loop, as the command `ratchet`. Targets:
#   cpu             torch for CPUs
#   cpu-with-model  the same with the embedded 135M model, for trying things out; production names its own base model
#   cuda            torch for NVIDIA GPUs, and the compiler that it needs; the driver comes from the node
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

FROM uv AS cpu-dependencies
# Empty where an index of your own (in the secret uv.toml) already serves the CPU build.
ARG TORCH_BACKEND=cpu
COPY requirements/images/components-cpu.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --requirements /requirements.txt ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}} \
    && cyclonedx-py environment --output-reproducible --output-file /sbom.cdx.json /opt/ratchet/bin/python

FROM uv AS cuda-dependencies
COPY requirements/images/components-cuda.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --requirements /requirements.txt \
    && cyclonedx-py environment --output-reproducible --output-file /sbom.cdx.json /opt/ratchet/bin/python

FROM uv AS model
COPY requirements/images/model.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --no-deps --prefix /model --requirements /requirements.txt

FROM uv AS code
WORKDIR /src
COPY requirements/work.txt pyproject.toml README.md ./
COPY components components
COPY pipelines pipelines
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --prefix /code --build-constraints work.txt .

FROM ${BASE_IMAGE} AS runtime
# hadolint ignore=DL3008 # Debian serves only the newest fix of a package; the base's digest fixes the release
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
# HOME and caches on /tmp: the one place to write when the root file system is read-only. USER: torch asks for the
# user's name, and a numeric user has none.
ENV PATH=/opt/ratchet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=ratchet \
    TRITON_CACHE_DIR=/tmp/triton TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
WORKDIR /tmp
USER 10001:10001
CMD ["ratchet", "--help"]

FROM runtime AS cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0:0
# Triton compiles a part of itself when it is first used. Python's own image has its headers; Debian keeps them apart.
# hadolint ignore=DL3008 # as above
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && if ! [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then \
         apt-get install --yes --no-install-recommends python3-dev; \
       fi \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=cuda-dependencies /opt/ratchet /opt/ratchet
COPY --from=cuda-dependencies /sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
COPY infra/images/smoke.py /opt/smoke.py
USER 10001:10001
# For a build with few of the dependencies: --without-torch.
ARG SMOKE_OPTIONS
RUN python /opt/smoke.py ${SMOKE_OPTIONS}
COPY --from=code /code /opt/ratchet
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-components-cuda org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}

FROM runtime AS cpu-with-model
COPY --from=cpu-dependencies /opt/ratchet /opt/ratchet
COPY --from=cpu-dependencies /sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
COPY --from=model /model /opt/ratchet
COPY --from=code /code /opt/ratchet
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-components-with-model org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}

FROM runtime AS cpu
COPY --from=cpu-dependencies /opt/ratchet /opt/ratchet
COPY --from=cpu-dependencies /sbom.cdx.json /usr/share/sbom/ratchet.cdx.json
COPY --from=code /code /opt/ratchet
ARG VERSION REVISION SOURCE=https://github.com/ratchet-lora/ratchet
LABEL org.opencontainers.image.title=ratchet-components org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=${SOURCE} org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
