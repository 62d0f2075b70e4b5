#!/usr/bin/env bash
# Builds the documentation site, offline: build/site/index.html. A warning is an error.
# COVID_TF_PYTHON names a Python that has what the extra `docs` asks for; else .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

install() {
  .venv/bin/python tools/requirements.py models-cpu training clinic itk pandas docs \
    > .venv/requirements-docs.txt
  pip_install --requirement .venv/requirements-docs.txt
  # The plain client of a tutorial: as in tools/test.sh.
  pip_install --no-deps 'tensorflow-serving-api>=2.21,<2.22'
}

if [ -z "${COVID_TF_PYTHON:-}" ]; then
  make_environment docs install
  COVID_TF_PYTHON=$PWD/.venv/bin/python
fi
PATH="$(dirname "$COVID_TF_PYTHON"):$PATH"
export PATH PYTHONPATH="$PWD" TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
export TF_ENABLE_ONEDNN_OPTS=1  # As the commands set it.

unset MPLBACKEND  # Agg would keep a notebook's figures from being shown.

# The tutorials run again, and the reference is written anew, when one of these changed.
state=$(find covid_tf docs/tutorials docs/how_it_works.md docs/reference docs/conf.py \
  tools/*.py constraints.txt -type f -not -name '*.pyc' -print0 2> /dev/null \
  | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
build=$PWD/build/docs
export PATH="$build/bin:$PATH"
export COVID_TF_TUTORIALS="$build/tutorials" COVID_TF_NOTEBOOK_CACHE="$build/notebooks"
if [ "$(cat "$build/state" 2> /dev/null)" != "$state" ]; then
  rm -rf "$build"
  mkdir -p "$build"
  # The command as a wheel installs it; here the checkout is on the path alone.
  mkdir "$build/bin"
  printf '#!/bin/sh\nexec python -m covid_tf.cli "$@"\n' > "$build/bin/covid-tf"
  chmod +x "$build/bin/covid-tf"
  JUPYTER_PLATFORM_DIRS=1 python docs/tutorials/prepare.py \
    "$COVID_TF_TUTORIALS" "$COVID_TF_NOTEBOOK_CACHE"
fi
# JUPYTER_PLATFORM_DIRS: else a note on standard error.
JUPYTER_PLATFORM_DIRS=1 python -m sphinx --quiet --jobs 2 --fail-on-warning --keep-going \
  -c docs -d "$build/doctrees" -b html . build/site
echo "$state" > "$build/state"
echo "$PWD/build/site/index.html"
