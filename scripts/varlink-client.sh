#!/bin/sh
# Installs the Varlink client of PyPI into build/varlink, for the test that a client which knows
# nothing of volnet can drive it.
set -eu
cd "$(dirname "$0")/.."
version=31.0.0

if ! [ -x build/varlink/bin/varlink-client-ready ]; then
    python3 -m venv build/varlink
    build/varlink/bin/pip install --quiet --disable-pip-version-check "varlink==$version"
    ln -sf python3 build/varlink/bin/varlink-client-ready
fi
