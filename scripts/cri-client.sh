#!/bin/sh
# Installs a client of the Container Runtime Interface from PyPI into build/cri, for the test that
# containerd runs pods with volnet as their plugin.
set -eu
cd "$(dirname "$0")/.."
version=2.0.1

if ! [ -x build/cri/bin/cri-client-ready ]; then
    python3 -m venv build/cri
    build/cri/bin/pip install --quiet --disable-pip-version-check \
        "container-runtime-interface-api==$version"
    ln -sf python3 build/cri/bin/cri-client-ready
fi
