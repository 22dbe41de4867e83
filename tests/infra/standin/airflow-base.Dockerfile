# A STAND-IN for docker.io/apache/airflow, for machines that reach no registry. Tests alone build it, and nothing that is
# released comes from it. It has what the image says of itself in tests/infra/airflow_image.json, and a part of its
# distributions, in versions that the tests choose.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
USER 0:0
# hadolint ignore=DL3008 # Debian serves only the newest fix of a package
RUN apt-get update && apt-get install --yes --no-install-recommends dumb-init && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --create-home --home-dir /home/airflow airflow \
    && install --directory --owner=50000 --group=0 --mode=0775 /opt/airflow /opt/airflow/dags /opt/airflow/logs
ENV AIRFLOW_HOME=/opt/airflow AIRFLOW_UID=50000 AIRFLOW_USER_HOME_DIR=/home/airflow \
    VIRTUAL_ENV=/home/airflow/.local PATH=/home/airflow/.local/bin:$PATH
USER 50000:0
COPY distributions.txt /distributions.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf,uid=50000 \
    --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml,uid=50000 \
    python3 -m venv /home/airflow/.local && pip install --no-cache-dir --quiet uv==0.13.9 \
    && uv pip install --no-cache --requirements /distributions.txt
COPY --chown=50000:0 --chmod=0755 entrypoint clean-logs /
WORKDIR /opt/airflow
ENTRYPOINT ["/usr/bin/dumb-init", "--", "/entrypoint"]
CMD []
