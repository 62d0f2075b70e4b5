"""Phantom patients, one study each, with exact masks."""

import functools

from covid_tf import errors
from covid_tf.datasets import phantom
from covid_tf.datasets.collections import study

NAME = 'phantom'
# Ours: a slice that shows less lesion than this is neither positive nor negative.
SMALLEST_LESION_MM2 = 60.0


def list_studies(
  count: int, first_seed: int = 0, matrix: int = 256
) -> list[study.StudyEntry]:
  """Lists phantoms of consecutive seeds.

  Args:
    count: how many.
    first_seed: seed of the first; training draws below a million.
    matrix: rows and columns of a slice.

  Raises:
    errors.UsageError: no phantoms are asked for.
  """
  if count < 1 or first_seed < 0:
    raise errors.UsageError(
      '--phantoms: one or more from a seed of 0 or more are required, found '
      f'{count} from {first_seed}.'
    )
  entries = []
  for seed in range(first_seed, first_seed + count):
    case = phantom.draw_case(seed, matrix=matrix)
    entries.append(
      study.StudyEntry(
        NAME,
        f'{NAME}/{seed}',
        f'{NAME}-{seed}',
        case.kind,
        functools.partial(_read_study, case),
        int(case.kind != 'none'),
        'severe' if case.severe else '',
        'phantom',
      )
    )
  return entries


def _read_study(case) -> study.Study:
  drawn = phantom.generate(case)
  spacing_mm = drawn.volume.spacing_mm
  labels = study.labels_from_lesions(
    drawn.lesion_mask, spacing_mm[1], SMALLEST_LESION_MM2
  )
  return study.Study(
    drawn.volume.hu, labels, spacing_mm, drawn.lung_mask, drawn.lesion_mask, study.DRAWN
  )
