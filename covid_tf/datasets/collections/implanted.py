"""Slices with lesions implanted into chests that have none.

Lung masks are made before anything is painted, so that consolidated lung stays in
them. Every slice of a chest carries that chest's patient: none of its children can
land in another set.
"""

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets import look_alikes
from covid_tf.datasets import opacities
from covid_tf.datasets import single_slices
from covid_tf.datasets.collections import study
from covid_tf.storage import tables

NAME = 'implanted'
_SLICES_A_STUDY = 300
_MOST_OF_A_DRAW = 24  # Slabs of a kind: more draws show more than more slabs of one.
_MOST_DRAWS = 200  # Of a study: a chest too small for opacities gives fewer slabs.
# Ours: a square centimetre; a radiologist labels few slices for less.
_SMALLEST_OPACITY_MM2 = 100.0
_SINGLE_SLICE_MM = 5.0  # Ours: what stands for the thickness of a slice alone.


def list_studies(
  backgrounds: Sequence[str | os.PathLike],
  slices: int,
  seed: int = 0,
  size: int = 256,
  shares: Sequence[float] = (),
  thickness_mm: float | None = None,
  single_backgrounds: str | os.PathLike | None = None,
  lesion_slices: str | os.PathLike | None = None,
) -> list[study.StudyEntry]:
  """Lists the draws.

  Args:
    backgrounds: CT series of chests without disease, each of another patient.
    slices: to draw from all of them.
    seed: source of every draw.
    size: largest side of a slice.
    shares: of the slices, one for each background, divided by their sum; none:
      equal ones. A chest of many slices has more to show than one of two.
    thickness_mm: painted slices that lie closer are averaged to it.
    single_backgrounds: table of slices that are alone (`single_slices.list_slices`);
      those of label 0 are one more background, in equal parts.
    lesion_slices: table of real lesions (`read_textures`) that a third of the
      opacities look like.

  Raises:
    errors.UsageError: no background, one twice, or one that does not exist; another
      number of shares; a share that is not one slice; or a damaged table.
  """
  paths = [pathlib.Path(path).resolve() for path in backgrounds]
  alone = [] if single_backgrounds is None else _alone(single_backgrounds)
  if not paths + alone or len(set(paths)) < len(paths) or slices < 1:
    raise errors.UsageError(
      '--backgrounds: one or more chests, each once, and --slices of 1 or more are '
      f'required, found {len(paths)} and {slices}.'
    )
  if names := [path.name for path in paths if not path.exists()]:
    raise errors.UsageError(f'--backgrounds: {names[0]}: no such file or folder.')
  textures = () if lesion_slices is None else read_textures(lesion_slices)
  counts = _counts(len(paths) + bool(alone), slices, shares)
  entries = []
  for number, (path, count) in enumerate(zip(paths, counts)):
    for part, first in enumerate(range(0, count, _SLICES_A_STUDY)):
      few, seeds = min(_SLICES_A_STUDY, count - first), (seed, number, part)
      read = functools.partial(
        _read_chest, path, few, size, seeds, thickness_mm, textures
      )
      entries.append(_entry(path, f'{number}-{path.name}-{part}', read))
  for number, entry in enumerate(alone):
    few = -(-counts[-1] // len(alone))
    seeds = (seed, len(paths), number)
    read = functools.partial(_read_slice, entry.path, few, size, seeds, textures)
    name = f'slice{number}-{entry.path.stem}'
    entries.append(_entry(entry.path, name, read, entry.patient))
  return entries


def _entry(path, series, read, patient=''):
  # Two parts of the path: a chest's folder is often called "series".
  patient = patient or '/'.join(path.parts[-2:])
  return study.StudyEntry(
    NAME, f'{NAME}/{patient}', series, NAME, read, labels_by='implanted lesions'
  )


def _alone(table):
  return [entry for entry in single_slices.list_slices(table) if entry.label == 0]


def read_textures(table: str | os.PathLike) -> tuple[opacities.LesionTexture, ...]:
  """Cuts real lesions out of slices of patients who have them.

  Args:
    table: CSV with the columns `file` (DICOM or NIfTI, from the table's folder on),
      `row0`, `column0`, `row1`, `column1`: a box in the slice, half open, inside the
      lung and mostly lesion.

  Raises:
    errors.UsageError: a row is damaged, or its box leaves the slice.
    errors.CTReadError: a file is no axial CT slice in HU with its millimetres.
  """
  table = pathlib.Path(table)
  sides = ('row0', 'column0', 'row1', 'column1')
  textures = []
  for row in tables.read_table(table, ('file', *sides)):
    path = tables.path_of(row.cells['file'], table.parent)
    if not path.is_file():
      raise errors.UsageError(
        f'{table}, row {row.number}: file must name a file, found '
        f'{row.cells["file"]!r}.'
      )
    hu, pixel_mm = single_slices.read_slice(path)
    try:
      row0, column0, row1, column1 = (int(row.cells[side]) for side in sides)
    except ValueError:
      row0 = row1 = column0 = column1 = 0
    if not (
      0 <= row0 < row1 - 7 < hu.shape[0] - 6
      and 0 <= column0 < column1 - 7 < hu.shape[1] - 6
      and pixel_mm
    ):
      raise errors.UsageError(
        f'{table}, row {row.number}: a box of 8 pixels a side or more inside a slice '
        f'of {hu.shape[0]} rows and {hu.shape[1]} columns with a known distance of '
        f'pixels is required, found {[row.cells[side] for side in sides]}.'
      )
    textures.append(opacities.texture_of(hu[row0:row1, column0:column1], pixel_mm))
  if not textures:
    raise errors.UsageError(f'{table}: one lesion or more is required, found none.')
  return tuple(textures)


def parse_shares(texts: Sequence[str]) -> tuple[float, ...]:
  """Reads shares as a flag states them.

  Raises:
    errors.UsageError: one is no number above 0.
  """
  try:
    shares = tuple(map(float, texts))
  except ValueError:
    shares = (0.0,)
  if not all(0 < share < float('inf') for share in shares):
    raise errors.UsageError(
      '--background_shares: numbers above 0 are required, such as 0.7,0.3; found '
      f'{",".join(texts)!r}.'
    )
  return shares


def _counts(backgrounds, slices, shares):
  """Slices of each background; they sum to `slices`."""
  shares = np.array(shares or [1.0] * backgrounds)
  if len(shares) != backgrounds:
    raise errors.UsageError(
      f'--background_shares: one for each of the {backgrounds} --backgrounds is '
      f'required, found {len(shares)}.'
    )
  ends = np.rint(slices * shares.cumsum() / shares.sum()).astype(int)
  counts = np.diff(ends, prepend=0)
  if not counts.all():
    raise errors.UsageError(
      f'--slices: at least one from every background is required, found {slices} for '
      f'{backgrounds} of them; ask for more.'
    )
  return counts.tolist()


def _read_chest(path, count, size, seeds, thickness_mm, textures) -> study.Study:
  """Slabs of one chest, painted again and again until there are `count`."""
  volume = readers.read_ct(path)
  labels = np.zeros(volume.shape[0], np.int8)
  chest = study.prepared(study.of_volume(volume, labels), size, path.name)
  return _drawn(chest, count, np.random.default_rng(seeds), thickness_mm, textures)


def _read_slice(path, count, size, seeds, textures) -> study.Study:
  """A single slice, painted as a body that goes through it."""
  hu, pixel_mm = single_slices.read_slice(path)
  if not pixel_mm:
    raise errors.CTReadError(
      f'{path.name}: millimetres between pixels are required to paint opacities, found '
      'none; give DICOM or NIfTI.'
    )
  alone = study.Study(hu[np.newaxis], np.zeros(1, np.int8), (0.0, pixel_mm, pixel_mm))
  chest = study.prepared(alone, size, path.name)
  return _drawn(chest, count, np.random.default_rng(seeds), None, textures)


def _drawn(chest, count, random, thickness_mm, textures):
  """Draws of a chest, as many slabs with an opacity as without."""
  wanted = {1: count // 2, 0: count - count // 2}
  parts = []
  for number in range(_MOST_DRAWS):
    if not any(wanted.values()):
      break
    drawn = _draw(chest, number % 4 > 0, thickness_mm, random, textures)
    keep = np.zeros(len(drawn.labels), bool)
    for label in wanted:
      places = np.flatnonzero(drawn.labels == label)
      places = random.permutation(places)[: min(wanted[label], _MOST_OF_A_DRAW)]
      keep[places] = True
      wanted[label] -= len(places)
    parts.append((drawn, keep))
  return _joined(parts)


def _draw(chest, is_ill, thickness_mm, random, textures) -> study.Study:
  """One patient: look-alikes, and opacities where it is ill; averaged to slabs."""
  through, *plane_mm = chest.spacing_mm
  spacing_mm = (through or _SINGLE_SLICE_MM, *plane_mm)
  hu = opacities.to_hu(look_alikes.add(chest.hu, chest.lung_mask, spacing_mm, random))
  lesions = np.zeros(hu.shape, np.uint8)
  if is_ill:
    painted = opacities.paint(hu, chest.lung_mask, spacing_mm, random, textures)
    hu, lesions = painted.hu, painted.lesion_mask
  labels = lesions.any(axis=(1, 2)).astype(np.int8)
  drawn = study.averaged(
    dataclasses.replace(chest, hu=hu, lesion_mask=lesions, labels=labels), thickness_mm
  )
  assert drawn.lesion_mask is not None  # As given.
  drawn_labels = study.labels_from_lesions(
    drawn.lesion_mask, plane_mm[0], _SMALLEST_OPACITY_MM2
  )
  # An opacity too thin to be drawn in the average is still there: not clean.
  touched = (drawn_labels == 0) & (drawn.labels != 0)
  return dataclasses.replace(
    drawn, labels=np.where(touched, study.UNLABELLED, drawn_labels).astype(np.int8)
  )


def _joined(parts) -> study.Study:
  first = parts[0][0]

  def kept(name):
    return np.concatenate([getattr(drawn, name)[keep] for drawn, keep in parts])

  index = np.concatenate(
    [
      (np.arange(len(keep)) if drawn.slice_index is None else drawn.slice_index)[keep]
      for drawn, keep in parts
    ]
  )
  return study.Study(
    kept('hu'),
    kept('labels'),
    (0.0, *first.spacing_mm[1:]),
    kept('lung_mask'),
    kept('lesion_mask'),
    study.PSEUDO,
    first.box,
    slice_index=index,
    acquisition=first.acquisition,
  )
