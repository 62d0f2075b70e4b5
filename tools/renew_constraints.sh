#!/usr/bin/env bash
# Writes constraints.txt: the newest releases that setup.cfg allows, installed together
# in an environment of their own. Then run the tests, and commit it with what they need.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$(find_python)" -m venv "$folder/environment"
python=$folder/environment/bin/python
"$python" tools/requirements.py models-cpu training dask clinic docs dev \
  > "$folder/requirements.txt"
"$python" -m pip install --quiet --upgrade setuptools wheel
"$python" -m pip install --quiet --requirement "$folder/requirements.txt"
"$python" -m pip install --quiet --no-deps 'tensorflow-serving-api>=2.21,<2.22'
"$python" tools/requirements.py --constraints > "$folder/constraints.txt"
mv "$folder/constraints.txt" constraints.txt
git --no-pager diff --stat -- constraints.txt
