# Sourced by demo.sh and test.sh: a virtual environment in .venv, made once.
#   make_environment NAME COMMAND…   runs COMMAND in .venv unless it has run for NAME
#                                    with today's setup.cfg and constraints.txt.

find_python() {
  local candidate
  for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is required, found none on PATH; install it." >&2
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

make_environment() {
  local name=$1 python stamp
  shift
  python=$(find_python)
  # Debian's python3 comes without venv's ensurepip.
  if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv; then
    as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv
    "$python" -m venv --clear .venv
  fi
  stamp=".venv/$name-$(cat setup.cfg constraints.txt tools/*.sh | sha256sum | cut -c1-16)"
  if [ ! -e "$stamp" ]; then
    echo "Installing into .venv (several hundred MB the first time) …"
    "$@"
    touch "$stamp"
  fi
}

# The versions of constraints.txt, of what is built from source too; the newest ones on
# a Python for which not all of these exist.
pip_install() {
  local constraints=constraints.txt
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 14))'; then
    echo "constraints.txt is for Python 3.11 to 3.13; newest versions are installed." >&2
    constraints=
  fi
  # pip reads the first in its own process, of late the second where it builds.
  PIP_CONSTRAINT=$constraints PIP_BUILD_CONSTRAINT=$constraints \
    .venv/bin/python -m pip install --quiet --retries 5 --disable-pip-version-check "$@"
}
