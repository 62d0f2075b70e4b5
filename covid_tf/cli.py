"""`covid-tf`: one command a job; each lives in `covid_tf.commands`."""

import argparse
import contextlib
import importlib
import sys
import warnings

from covid_tf import errors
from covid_tf.commands import terminal
from covid_tf.version import __version__

# Command -> its line in the help. The module of the same name is imported only
# when it is called: `covid-tf --help` waits for no library.
_COMMANDS = {
    'score': 'score one study: result.json, report.html, map and mask',
    'inspect': 'geometry and HU of a study, or why it is refused',
    'serve': "serve models over TF Serving's gRPC protocol",
    'check': 'ask a server, or models of a folder, whether they compute right',
    'demo': 'the whole path on a phantom cohort, offline',
    'cohort': 'ROC, severity and figures over many results',
    'compare': 'one patient over time',
    'manifestations': 'cluster slices into kinds of disease',
    'batch': 'score an archive, every study exactly once',
}


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its status (0, 2 use, 3 study, 4 model, 5 output)."""
  argv = sys.argv[1:] if argv is None else argv
  with terminal.safe_streams() as streams:
    status, writes_files = _run(argv)
    with contextlib.suppress(ValueError):  # Closed by somebody.
      sys.stdout.flush()
    if status == 0 and streams.failure and not writes_files:
      # Of a command that has written its files, these are what was asked for.
      print(f'covid-tf: standard output cannot be written: '
            f'{streams.failure.strerror}; send it to another place.', file=sys.stderr)
      status = errors.OutputError.exit_status
  return status


def _run(argv: list[str]) -> tuple[int, bool]:
  """Status, and whether the command writes files (else its output is the result)."""
  name, writes_files = 'covid-tf', False
  try:
    if not argv or argv[0] not in _COMMANDS:
      _parser().parse_args(argv or ['--help'])
    name = f'covid-tf {argv[0]}'
    command = importlib.import_module(f'covid_tf.commands.{argv[0]}')
    parser = argparse.ArgumentParser(name, description=_COMMANDS[argv[0]])
    command.add_arguments(parser)
    # `serve` takes flags of another program; the others take only their own.
    parse = getattr(command, 'parse', argparse.ArgumentParser.parse_args)
    arguments = parse(parser, argv[1:])
    writes_files = hasattr(arguments, 'output')
    # Warnings of libraries quote values of headers and lines of their source. What
    # a person should know is in our own words in the results.
    with warnings.catch_warnings(action='ignore'):
      return command.run(arguments), writes_files
  except SystemExit as end:  # Of argparse, after the help or a wrong argument.
    return end.code or 0, writes_files
  except errors.CovidTFError as error:
    print(f'{name}: {error}', file=sys.stderr)
    return error.exit_status, writes_files
  except KeyboardInterrupt:
    print(f'{name}: interrupted', file=sys.stderr)
    return 130, writes_files  # The shell's convention: 128 + SIGINT.


def _parser() -> argparse.ArgumentParser:
  width = max(map(len, _COMMANDS)) + 2
  listing = '\n'.join(f'  {name:{width}}{help_}' for name, help_ in _COMMANDS.items())
  parser = argparse.ArgumentParser(
      'covid-tf',
      description='COVID-19 opacities on chest CT: found, localized, measured in cm³.',
      epilog=f'commands:\n{listing}\n\nResearch use only.',
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--version', action='version', version=__version__)
  parser.add_argument('command', choices=tuple(_COMMANDS), metavar='COMMAND')
  return parser


if __name__ == '__main__':
  sys.exit(main())
