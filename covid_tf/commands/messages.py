"""What a command says beside its result: on standard error, and in a log file."""

import argparse
from collections.abc import Iterator
import contextlib
import io
import logging
import os
import sys

import tqdm

from covid_tf import errors
from covid_tf.version import __version__

_PACKAGE = 'covid_tf'  # Its loggers alone: others may quote what a header holds.


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --verbose, --quiet and --log-file."""
  group = parser.add_argument_group('messages')
  loudness = group.add_mutually_exclusive_group()
  loudness.add_argument(
    '-v', '--verbose', action='store_true', help='say each step on standard error'
  )
  loudness.add_argument(
    '-q',
    '--quiet',
    action='store_true',
    help='on standard error errors alone: no bars, no warnings (results have them)',
  )
  group.add_argument(
    '--log-file',
    metavar='FILE',
    help='append each step, warnings and errors, with the time',
  )


@contextlib.contextmanager
def spoken(command: str, arguments: argparse.Namespace) -> Iterator[None]:
  """Within the block, messages of the package go where the flags say.

  Errors of the package that end the block are written to the log file; telling the
  user of them is left to the caller.

  Args:
    command: its name, such as 'covid-tf score', before each message.
    arguments: the parsed flags.

  Raises:
    errors.OutputError: the log file cannot be opened.
  """
  logger = logging.getLogger(_PACKAGE)
  handlers: list[logging.Handler] = [_terminal(command, arguments)]
  with contextlib.ExitStack() as stack:
    if arguments.log_file is not None:
      handlers.append(_file(command, arguments.log_file))
      stack.callback(handlers[-1].close)
    stack.callback(logger.setLevel, logger.level)
    if not logging.getLogger().handlers:
      # A library that configures logging meanwhile would say everything once more.
      stack.callback(setattr, logger, 'propagate', logger.propagate)
      logger.propagate = False
    logger.setLevel(min(handler.level for handler in handlers))
    for handler in handlers:
      logger.addHandler(handler)
      stack.callback(logger.removeHandler, handler)
    if arguments.quiet:
      # Bars and lines of progress ask sys.stderr whether it is a terminal.
      stack.enter_context(contextlib.redirect_stderr(_Nowhere()))
    logger.info('version %s', __version__)
    try:
      yield
    except errors.CovidTFError as error:
      for handler in handlers[1:]:
        handler.handle(
          logger.makeRecord(_PACKAGE, logging.ERROR, '', 0, '%s', (error,), None)
        )
      raise
    logger.info('ends')


class _Nowhere(io.StringIO):
  """Takes what is printed and keeps none of it."""

  def write(self, text: str) -> int:
    return len(text)


class _Beside(logging.StreamHandler):
  """Writes above a progress bar instead of through it."""

  def emit(self, record: logging.LogRecord) -> None:
    with tqdm.tqdm.external_write_mode(file=self.stream):
      super().emit(record)


def _terminal(command: str, arguments: argparse.Namespace) -> logging.Handler:
  handler = _Beside(sys.stderr)
  handler.setFormatter(logging.Formatter(f'{command}: %(message)s'))
  handler.setLevel(
    logging.ERROR
    if arguments.quiet
    else logging.INFO
    if arguments.verbose
    else logging.WARNING
  )
  return handler


def _file(command: str, path: str | os.PathLike[str]) -> logging.Handler:
  try:
    handler = logging.FileHandler(path, encoding='utf-8', errors='backslashreplace')
  except OSError as error:
    raise errors.OutputError(
      f'--log-file {path}: a file that can be written is required, found '
      f'{error.strerror}; name another one.'
    ) from error
  handler.setFormatter(
    logging.Formatter(
      f'%(asctime)s %(process)d {command} %(levelname)s %(message)s',
      datefmt='%Y-%m-%dT%H:%M:%S%z',
    )
  )
  handler.setLevel(logging.INFO)
  return handler
