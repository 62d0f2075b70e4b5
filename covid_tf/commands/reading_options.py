"""Flags that say how a study is read; the same for every command that reads one."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --select, --phase, --resample-tilt and --ignore-frame-of-reference."""
  reading = parser.add_argument_group('how a study is read')
  reading.add_argument(
      '--select', metavar='RULE',
      help='which of several series: conditions parted by commas, applied in order, '
      'for instance thickness=thinnest,kernel=B6*|I7*; also description=, type=, '
      'number=, kvp=, slices=, extent=longest, newest, oldest')
  reading.add_argument(
      '--phase', metavar='N|KEYWORD=VALUE',
      help='of a series with several images at one place those to read: the N-th that '
      'the refusal lists, or by a header field, for instance TriggerTime=450')
  reading.add_argument(
      '--resample-tilt', action='store_true',
      help='straighten a series with gantry tilt instead of refusing it')
  reading.add_argument(
      '--ignore-frame-of-reference', action='store_true',
      help='read a series whose slices have several Frame of Reference UIDs by their '
      'positions')


def chosen(arguments: argparse.Namespace) -> dict[str, object]:
  """What the flags say, as keyword arguments of `covid_tf.read_ct`."""
  return {
      'resample_tilt': arguments.resample_tilt,
      'ignore_frame_of_reference': arguments.ignore_frame_of_reference,
      'phase': arguments.phase,
      'select': arguments.select,
  }
