"""Prints what setup.cfg requires, one a line: `python tools/requirements.py dev dask`.

Names of extras add theirs to the base install's. The tests install third parties
alone: with the package itself installed, Bazel could not see a missing dependency.
`--constraints` prints the versions that are installed here instead, as constraints.txt
holds them; tools/renew_constraints.sh asks for that in a fresh environment.
"""

import argparse
import configparser
import importlib.metadata
import pathlib
import platform
import re

_HEADER = """\
# Versions that the tests ran with, on x86-64 Linux and Python {python}.
# Written by tools/renew_constraints.sh; tools/demo.sh and tools/test.sh install these.
"""
# pip is no part of it: an environment's own installs the rest.
_LEFT_OUT = {'pip', 'covid-tf'}


def requirements(extras: list[str]) -> list[str]:
  """Requirement lines of the base install and of the named extras."""
  setup = configparser.ConfigParser()
  setup.read(pathlib.Path(__file__).parents[1] / 'setup.cfg')
  blocks = [setup['options']['install_requires']]
  blocks += [setup['options.extras_require'][extra] for extra in extras]
  return [line for block in blocks for line in block.split('\n') if line]


def constraints() -> str:
  """Text of constraints.txt for the environment that this runs in."""
  versions = {
    re.sub(r'[-_.]+', '-', found.metadata['Name']).lower(): found.version
    for found in importlib.metadata.distributions()
  }
  # One release under two names, of which an environment holds one.
  versions['tensorflow'] = versions['tensorflow-cpu']
  lines = [
    f'{name}=={version}\n'
    for name, version in sorted(versions.items())
    if name not in _LEFT_OUT
  ]
  python = '.'.join(platform.python_version_tuple()[:2])
  return _HEADER.format(python=python) + ''.join(lines)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('extras', nargs='*', help='names of extras in setup.cfg')
  parser.add_argument(
    '--constraints',
    action='store_true',
    help='print the versions that are installed here instead',
  )
  arguments = parser.parse_args()
  if arguments.constraints:
    print(constraints(), end='')
  else:
    print('\n'.join(requirements(arguments.extras)))
