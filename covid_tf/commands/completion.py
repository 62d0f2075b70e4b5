"""`covid-tf completion`: a script that completes our command lines in a shell."""

import argparse

import shtab

from covid_tf import commands
from covid_tf.commands import messages
from covid_tf.commands import site_configuration

_SHELLS = ('bash', 'zsh', 'fish')
# What a value is, by the name that the help gives it.
_FOLDERS = frozenset(('DIR',))
_FILES = frozenset(('FILE', 'PEM', 'STUDY', 'STUDIES', 'RESULT', 'RESULTS', 'PATH'))


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's argument."""
  parser.add_argument(
    'shell', choices=_SHELLS, help='for instance: eval "$(covid-tf completion bash)"'
  )


def run(arguments: argparse.Namespace) -> int:
  """Prints the script; returns 0."""
  print(shtab.complete(_whole_parser(), arguments.shell))
  return 0


def _whole_parser() -> argparse.ArgumentParser:
  whole = argparse.ArgumentParser('covid-tf')
  whole.add_argument('--version', action='store_true', help='print the version')
  subparsers = whole.add_subparsers()
  for name, help_ in commands.COMMANDS.items():
    command = subparsers.add_parser(name, help=help_)
    commands.module(name).add_arguments(command)
    messages.add_arguments(command)
    if not hasattr(commands.module(name), 'parse'):
      site_configuration.add_arguments(command)
    for action in command._actions:
      names = set(str(action.metavar).replace('|', ' ').split())
      if names & _FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
      elif names & _FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
  return whole
