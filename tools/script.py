"""How every script here begins and ends: its flags, and the status it exits with."""

from collections.abc import Callable
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging

from covid_tf import cli
from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import slabs
from covid_tf.predictors import in_process

# Here: a script may import TensorFlow at its top, and it imports this module first.
in_process.set_defaults()

# What asks for help instead of a run.
_HELP = ('h', 'help', 'helpfull', 'helpshort', '?')
_INTERRUPTED = 130  # The shell's convention: 128 + SIGINT.


def run(main: Callable[[], None]) -> None:
  """Parses the flags and runs a script; exits as `covid-tf` does.

  Args:
    main: does the work. Of an errors.CovidTFError the text is printed, in one line,
      and its status is the script's.
  """
  with cli.safe_streams():
    app.run(lambda argv: _run(main, argv), flags_parser=_parse)


def check_thickness(flag: str, thickness_mm: float) -> None:
  """Raises errors.UsageError unless it is a thickness that slices can have."""
  try:
    results.check_thickness(thickness_mm)
  except ValueError as error:
    raise errors.UsageError(f'{flag}: {error}') from None


def smoothing(flag: str, stated_mm: float | None, every_slice: bool) -> float:
  """The smoothing along the body: stated, else as `covid-tf score` has it.

  Raises:
    errors.UsageError: it is none.
  """
  try:
    asked = results.Thresholds(every_slice=every_slice, smoothing_mm=stated_mm)
  except ValueError as error:
    raise errors.UsageError(f'{flag}: {error}') from None
  return slabs.as_used(asked, ()).smoothing_mm


def check_shift(shift, source, classifier) -> None:
  """Refuses a shift of the logit without a classifier, and its source without it.

  Args:
    shift, source, classifier: the flags, as absl gives them.

  Raises:
    errors.UsageError: one of them lacks the other.
  """
  if shift.value is not None and not classifier.value:
    raise errors.UsageError(
      f'--{shift.name}: --{classifier.name} is required, found none.'
    )
  if source.value and shift.value is None:
    raise errors.UsageError(f'--{source.name}: --{shift.name} is required, found none.')


def _parse(argv):
  """Unlike absl's own, with the status of wrong use, and without a page of help."""
  if any(
    argument.lstrip('-') in _HELP and argument.startswith('-') for argument in argv[1:]
  ):
    print(_help())
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    text = ' '.join(str(error).split())
    _exit(f'{text} --help lists the flags.', errors.UsageError.exit_status)
  if flags.FLAGS['verbosity'].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING  # Else absl shows TensorFlow's notes.
  return rest


def _help() -> str:
  """What the script is for, and every flag that the scripts here have defined."""
  folder = pathlib.Path(__file__).resolve().parent
  started = sys.modules['__main__']
  parts = [(started.__doc__ or '').strip()]
  for name, defined in flags.FLAGS.flags_by_module_dict().items():
    path = getattr(sys.modules.get(name), '__file__', None) or name
    if folder in pathlib.Path(path).resolve().parents:
      parts += map(_flag_help, defined)
  return '\n'.join((parts[0], '\nflags:', *parts[1:]))


def _flag_help(flag) -> str:
  if flag.boolean:
    name, default = f'--[no]{flag.name}', 'true' if flag.default else 'false'
  else:
    name = f'--{flag.name}=VALUE'
    if isinstance(flag, flags.EnumFlag):
      name = f'--{flag.name}={"|".join(flag.parser.enum_values)}'
    default = flag.default
  # absl keeps "required" as a check of the value, and nowhere else.
  is_required = any('other than None' in check.message for check in flag.validators)
  notes = [
    'may be given several times' if isinstance(flag, flags.MultiFlag) else '',
    'required' if is_required else '',
    '' if default in (None, [], '') else f'default: {default}',
  ]
  notes = '; '.join(filter(None, notes))
  # absl adds to the text what is said here in another way.
  text = flag.help.partition(';\n')[0]
  if isinstance(flag, flags.EnumFlag):
    text = text.partition('>: ')[2]
  return f'  {name}\n      {text}' + (f' ({notes})' if notes else '')


def _run(main, argv):
  if len(argv) > 1:
    _exit(
      f'only flags are understood, found {argv[1]!r}; a flag that takes several '
      'values is given once for each.',
      errors.UsageError.exit_status,
    )
  try:
    main()
  except errors.CovidTFError as error:
    _exit(str(error), error.exit_status)
  except KeyboardInterrupt:
    _exit('interrupted', _INTERRUPTED)


def _exit(text, status):
  print(f'{pathlib.Path(sys.argv[0]).stem}: {text}', file=sys.stderr)
  sys.exit(status)
