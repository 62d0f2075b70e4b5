"""Flags of how a study is read, analysed and corrected: the same in every command."""

import argparse
from collections.abc import Callable
import re
import textwrap
from typing import Any

from covid_tf import errors
from covid_tf import results

# Flags of how a study is read.


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


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
  """The values of the flags, as keyword arguments of `covid_tf.read_ct`."""
  return {
    'resample_tilt': arguments.resample_tilt,
    'ignore_frame_of_reference': arguments.ignore_frame_of_reference,
    'phase': arguments.phase,
    'select': arguments.select,
  }


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
