"""How every script here begins and ends: its flags, and the status it exits with."""

from collections.abc import Callable
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging

from covid_tf import errors
from covid_tf import results
from covid_tf import streams
from covid_tf.analysis import slabs
from covid_tf.predictors import in_process

# What asks for help instead of a run.
_HELP = ('h', 'help', 'helpfull', 'helpshort', '?')
_INTERRUPTED = 130  # The shell's convention: 128 + SIGINT.


def run(
  main: Callable[[], None],
  *own: flags.FlagValues,
  help_: str | None = None,
  needs_tensorflow: bool = False,
) -> None:
  """Parses the flags and runs a script; exits as `covid-tf` does.

  Args:
    main: does the work. Of an errors.CovidTFError the text is printed, in one line,
      and its status is the script's.
    own: its flags; none: those that the file defined which was started.
    help_: what it is for; None: the text at the head of that file.
    needs_tensorflow: whether to end where there is none before `main`, which imports
      it: its flags are explained without.
  """
  with streams.safe_streams():
    app.run(
      lambda argv: _run(main, argv, needs_tensorflow),
      flags_parser=lambda argv: _parse(argv, own, help_),
    )


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
  return slabs.as_used(asked, ()).smoothing_mm or 0.0


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


def _parse(argv, own, help_):
  """Unlike absl's own, with the status of wrong use, and without a page of help."""
  if any(
    argument.lstrip('-') in _HELP and argument.startswith('-') for argument in argv[1:]
  ):
    print(_help(own, help_))
    sys.exit(0)
  every: flags.FlagValues = flags.FLAGS
  if own:
    every = flags.FlagValues()
    for values in (flags.FLAGS, *own):  # absl's own, such as --flagfile, too.
      every.append_flag_values(values)
  try:
    rest = every(argv)
  except flags.Error as error:
    text = ' '.join(str(error).split())
    _exit(f'{text} --help lists the flags.', errors.UsageError.exit_status)
  for values in (flags.FLAGS, *own):
    values.mark_as_parsed()
  if flags.FLAGS['verbosity'].using_default_value:
    logging.set_verbosity(logging.WARNING)  # Else absl shows TensorFlow's notes.
  return rest


def _help(own, help_) -> str:
  """What the script is for, and every flag that it has."""
  started = sys.modules['__main__']
  defined = [values[name] for values in own for name in values]
  if not own:
    folder = pathlib.Path(started.__file__ or '').resolve().parent
    for name, found in flags.FLAGS.flags_by_module_dict().items():
      path = getattr(sys.modules.get(name), '__file__', None) or name
      if folder in pathlib.Path(path).resolve().parents:
        defined += found
  text = (help_ or started.__doc__ or '').strip()
  return '\n'.join((text, '\nflags:', *map(_flag_help, defined)))


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
  # absl adds to the text what is said here in another way.
  text = flag.help.partition(';\n')[0]
  if isinstance(flag, flags.EnumFlag):
    text = text.partition('>: ')[2]
  said = '; '.join(filter(None, notes))
  return f'  {name}\n      {text}' + (f' ({said})' if said else '')


def _run(main, argv, needs_tensorflow):
  if len(argv) > 1:
    _exit(
      f'only flags are understood, found {argv[1]!r}; a flag that takes several '
      'values is given once for each.',
      errors.UsageError.exit_status,
    )
  try:
    if needs_tensorflow:
      in_process.require_tensorflow('training, evaluation and export require')
    main()
  except errors.CovidTFError as error:
    _exit(str(error), error.exit_status)
  except KeyboardInterrupt:
    _exit('interrupted', _INTERRUPTED)


def _exit(text, status):
  print(f'{pathlib.Path(sys.argv[0]).stem}: {text}', file=sys.stderr)
  sys.exit(status)
