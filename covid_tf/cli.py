"""`covid-tf`: one command a job; each lives in `covid_tf.commands`."""

import argparse
import contextlib
import os
import sys
import warnings

from covid_tf import commands
from covid_tf import errors
from covid_tf import streams
from covid_tf.commands import messages
from covid_tf.commands import site_configuration
from covid_tf.version import __version__

# Flags of every command, and whether a value follows.
_EVERYWHERE = {
  **dict.fromkeys(('-v', '--verbose', '-q', '--quiet', '--no-config'), False),
  **dict.fromkeys(('--log-file', '--config'), True),
}


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its status (0, 2 use, 3 study, 4 model, 5 output)."""
  argv = _command_first(sys.argv[1:] if argv is None else argv)
  # What fails is said by our errors; gRPC would print its own view of it besides.
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  with streams.safe_streams() as printed:
    status, writes_files = _run(argv)
    with contextlib.suppress(ValueError):  # Closed by somebody.
      sys.stdout.flush()
    if status == 0 and printed.failure and not writes_files:
      # Of a command that has written its files, these are what was asked for.
      print(
        f'covid-tf: standard output cannot be written: '
        f'{printed.failure.strerror}; send it to another place.',
        file=sys.stderr,
      )
      status = errors.OutputError.exit_status
  return status


def _command_first(argv: list[str]) -> list[str]:
  """The same line with the command before flags that all commands have.

  `covid-tf -v score STUDY` is as common a habit as `covid-tf score -v STUDY`.
  """
  place = 0
  while place < len(argv) and argv[place].partition('=')[0] in _EVERYWHERE:
    takes_value = _EVERYWHERE[argv[place].partition('=')[0]]
    place += 2 if takes_value and '=' not in argv[place] else 1
  if 0 < place < len(argv) and argv[place] in commands.COMMANDS:
    return [argv[place], *argv[:place], *argv[place + 1 :]]
  return argv


def _run(argv: list[str]) -> tuple[int, bool]:
  """Status, and whether the command writes files (else its output is the result)."""
  name, writes_files = 'covid-tf', False
  try:
    if not argv or argv[0] not in commands.COMMANDS:
      _parser().parse_args(argv or ['--help'])
    name = f'covid-tf {argv[0]}'
    command = commands.module(argv[0])
    parser = argparse.ArgumentParser(name, description=commands.COMMANDS[argv[0]])
    command.add_arguments(parser)
    messages.add_arguments(parser)
    if parse := getattr(command, 'parse', None):
      arguments = parse(parser, argv[1:])  # `serve` takes flags of another program too.
    else:
      site_configuration.add_arguments(parser)
      arguments = site_configuration.parse(parser, argv[0], argv[1:])
    writes_files = hasattr(arguments, 'output')
    # Warnings of libraries quote values of headers and lines of their source. What
    # a person should know is in our own words in the results.
    with (
      warnings.catch_warnings(action='ignore'),
      messages.spoken(name, arguments),
    ):
      return command.run(arguments), writes_files
  except SystemExit as end:  # Of argparse, after the help or a wrong argument.
    return int(end.code or 0), writes_files
  except errors.CovidTFError as error:
    source = site_configuration.source_of(error, argv[1:])
    print(f'{name}: {error}{source}', file=sys.stderr)
    return error.exit_status, writes_files
  except KeyboardInterrupt:
    print(f'{name}: interrupted', file=sys.stderr)
    return 130, writes_files  # The shell's convention: 128 + SIGINT.


def _parser() -> argparse.ArgumentParser:
  width = max(map(len, commands.COMMANDS)) + 2
  listing = '\n'.join(
    f'  {name:{width}}{help_}' for name, help_ in commands.COMMANDS.items()
  )
  parser = argparse.ArgumentParser(
    'covid-tf',
    description='COVID-19 opacities on chest CT: found, localized, measured in cm³.',
    epilog=f'commands:\n{listing}\n\nWhat a command takes: covid-tf COMMAND --help\n\n'
    'Research use only.',
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--version', action='version', version=__version__)
  parser.add_argument('command', choices=tuple(commands.COMMANDS), metavar='COMMAND')
  return parser


if __name__ == '__main__':
  sys.exit(main())
