"""Flags that several commands share: models and servers, and how a study is read."""

import argparse
from collections.abc import Callable, Iterable, Iterator
import contextlib
import os
import pathlib
import re
import sys
import textwrap
from typing import Any

from covid_tf import errors
from covid_tf import predictors
from covid_tf import results
from covid_tf.predictors import interface
from covid_tf.storage.dicom import objects

# Flags that choose the models; for every command that needs them.


def add_model_arguments(
  parser: argparse.ArgumentParser,
  *,
  several_servers: bool = False,
  self_check: bool = True,
) -> None:
  """Adds --server, --models and what belongs to a server.

  Args:
    parser: of the command.
    several_servers: whether the command splits --server at commas.
    self_check: whether models are checked when they are opened, and a flag is
      wanted that leaves it out.
  """
  source = parser.add_mutually_exclusive_group()
  source.add_argument(
    '--server',
    metavar='HOST:PORT[,HOST:PORT...]' if several_servers else 'HOST:PORT',
    help='a TF Serving or covid-tf serve gRPC port',
  )
  source.add_argument(
    '--models',
    type=pathlib.Path,
    metavar='DIR',
    help='exported models (DIR/lungs/1, DIR/classifier/1), run in this process; '
    'without --server and --models: the demo models, which show how it works '
    'and nothing more',
  )
  if self_check:
    parser.add_argument(
      '--no-self-check',
      action='store_true',
      help='do not ask the models first whether they compute right, which takes a '
      'few seconds (covid-tf check asks more)',
    )
  else:
    parser.set_defaults(no_self_check=True)
  server = parser.add_argument_group('how to reach --server')
  server.add_argument(
    '--tls', action='store_true', help='encrypted, by public authorities'
  )
  server.add_argument('--tls-ca', metavar='PEM', help='encrypted, by this authority')
  server.add_argument('--tls-certificate', metavar='PEM', help='our own certificate')
  server.add_argument('--tls-key', metavar='PEM', help='its private key')
  server.add_argument(
    '--token-file', metavar='FILE', help='a bearer token sent with every call'
  )
  server.add_argument(
    '--timeout',
    type=float,
    default=120.0,
    metavar='SECONDS',
    help='deadline of one call (default 120)',
  )


@contextlib.contextmanager
def open_models(
  arguments: argparse.Namespace, announce: bool = True
) -> Iterator[interface.VersionedModels]:
  """Yields the models that the flags name.

  Args:
    arguments: the parsed flags.
    announce: on a terminal, say what takes some seconds before anything moves.

  Raises:
    errors.UsageError: flags contradict each other.
    errors.ModelError: no server, or not our models.
  """
  options: dict[str, Any] = {'self_check': False} if arguments.no_self_check else {}
  if arguments.server is None:
    _refuse_server_flags(arguments)
    if announce and sys.stderr.isatty():
      print(
        'covid-tf: TensorFlow starts and the models are loaded: some seconds.',
        file=sys.stderr,
      )
    with predictors.load_models(arguments.models, **options) as models:
      yield models
    return
  with predictors.connect(
    arguments.server,
    tls=_tls(arguments),
    metadata=_metadata(arguments),
    timeout_s=arguments.timeout,
    **options,
  ) as models:
    yield models


def are_demo(
  arguments: argparse.Namespace, identities: Iterable[results.ModelIdentity] = ()
) -> bool:
  """Whether the demo models answer: by default, or from wherever they are served."""
  by_default = arguments.server is None and arguments.models is None
  return by_default or any(model.is_demo for model in identities)


def _refuse_server_flags(arguments: argparse.Namespace) -> None:
  for name in ('tls', 'tls_ca', 'tls_certificate', 'tls_key', 'token_file'):
    if getattr(arguments, name):
      raise errors.UsageError(
        f'--{name.replace("_", "-")} belongs to a server: give --server HOST:PORT '
        'too, or leave it out.'
      )


def _tls(arguments: argparse.Namespace) -> predictors.TLS | None:
  files = (arguments.tls_ca, arguments.tls_certificate, arguments.tls_key)
  if not arguments.tls and not any(files):
    return None
  return predictors.TLS(*files)


