"""`covid-tf inspect`: geometry and HU of a study, or why it is refused."""

import argparse
import dataclasses
import json

import numpy as np

from covid_tf import readers
from covid_tf import volume
from covid_tf.commands import shared_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of this command."""
  parser.add_argument(
    'study',
    metavar='STUDY',
    help='folder, DICOM file, DICOMDIR, zip, or file of NIfTI, MetaImage or NRRD',
  )
  parser.add_argument('--series', metavar='UID', help='the series to read')
  shared_flags.add_reading_arguments(parser)
  parser.add_argument(
    '--list', action='store_true', help='all series, without reading one'
  )
  parser.add_argument('--json', action='store_true', help='one JSON object')


def run(args: argparse.Namespace) -> int:
  """Prints the geometry and HU statistics of the study; returns 0."""
  if args.list:
    series = readers.list_series(args.study)
    print(
      json.dumps([dataclasses.asdict(entry) for entry in series])
      if args.json
      else '\n'.join(map(str, series)) or 'no DICOM series'
    )
    return 0
  ct = readers.read_ct(args.study, args.series, **shared_flags.chosen(args))
  facts = describe(ct)
  print(json.dumps(facts) if args.json else _table(facts))
  return 0


def describe(ct: volume.CTVolume) -> dict:
  """Geometry and HU statistics of a volume, ready for JSON."""
  return {
    'study_uid': ct.study_uid,
    'series_uid': ct.series_uid,
    'shape': list(ct.shape),
    'spacing_mm': list(ct.spacing_mm),
    'voxel_volume_mm3': ct.voxel_volume_mm3,
    'hu_min': int(ct.hu.min()),
    'hu_max': int(ct.hu.max()),
    'hu_mean': float(ct.hu.mean(dtype=np.float64)),
    'acquisition_date': ct.acquisition_date,
    'acquisition': dataclasses.asdict(ct.acquisition or volume.Acquisition()),
    'warnings': list(ct.warnings),
  }


def _table(facts: dict) -> str:
  lines = [
    ('study', facts['study_uid'] or '(none)'),
    ('series', facts['series_uid'] or '(none)'),
    ('size', '{} slices of {} x {}'.format(*facts['shape'])),
    (
      'spacing',
      '{:.4g} mm between slices, {:.4g} x {:.4g} mm in plane'.format(
        *facts['spacing_mm']
      ),
    ),
    ('voxel', f'{facts["voxel_volume_mm3"]:.4g} mm³'),
    ('HU', f'{facts["hu_min"]} to {facts["hu_max"]}, mean {facts["hu_mean"]:.1f}'),
    ('acquired', facts['acquisition_date'] or '(no date)'),
    *(
      [('scan', scan)]
      if (scan := volume.Acquisition(**facts['acquisition']).in_words())
      else []
    ),
    *(('warning', text) for text in facts['warnings']),
  ]
  return '\n'.join(f'{name:9}{value}' for name, value in lines)
