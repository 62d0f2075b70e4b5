"""`covid-tf`: one command a job; each lives in `covid_tf.commands`."""

import argparse
import importlib
import sys
import warnings

from covid_tf import errors
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
  parser = _parser()
  if not argv or argv[0] not in _COMMANDS:
    parser.parse_args(argv or ['--help'])
  command = importlib.import_module(f'covid_tf.commands.{argv[0]}')
  parser = argparse.ArgumentParser(
      f'covid-tf {argv[0]}', description=_COMMANDS[argv[0]])
  command.add_arguments(parser)
  # `serve` takes flags of another program; the others take only their own.
  parse = getattr(command, 'parse', argparse.ArgumentParser.parse_args)
  try:
    arguments = parse(parser, argv[1:])
    # Warnings of libraries quote values of headers and lines of their source. What
    # a person should know is in our own words in the results.
    with warnings.catch_warnings(action='ignore'):
      return command.run(arguments)
  except errors.CovidTFError as error:
    print(f'covid-tf {argv[0]}: {error}', file=sys.stderr)
    return error.exit_status
  except KeyboardInterrupt:
    print(f'covid-tf {argv[0]}: interrupted', file=sys.stderr)
    return 130  # The shell's convention: 128 + SIGINT.


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