def _metadata(arguments: argparse.Namespace):
  if arguments.token_file is None:
    return ()
  _token(arguments.token_file)  # A missing file is found before the study is read.
  # Read again for each call: tokens expire while a study runs.
  return lambda: (('authorization', f'Bearer {_token(arguments.token_file)}'),)


def _token(path: str | os.PathLike) -> str:
  try:
    return pathlib.Path(path).read_text('utf-8').strip()
  except OSError as error:
    raise errors.UsageError(
      f'--token-file {path}: a readable file is required, found {error.strerror}.'
    ) from error


def add_allow_mixed(parser: argparse.ArgumentParser, *older_names: str) -> None:
  """Adds --allow-mixed, and the names that it had before."""
  parser.add_argument(
    '--allow-mixed',
    *older_names,
    action='store_true',
    dest='allow_mixed',
    help='take results of several schema versions, models or thresholds, whose '
    'scores do not compare',
  )


# Flags of how a study is read; the same for every command that reads one.


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --select, --phase, --resample-tilt and --ignore-frame-of-reference."""
  reading = parser.add_argument_group('how a study is read')
  reading.add_argument(
    '--select',
    metavar='RULE',
    help='which of several series: conditions separated by commas, applied in order, '
    'for instance thickness=thinnest,kernel=B6*|I7*; also description=, type=, '
    'number=, kvp=, slices=, extent=longest, newest, oldest',
  )
  reading.add_argument(
    '--phase',
    metavar='N|KEYWORD=VALUE',
    help='of a series with several images at one place those to read: the N-th that '
    'the refusal lists, or by a header field, for instance TriggerTime=450',
  )
  reading.add_argument(
    '--resample-tilt',
    action='store_true',
    help='straighten a series with gantry tilt instead of refusing it',
  )
  reading.add_argument(
    '--ignore-frame-of-reference',
    action='store_true',
    help='read a series whose slices have several Frame of Reference UIDs by their '
    'positions',
  )


# Flags of how slices are analysed: thickness, smoothing, and the two thresholds.


def add_analysis_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --slice-threshold, --map-threshold and those of the thickness."""
  group = add_thickness_arguments(parser)
  group.add_argument(
    '--slice-threshold',
    metavar='P',
    help='a slice is positive above this probability (default: 0.5)',
  )
  group.add_argument(
    '--map-threshold',
    metavar='M',
    help='a voxel counts where the map is above this (default: 0.6)',
  )


def add_thickness_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
  """Adds --thickness-mm, --every-slice and --smoothing-mm; returns their group."""
  group = parser.add_argument_group('how slices are analysed')
  thickness = group.add_mutually_exclusive_group()
  thickness.add_argument(
    '--thickness-mm',
    metavar='MM',
    help='average slices that lie closer to slabs this thick (default: what the '
    "classifier's card says, else 5)",
  )
  thickness.add_argument(
    '--every-slice',
    action='store_true',
    help='take each slice as it is, as the paper does',
  )
  group.add_argument(
    '--smoothing-mm',
    metavar='MM',
    help='smooth the logits of slices along the body by a Gaussian of this standard '
    "deviation (default: what the classifier's card says, else 6; 0 with "
    '--every-slice)',
  )
  return group


def thresholds(arguments: argparse.Namespace) -> results.Thresholds:
  """What the flags say of the analysis; that of the case is None.

  Raises:
    errors.UsageError: a value is no thickness, no smoothing or no threshold.
  """
  defaults = results.Thresholds()
  cutoffs = (
    ('slice_probability', '--slice-threshold', 'slice_threshold'),
    ('map', '--map-threshold', 'map_threshold'),
  )
  found = {
    name: share(flag, getattr(arguments, argument, None))
    for name, flag, argument in cutoffs
  }
  return results.Thresholds(
    **{
      name: getattr(defaults, name) if value is None else value
      for name, value in found.items()
    },
    thickness_mm=_length(
      arguments.thickness_mm,
      results.check_thickness,
      f'--thickness-mm: a number above 0 and at most {results.MAX_THICKNESS_MM:g}',
      '5 is usual, --every-slice averages nothing',
    ),
    every_slice=arguments.every_slice,
    smoothing_mm=_length(
      arguments.smoothing_mm,
      results.check_smoothing,
      f'--smoothing-mm: a number from 0 to {results.MAX_SMOOTHING_MM:g}',
      '6 is usual, 0 smooths nothing',
    ),
  )


