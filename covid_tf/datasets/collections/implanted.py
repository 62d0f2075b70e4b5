"""Slices with lesions implanted into chests that have none.

Lung masks are made before anything is painted, so that consolidated lung stays in
them. Every slice of a chest carries that chest's patient: none of its children can
land in another set.
"""

from collections.abc import Sequence
import functools
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets import implantation
from covid_tf.datasets.collections import phantoms
from covid_tf.datasets.collections import study

NAME = 'implanted'
_SLICES_A_STUDY = 300
_SMALLEST_LUNG_MM2 = 1500.0  # Ours: less lung holds no lesion worth the name.


def list_studies(
  backgrounds: Sequence[str | os.PathLike],
  slices: int,
  seed: int = 0,
  size: int = 256,
  shares: Sequence[float] = (),
  thickness_mm: float | None = None,
) -> list[study.StudyEntry]:
  """Lists the draws.

  Args:
    backgrounds: CT series of chests without disease, each of another patient.
    slices: to draw from all of them.
    seed: source of every draw.
    size: largest side of a slice.
    shares: of the slices, one for each background, divided by their sum; none:
      equal ones. A chest of many slices has more to show than one of two.
    thickness_mm: lesions are drawn into averages of slices that lie closer.

  Raises:
    errors.UsageError: no background, one twice, or one that does not exist; another
      number of shares; or a share that is not one slice.
  """
  paths = [pathlib.Path(path).resolve() for path in backgrounds]
  if not paths or len(set(paths)) < len(paths) or slices < 1:
    raise errors.UsageError(
      '--backgrounds: one or more chests, each once, and --slices of 1 or more are '
      f'required, found {len(paths)} and {slices}.'
    )
  if names := [path.name for path in paths if not path.exists()]:
    raise errors.UsageError(f'--backgrounds: {names[0]}: no such file or folder.')
  counts = _counts(len(paths), slices, shares)
  entries = []
  for number, (path, count) in enumerate(zip(paths, counts)):
    for part, first in enumerate(range(0, count, _SLICES_A_STUDY)):
      entries.append(
        study.StudyEntry(
          NAME,
          f'{NAME}/{number}-{path.name}',
          f'{number}-{path.name}-{part}',
          NAME,
          functools.partial(
            _read_study,
            path,
            min(_SLICES_A_STUDY, count - first),
            size,
            (seed, number, part),
            thickness_mm,
          ),
          labels_by='implanted lesions',
        )
      )
  return entries


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


def _read_study(path, count, size, seeds, thickness_mm=None) -> study.Study:
  random = np.random.default_rng(seeds)
  volume = readers.read_ct(path)
  chest = study.prepared(
    study.of_volume(volume, np.zeros(volume.shape[0], np.int8)),
    size,
    path.name,
    thickness_mm,
  )
  lung_mask = chest.lung_mask
  assert lung_mask is not None  # `prepared` gives one.
  pixel_mm = chest.spacing_mm[1]
  chosen = np.sort(random.integers(0, len(chest.hu), count))
  hu, lesions = (
    np.empty((count, *chest.hu.shape[1:]), dtype) for dtype in (np.int16, np.uint8)
  )
  labels = np.empty(count, np.int8)
  for place, index in enumerate(chosen):
    hu[place], lesions[place], labels[place] = _draw(
      chest.hu[index], lung_mask[index], pixel_mm, random
    )
  return study.Study(
    hu,
    labels,
    (0.0, *chest.spacing_mm[1:]),
    lung_mask[chosen],
    lesions,
    study.PSEUDO,
    chest.box,
    slice_index=chosen,
    acquisition=chest.acquisition,
  )


def _draw(hu, lung_mask, pixel_mm, random):
  """A slice with look-alikes, every second one with a lesion: hu, lesion, label."""
  hu = implantation.add_look_alikes(hu, lung_mask, pixel_mm, random)
  nothing = np.zeros_like(lung_mask)
  # Apices and bases are negatives too: never shown, they are called positive.
  if lung_mask.sum() * pixel_mm**2 < _SMALLEST_LUNG_MM2 or random.random() < 0.5:
    return hu, nothing, 0
  drawn = implantation.implant_lesions(hu, lung_mask, pixel_mm, random)
  labels = study.labels_from_lesions(
    drawn.lesion_mask[np.newaxis], pixel_mm, phantoms.SMALLEST_LESION_MM2
  )
  # A lesion too thin to be drawn is still painted, so such a slice is not clean.
  return drawn.hu, drawn.lesion_mask, labels[0] or study.UNLABELLED
