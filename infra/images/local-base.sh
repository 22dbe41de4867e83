#!/usr/bin/env bash
# Make a base image from Debian packages, for a machine that reaches no container registry. Needs mmdebstrap.
#   infra/images/local-base.sh [NAME]      ENGINE=podman (default) or docker
set -euo pipefail
name=${1:-localhost/ratchet-base:bookworm}
tree=$(mktemp --suffix=.tar)
trap 'rm -f "$tree"' EXIT

mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,python3,python3-venv \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    bookworm "$tree"
"${ENGINE:-podman}" import "$tree" "$name"