def share(flag: str, text: str | None) -> float | None:
  """The value of a threshold between 0 and 1; None where it is not given.

  Args:
    flag: its name, for the error.
    text: its value.

  Raises:
    errors.UsageError: it is no number from 0 to below 1.
  """
  if text is None:
    return None
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if not 0 <= value < 1:
    raise errors.UsageError(
      f'{flag}: a number from 0 to below 1 is required, found {text!r}.'
    )
  return value


def _length(
  text: str | None, check: Callable[[float], None], required: str, advice: str
) -> float | None:
  if text is None:
    return None
  try:
    length_mm = float(text)
    check(length_mm)
  except ValueError:
    raise errors.UsageError(
      f'{required} is required, in millimetres, found {text!r}; {advice}.'
    ) from None
  return length_mm


# Flags that correct a study: its lung mask, and slices that are left out.

_RANGE = re.compile(r'([0-9]{1,9})(?:-([0-9]{1,9}))?')
_MOST_SLICES = 100_000  # Ours: no CT has more, and a typing error shall take no memory.


def add_correction_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --lung-mask and --exclude-slices."""
  corrections = parser.add_argument_group('corrections (docs/corrections.md)')
  corrections.add_argument(
    '--lung-mask',
    metavar='FILE',
    help="a NIfTI of 0 and 1 on the CT's grid, taken as the lungs instead of what the "
    'lung network finds',
  )
  corrections.add_argument(
    '--exclude-slices',
    metavar='N-M,…',
    help='slices that count as negative, for instance 3-7,12: numbered as in '
    'result.json, 0 the lowest, both ends included',
  )


def add_region_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --regions and --region-names."""
  regions = parser.add_argument_group('further regions (docs/densities.md)')
  regions.add_argument(
    '--regions',
    metavar='FILE',
    help="a NIfTI label map on the CT's grid, for instance of lobes: score, densities "
    'and involved share of each label',
  )
  regions.add_argument(
    '--region-names',
    metavar='FILE|N=NAME,…',
    help='names of its labels: a JSON file, a table with the columns label and name, '
    "or '1=left_upper_lobe,2=left_lower_lobe'; only named labels are measured",
  )


