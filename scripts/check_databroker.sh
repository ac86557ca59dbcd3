#!/bin/sh
# The stores and the replay, tested with no databroker and with databroker 1.2.5 (the APS one);
# 2.0.2 is in the development environment. Uses a fresh virtual environment in a temporary folder.
#
#     scripts/check_databroker.sh            PYTHON=python3.12 scripts/check_databroker.sh
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# A copy, because building a wheel writes into the source folder.
mkdir "$work/source"
(cd "$root" && git ls-files -z --cached --others --exclude-standard |
    tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null) | tar -xf - -C "$work/source"

# The project's pins, but for what databroker 1 wants in other versions.
: > "$work/constraints.txt"
if [ -f "$root/constraints.txt" ]; then
    grep -v -i -E '^(databroker|tiled|intake|bluesky-tiled-plugins|pymongo|mongomock)' \
        "$root/constraints.txt" > "$work/constraints.txt" || true
fi

"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
install() {
    "$python" -m pip install --quiet --disable-pip-version-check -c "$work/constraints.txt" "$@"
}

# Without the checkout on sys.path: there, callbacks/ lies beside the package and not in it.
PYTHONSAFEPATH=1
OMP_NUM_THREADS=1
export PYTHONSAFEPATH OMP_NUM_THREADS

check() {
    echo "== tests/store with databroker: $1 =="
    "$python" -c "
from importlib.util import find_spec
found = find_spec('databroker') and __import__('databroker').__version__
assert str(found) == '$1', found"
    (cd "$work/source" &&
        "$python" -m pytest -q -p no:cacheprovider -m 'not e2e and not slow' tests/store)
}

install "$work/source" pytest pytest-timeout hypothesis
check None
install databroker==1.2.5
check 1.2.5
