#!/usr/bin/env bash
# The quick tests with the lowest versions that pyproject.toml allows, in new environments.
# First everything but servers; then the Tiled server, whose own requirements don't go as low, so
# that there only Tiled is at its lowest. (Databroker: scripts/check_databroker.sh.)
#
#     scripts/check_lowest_versions.sh            PYTHON=python3.11 scripts/check_lowest_versions.sh
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/lowest
rm -rf "$work"
mkdir -p "$work"
export OMP_NUM_THREADS=1

tools=(pytest pytest-timeout hypothesis pexpect jsonschema "fakeredis[lua]")

environment() { # NAME EXTRAS: a virtual environment with the constraints of NAME.txt
    "${PYTHON:-python3.11}" -m venv "$work/$1"
    # The pip that comes with Python can be too old for the newest packages.
    "$work/$1/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$work/$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$work/$1.txt" --editable "$root[$2]" "${tools[@]}"
}

"${PYTHON:-python3.11}" scripts/lowest_versions.py sr train tiled queue epics > "$work/all.txt"
environment all sr,train,tiled,queue,epics
echo "== lowest versions of everything =="
"$work/all/bin/pytest" -q -p no:cacheprovider -m "not slow" \
    tests/maps tests/physics tests/metrics tests/rois tests/devices tests/plans tests/callbacks \
    tests/queueing tests/store tests/sr tests/cli tests/config tests/package

"${PYTHON:-python3.11}" scripts/lowest_versions.py tiled-server |
    grep -E "^(tiled|bluesky-tiled-plugins)=" > "$work/tiled.txt"
environment tiled tiled-server
echo "== lowest version of Tiled and its plugins =="
"$work/tiled/bin/pytest" -q -p no:cacheprovider -m "not slow" \
    tests/store tests/callbacks/test_result_consumers.py