def excluded_slices(text: str | None) -> tuple[int, ...]:
  """The slices that --exclude-slices names, ascending; none where it is not given.

  Raises:
    errors.UsageError: it is no list of slices and ranges.
  """
  if text is None:
    return ()
  found: set[int] = set()
  for part in text.split(','):
    match = _RANGE.fullmatch(part.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if not first <= last < _MOST_SLICES:
      raise errors.UsageError(
        '--exclude-slices: slices and ranges with commas between them are required, '
        'the lower number first, for instance 3-7,12, found '
        f'{textwrap.shorten(part.strip(), 40)!r}.'
      )
    found.update(range(first, last + 1))
  return tuple(sorted(found))


# Flags of DICOM objects.


def add_dicom_arguments(
  parser: argparse.ArgumentParser, *, on_request: bool = False
) -> None:
  """Adds --dicom-map and --dicom-pictures.

  Args:
    parser: of the command.
    on_request: whether the command makes objects with --dicom only, which is added.
  """
  group = parser.add_argument_group('DICOM objects (docs/dicom_objects.md)')
  if on_request:
    group.add_argument(
      '--dicom',
      action='store_true',
      help='leave segmentation, parametric map and structured report in DIR/dicom, on '
      "the CT's own slices",
    )
  group.add_argument(
    '--dicom-map',
    metavar='|'.join(objects.MAP_FORMS),
    help='how values of the parametric map are stored: uint16, packed, 1e-5 off at '
    'most (default), or float32, exact, of 1 MB a slice',
  )
  group.add_argument(
    '--dicom-pictures',
    action='store_true',
    help='key pictures of the report too, as secondary captures',
  )


def dicom_options(arguments: argparse.Namespace) -> objects.Options:
  """What --dicom-map and --dicom-pictures ask for.

  Raises:
    errors.UsageError: --dicom-map is another form.
  """
  return objects.Options(
    arguments.dicom_map or objects.MAP_FORMS[0], arguments.dicom_pictures
  )


def dicom_options_on_request(arguments: argparse.Namespace) -> objects.Options | None:
  """The same of a command with --dicom; None without it.

  Raises:
    errors.UsageError: flags of objects are given without --dicom.
  """
  if arguments.dicom:
    return dicom_options(arguments)
  for name in ('dicom_map', 'dicom_pictures'):
    if getattr(arguments, name):
      raise errors.UsageError(
        f'--{name.replace("_", "-")} belongs to --dicom: give both, or leave it out.'
      )
  return None


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
  """The values of the flags, as keyword arguments of `covid_tf.read_ct`."""
  return {
    'resample_tilt': arguments.resample_tilt,
    'ignore_frame_of_reference': arguments.ignore_frame_of_reference,
    'phase': arguments.phase,
    'select': arguments.select,
  }


# Flags of a PACS: how it is reached, and what it knows us by.


def add_pacs_arguments(parser: argparse.ArgumentParser, *, listens: bool) -> None:
  """Adds the flags of `open_archive`.

  Args:
    parser: of the command.
    listens: whether the PACS may have to open an association to us.
  """
  own = parser.add_argument_group('who we are to a PACS by DIMSE')
  own.add_argument(
    '--aet', metavar='TITLE', default='COVIDTF', help='our AE title (default COVIDTF)'
  )
  if listens:
    own.add_argument(
      '--own-port',
      type=int,
      metavar='PORT',
      help='port at which the PACS reaches us, on every address of this machine, while '
      'the command runs: C-MOVE and storage commitment need it',
    )
  else:
    parser.set_defaults(own_port=None)
  safe = parser.add_argument_group('security of the connection')
  safe.add_argument('--tls', action='store_true', help='DIMSE over TLS')
  safe.add_argument(
    '--tls-ca', metavar='PEM', help='authority that signed the certificate of the PACS'
  )
  safe.add_argument('--tls-certificate', metavar='PEM', help='our own certificate')
  safe.add_argument('--tls-key', metavar='PEM', help='its private key')
  safe.add_argument(
    '--token-file',
    metavar='FILE',
    help='a bearer token for a URL; only its owner may be able to read the file',
  )
  safe.add_argument(
    '--password-file',
    metavar='FILE',
    help='user:password for a URL; only its owner may be able to read the file',
  )
  times = parser.add_argument_group('how long a PACS may take, in seconds')
  for name, seconds, help_ in (
    ('connect', 10.0, 'to be reached'),
    ('answer', 60.0, 'for its next answer'),
    ('total', 3600.0, 'for the whole, with repetitions'),
  ):
    times.add_argument(
      f'--{name}-timeout',
      type=float,
      default=seconds,
      metavar='SECONDS',
      help=f'{help_} (default {seconds:g})',
    )


def open_archive(
  arguments: argparse.Namespace, address: Any, *, attempts: int = 3, use_move=False
) -> Any:
  """The PACS that the flags name, a `covid_tf.clinic.pacs.Archive`.

  Args:
    arguments: the parsed flags.
    address: of `covid_tf.clinic.addresses.parse`.
    attempts: how often it is tried where that may help.
    use_move: retrieve by C-MOVE without trying C-GET first.

  Raises:
    errors.UsageError: flags do not fit the address, or files are not in order.
  """
  # Other commands need none of it.
  from covid_tf import clinic
  from covid_tf.clinic import addresses
  from covid_tf.clinic import pacs

  return clinic.connect(
    address,
    own=addresses.OwnNode(arguments.aet, arguments.own_port),
    security=addresses.Security(
      tls=arguments.tls,
      ca_file=arguments.tls_ca,
      certificate_file=arguments.tls_certificate,
      key_file=arguments.tls_key,
      token_file=arguments.token_file,
      password_file=arguments.password_file,
    ),
    limits=pacs.Limits(
      arguments.connect_timeout,
      arguments.answer_timeout,
      arguments.total_timeout,
      attempts,
    ),
    use_move=use_move,
  )
