#!/bin/bash
# Open exported maps with the programs they are for, in an environment of its own (some GB, minutes).
#   scripts/check_exports.sh [FOLDER]      PYTHON: a Python with this package; default: python
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-out/exports}
python=${PYTHON:-python}
"$python" scripts/check_exports.py make "$folder"
if [ ! -d "$folder/programs" ]; then
  "$python" -m venv "$folder/programs"
  "$folder/programs/bin/pip" install -q silx nexusformat scippnexus PyMca5 pyxrf ome-types tifffile h5py
fi
"$folder/programs/bin/python" scripts/check_exports.py check "$folder"
