#!/bin/sh
# Surveys with rescans, and their replay, in the stock environments of the field: an instrument of
# BITS (APS), a profile of nslsii.configure_base (NSLS-II, needs Python 3.12), blueapi (Diamond),
# and a RE Manager. Each has a virtual environment of its own in build/neighbours, which is kept.
#
#     scripts/check_neighbours.sh                    scripts/check_neighbours.sh bits queue
#     PYTHON=python3.11 PYTHON312=/opt/python3.12/bin/python3.12 scripts/check_neighbours.sh
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
work="$root/build/neighbours"
mkdir -p "$work"

# Without the checkout on sys.path: there, callbacks/ lies beside the package and not in it.
PYTHONSAFEPATH=1
PYTHONPATH="$work/source/tests"
OMP_NUM_THREADS=1
PYTHONWARNINGS=ignore
MPLBACKEND=agg
export PYTHONSAFEPATH PYTHONPATH OMP_NUM_THREADS PYTHONWARNINGS MPLBACKEND

python_312() {
    for candidate in "${PYTHON312:-}" python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python; do
        # It has to run: pyenv has shims for versions that are not switched on.
        if [ -n "$candidate" ] && "$candidate" --version > /dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "no Python 3.12, which nslsii needs: set PYTHON312" >&2
    return 1
}

# What is installed in each environment besides this package and its extra "sr".
packages() {
    case $1 in
        bits) echo "apsbits==2.0.4 apstools==1.7.12" ;;
        nsls2) echo "nslsii databroker[all] ipython" ;;
        blueapi) echo "blueapi" ;;
        queue) echo "bluesky-queueserver bluesky-queueserver-api fakeredis[lua]" ;;
        *) echo "no environment '$1': bits, nsls2, blueapi or queue" >&2; return 1 ;;
    esac
}

# A copy, because building a wheel writes into the source folder.
rm -rf "$work/source"
mkdir "$work/source"
(cd "$root" && git ls-files -z --cached --others --exclude-standard |
    tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null) | tar -xf - -C "$work/source"

check() {
    leg=$1
    wanted=$(packages "$leg")
    here="$work/$leg"
    python="$here/venv/bin/python"
    mkdir -p "$here"
    if [ "$(cat "$here/installed" 2> /dev/null)" != "$wanted" ]; then
        rm -rf "$here/venv"
        if [ "$leg" = nsls2 ]; then base=$(python_312); else base=${PYTHON:-python3}; fi
        "$base" -m venv "$here/venv"
        # shellcheck disable=SC2086 # several words
        "$python" -m pip install --quiet --disable-pip-version-check "$work/source[sr]" $wanted
        echo "$wanted" > "$here/installed"
    fi
    # The package as it is now, with all that its dependencies need.
    "$python" -m pip install --quiet --disable-pip-version-check "$work/source[sr]"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
        "$work/source"
    "$python" -m pip check
    echo "== $leg: $("$python" --version), $wanted =="
    rm -rf "$here/work"
    rc=0
    (cd "$here" && "$python" "$work/source/tests/neighbours/check_$leg.py" "$here/work") \
        > "$here/log.txt" 2>&1 || rc=$?
    # Callbacks that fail are caught by the RunEngine and only print.
    if [ "$rc" != 0 ] || grep -q "Traceback (most recent call last)" "$here/log.txt"; then
        tail -n 60 "$here/log.txt" | cut -c 1-400
        echo "== $leg failed ($rc) =="
        return 1
    fi
    grep "^survey:" "$here/log.txt"
}

for leg in ${*:-bits nsls2 blueapi queue}; do
    check "$leg"
done
