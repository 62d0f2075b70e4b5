"""What every study goes through before it is written: masks, stored size, lung box."""

import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import lung_pieces
from covid_tf import lungs
from covid_tf.datasets import pseudo_lungs
from covid_tf.datasets.collections import study as study_lib

# Ours: for pictures without a spacing, a usual width of a chest CT's field of view.
_ASSUMED_WIDTH_MM = 360.0


def prepared(study: study_lib.Study, size: int, name: str) -> study_lib.Study:
  """Adds pseudo lung masks where there are none, shrinks, and finds the lung box.

  The box follows the rule of inference: of the pieces that are lung, the largest box
  of a slice.

  Args:
    study: as its importer read it.
    size: largest side to store; larger slices become means of whole blocks. 0 keeps
      slices as they are.
    name: of the study, for messages.

  Returns:
    The study with lung mask and box.

  Raises:
    errors.NoLungsError: no lungs were found in it.
  """
  if study.lung_mask is None:
    study = _with_pseudo_lungs(study)
  study = _shrunk(study, size) if size else study
  if study.box is not None:
    return study
  mask = study.lung_mask
  if study.spacing_mm[0] > 0:  # Else slices are single, or far apart.
    mask = lung_pieces.keep_lungs(mask.copy(), _usual_affine(study.spacing_mm))
  if not mask.any():
    raise errors.NoLungsError(
        f'{name}: lungs are required for its lung box, found none; leave the study '
        'out, or give a lung mask.')
  box = lungs.largest_box(lungs.slice_boxes(mask))
  return dataclasses.replace(study, box=tuple(box.as_list()))


def _usual_affine(spacing_mm):
  """Slices from the feet to the head, rows to the back, columns to the left."""
  affine = np.zeros((4, 4))
  affine[(2, 1, 0, 3), (0, 1, 2, 3)] = (*spacing_mm, 1)
  return affine


def _with_pseudo_lungs(study):
  if study.spacing_mm[0] > 0:
    mask = pseudo_lungs.segment(study.hu, study.spacing_mm)
  else:
    pixel_mm = study.spacing_mm[1] or _ASSUMED_WIDTH_MM / study.hu.shape[2]
    mask = np.stack([pseudo_lungs.segment_slice(hu, pixel_mm) for hu in study.hu])
  if study.lesion_mask is not None:
    mask = np.maximum(mask, study.lesion_mask)  # Consolidated lung is lung.
  return dataclasses.replace(
      study, lung_mask=mask, lung_mask_kind=study_lib.PSEUDO)


def _shrunk(study, size):
  step = -(-max(study.hu.shape[1:]) // size)
  if step == 1:
    return study
  masks = {}
  for name in ('lung_mask', 'lesion_mask'):
    mask = getattr(study, name)
    if mask is not None:
      masks[name] = np.stack(
          [_block_means(plane, step, 0) >= 0.5 for plane in mask]).astype(np.uint8)
  hu = np.stack([np.rint(_block_means(plane, step, None)) for plane in study.hu])
  box = study.box and tuple(
      side // step if place < 2 else -(-side // step)
      for place, side in enumerate(study.box))
  slice_mm, row_mm, column_mm = study.spacing_mm
  return dataclasses.replace(
      study, hu=hu.astype(np.int16), box=box,
      spacing_mm=(slice_mm, row_mm * step, column_mm * step), **masks)


def _block_means(plane, step, fill):
  """float32 means of step x step blocks; `fill` beyond the edge, None repeats it."""
  pad = [(0, -side % step) for side in plane.shape]
  how = {'mode': 'edge'} if fill is None else {'constant_values': fill}
  plane = np.pad(plane.astype(np.float32), pad, **how)
  rows, columns = plane.shape
  blocks = plane.reshape(rows // step, step, columns // step, step)
  return blocks.mean(axis=(1, 3))
