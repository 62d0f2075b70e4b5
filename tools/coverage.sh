#!/usr/bin/env bash
# Which lines and branches of covid_tf the tests reach: of all tests, or of the files,
# folders and flags of pytest that are given. Needs the environment of tools/test.sh.
#
# Not part of tools/test.sh: Bazel runs each test file in a sandbox of its own, and
# measuring takes time (processor time +44 % for tests/statistics, storage and analysis).
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
if [ ! -x "$python" ]; then python=python; fi
"$python" -c 'import coverage' 2> /dev/null || {
  echo "Coverage: the package coverage is required; run tools/test.sh once, which" \
    "installs the extra dev into .venv."
  exit 2
}
status=0
"$python" -m coverage erase
"$python" -m coverage run -m pytest -q "${@:-tests}" || status=$?
"$python" -m coverage combine --quiet
"$python" -m coverage report
echo
echo 'By package, in percent:'
for folder in covid_tf/*/; do
  package=$(basename "$folder")
  if [ ! -f "$folder/__init__.py" ]; then continue; fi
  printf '%-14s%4s\n' "$package" \
    "$("$python" -m coverage report --include="$folder*" --format=total)"
done
exit "$status"
