"""Prints what setup.cfg requires, one a line: `python tools/requirements.py dev dask`.

Names of extras add theirs to the base install's. The tests install third parties
alone: with the package itself installed, Bazel could not see a missing dependency.
"""

import configparser
import pathlib
import sys


def requirements(extras: list[str]) -> list[str]:
  """Requirement lines of the base install and of the named extras."""
  setup = configparser.ConfigParser()
  setup.read(pathlib.Path(__file__).parents[1] / 'setup.cfg')
  blocks = [setup['options']['install_requires']]
  blocks += [setup['options.extras_require'][extra] for extra in extras]
  return [line for block in blocks for line in block.split('\n') if line]


if __name__ == '__main__':
  print('\n'.join(requirements(sys.argv[1:])))
