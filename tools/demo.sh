#!/usr/bin/env bash
# The whole path on phantoms, offline: bash tools/demo.sh [--output DIR] …
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

install() {
  pip_install --editable '.[models-cpu]'
}

make_environment demo install
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} CUDA_VISIBLE_DEVICES=-1
exec .venv/bin/covid-tf demo "$@"
