#!/usr/bin/env bash
# Installs what the tests need, checks spelling, style, types and imports, runs all
# tests with Bazel and sums them up.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

install() {
  .venv/bin/python tools/requirements.py models-cpu training dask clinic docs dev \
    > .venv/requirements.txt
  pip_install --requirement .venv/requirements.txt
  # Its requirement of full TensorFlow is met by tensorflow-cpu, which pip cannot know.
  pip_install --no-deps 'tensorflow-serving-api>=2.21,<2.22'
}

if ! command -v bazel > /dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq bazel-bootstrap > /dev/null
fi
# Draws the pages that tests look at; without it these tests are skipped.
if ! command -v chromium > /dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq chromium > /dev/null
fi
# Validators of DICOM and a PACS; tests of what is missing here are skipped.
if ! { command -v dciodvfy && command -v findscu && command -v Orthanc; } > /dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq dicom3tools dcmtk pixelmed-apps orthanc orthanc-dicomweb > /dev/null
fi
# Shells whose completion is tried; without one its tests are skipped.
if ! { command -v fish && command -v zsh; } > /dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq fish zsh > /dev/null
fi
make_environment test install

# Bazel runs the first python3 on PATH.
export PATH="$PWD/.venv/bin:$PATH"
status=0
# While types and the wheel are checked: each leaves a core to the other.
COVID_TF_PYTHON=$PWD/.venv/bin/python bash tools/docs.sh > .venv/docs.log 2>&1 &
docs=$!
codespell || status=$?
ruff check --quiet . || status=$?
ruff format --check --quiet . || status=$?
mypy --no-error-summary || status=$?
# Real CT is read where it lies and never kept here; without it the rest runs.
real_ct=$(realpath --quiet "${COVID_TF_REAL_CT:-../shared/data}" || true)
if [ ! -d "$real_ct" ]; then
  echo "Real CT: none at ${COVID_TF_REAL_CT:-../shared/data} (COVID_TF_REAL_CT);" \
    "tests that read it are skipped."
fi
# What `pip install covid-tf` would install; a test runs it outside of the checkout.
wheel=$PWD/.venv/wheel
rm -rf "$wheel"
{ python -m build --wheel --outdir "$wheel" . && twine check --strict "$wheel"/*.whl; } \
  > .venv/wheel.log 2>&1 || { cat .venv/wheel.log; status=1; }
lint-imports > .venv/imports.log || { cat .venv/imports.log; status=1; }
wait "$docs" || { cat .venv/docs.log; status=1; }
bazel test --config=offline --noshow_progress \
  --test_env=COVID_TF_REAL_CT="$real_ct" --test_env=COVID_TF_WHEEL="$wheel" "$@" //... || status=$?
targets=$(bazel query --noshow_progress 'tests(//...)' 2> /dev/null)
logs=$(bazel info --config=offline bazel-testlogs 2> /dev/null)
# shellcheck disable=SC2086
python3 tools/bazel/summary.py "$logs" $targets || status=1
bazel shutdown > /dev/null 2>&1 || true
exit "$status"
